"""Closed-form answers, in float64 numpy, against which the meta-gradients are tested; and what each costs."""

from metalearn.theory.contrastive import ContrastiveSplit, contrastive_split
from metalearn.theory.cost_model import Cost, cost
from metalearn.theory.multi_step import largest_stable_step, smoothness_bound
from metalearn.theory.quadratic import Quadratics, flow, moreau, proximal, unrolled

__all__ = [
    "ContrastiveSplit",
    "Cost",
    "Quadratics",
    "contrastive_split",
    "cost",
    "flow",
    "largest_stable_step",
    "moreau",
    "proximal",
    "smoothness_bound",
    "unrolled",
]
