"""What travels, and what can be said about it: no rule, no I/O."""
