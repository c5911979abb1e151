"""What ranked groups are, by the simulator and by human data."""
