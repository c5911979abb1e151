"""What one row for a prompt and all its responses changes, and what it saves."""
