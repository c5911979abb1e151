"""Where files go: the cache, and files that appear whole or not at all."""
