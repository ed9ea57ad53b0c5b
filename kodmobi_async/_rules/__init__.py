"""Rules that know no I/O: time is passed in, no socket in sight."""
