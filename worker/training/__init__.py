"""Training: the loop, seeds, resumable state."""
