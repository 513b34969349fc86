"""Meta-gradients: one file per paper, each a drop-in for `jax.value_and_grad` of one task's objective."""

from metalearn.meta_gradients.a_maml import a_maml
from metalearn.meta_gradients.fo_b_maml import fo_b_maml, fo_b_maml_limit
from metalearn.meta_gradients.fo_muml import fo_muml
from metalearn.meta_gradients.hf_maml import hf_maml
from metalearn.meta_gradients.imaml import imaml
from metalearn.meta_gradients.kernel_adaptation import kernel_adaptation
from metalearn.meta_gradients.maml import fo_maml, maml
from metalearn.meta_gradients.meta_rkhs import gradient_flow, meta_rkhs_i, meta_rkhs_ii
from metalearn.meta_gradients.reptile import reptile
from metalearn.meta_gradients.zeroing import zero_head, zeroing_trick

__all__ = [
    "a_maml",
    "fo_b_maml",
    "fo_b_maml_limit",
    "fo_maml",
    "fo_muml",
    "gradient_flow",
    "hf_maml",
    "imaml",
    "kernel_adaptation",
    "maml",
    "meta_rkhs_i",
    "meta_rkhs_ii",
    "reptile",
    "zero_head",
    "zeroing_trick",
]
