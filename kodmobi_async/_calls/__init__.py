"""The calls of a client, each in a module of its own, and what they share."""
