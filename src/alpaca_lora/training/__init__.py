"""Training: the exact step, and a run around it."""
