"""How far a reward model can be pushed by choosing the best of n before the truth turns."""
