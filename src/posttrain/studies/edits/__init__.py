"""How edited responses are used, and what they add."""
