"""Smaller choices of the recipe: where to start, which pairs to drop, averaging models."""
