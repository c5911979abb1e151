"""Ranked groups: what they are, reading and checking them, splitting, mixing, storing."""
