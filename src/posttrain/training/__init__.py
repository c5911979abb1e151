"""Training: losses, pairing, batches, the trainer, checkpoints, what a run leaves behind."""
