"""What Llama 2's margin bought, and whether Llama 3 was right to drop it."""
