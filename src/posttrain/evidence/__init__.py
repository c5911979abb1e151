"""Run records, the claims that they judge, and how both are shown."""
