"""One module per research question; each returns tidy tables and writes run records."""
