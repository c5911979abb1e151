"""Running the notebooks, and checking the parameters that they are given."""
