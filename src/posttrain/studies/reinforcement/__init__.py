"""What reinforcement learning makes of a reward model: how far the truth follows the score."""
