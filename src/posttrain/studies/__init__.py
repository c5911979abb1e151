"""Research questions, a folder each; every study returns tidy tables as a run record."""
