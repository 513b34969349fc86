"""Meta-gradients: one file per paper, each a drop-in for `jax.value_and_grad` of one task's objective."""
