"""Converters of public originals: a module for each, and a registry with source and licence."""
