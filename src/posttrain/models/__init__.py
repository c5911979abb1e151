"""Reward models: loading, scoring rows, frozen features, linear heads, exactness."""
