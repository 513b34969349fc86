"""Meta-gradients: one file per paper, each a drop-in for `jax.value_and_grad` of one task's objective."""

from metalearn.meta_gradients.fo_b_maml import fo_b_maml, fo_b_maml_limit
from metalearn.meta_gradients.imaml import imaml
from metalearn.meta_gradients.maml import fo_maml, maml
from metalearn.meta_gradients.reptile import reptile

__all__ = ["fo_b_maml", "fo_b_maml_limit", "fo_maml", "imaml", "maml", "reptile"]
