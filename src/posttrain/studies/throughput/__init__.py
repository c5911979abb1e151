"""How fast row layouts train, against TRL's RewardTrainer."""
