"""What rounds of rejection sampling, SFT and DPO add, and which parts of the recipe matter."""
