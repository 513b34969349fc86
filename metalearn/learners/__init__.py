"""How the meta-parameters learn from a batch of tasks."""
