"""Slots that processes share, whatever keeps them: what trackers do with their store."""
