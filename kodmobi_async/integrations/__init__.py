"""Doors to other libraries, each behind the extra that its module names."""
