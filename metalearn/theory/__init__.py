"""Closed-form answers, in float64 numpy, against which the meta-gradients are tested."""

from metalearn.theory.quadratic import Quadratics, proximal, unrolled

__all__ = ["Quadratics", "proximal", "unrolled"]
