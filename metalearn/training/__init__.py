"""The training loop, and the checkpoints of a run."""
