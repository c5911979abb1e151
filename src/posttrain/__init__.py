"""Reward models the Llama way: ranked responses → rows → scores → ranking loss → evidence.

Import the modules you need; this package re-exports nothing, so that importing it stays cheap.
"""

__version__ = "0.1.0"
