"""Preference sets on the Hugging Face hub: a converter for each, read whole or as a stream."""
