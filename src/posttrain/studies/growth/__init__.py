"""What more data buys, and whether it closes the gap of causal rows."""
