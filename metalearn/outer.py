"""Outer steps for an objective whose curvature grows with its gradient: clip, or normalise.

Chayti & Jaggi (arXiv 2409.03682) show that the meta-objective is not L-smooth. A plain gradient step that is safe far
from the solution is then needlessly small near it; a step of bounded length is safe everywhere.
All three are optax transformations, to be used wherever optax.sgd could be.
"""

import jax.numpy as jnp
import optax

from metalearn import _norm, _require


def clipped_sgd(learning_rate: optax.ScalarOrSchedule, max_norm: float) -> optax.GradientTransformation:
    """theta <- theta - e g min(1, max_norm / ||g||), with the norm over all parameters together.

    Args:
      learning_rate: e > 0, or an optax schedule.
      max_norm: the longest gradient left as it is, > 0, in units of loss / params.

    Raises:
      ValueError: if an argument is not positive.
    """
    _require.learning_rate(learning_rate)
    _require.positive(max_norm=max_norm)
    return optax.chain(_with_length(lambda length: jnp.minimum(length, max_norm)), optax.sgd(learning_rate))


def normalized_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """theta <- theta - e g / ||g||: every step has length e, in units of params.

    Args:
      learning_rate: e > 0, or an optax schedule. A constant one circles the solution at a distance of about e.

    Raises:
      ValueError: if the learning rate is not positive.
    """
    _require.learning_rate(learning_rate)
    return optax.chain(_with_length(jnp.ones_like), optax.sgd(learning_rate))


def normalized_sgd_momentum(learning_rate: optax.ScalarOrSchedule, momentum: float) -> optax.GradientTransformation:
    """SNGDM: average the gradients first, then normalise.  (Cutkosky & Mehta 2020, arXiv 2002.03305)

        m <- b m + (1 - b) g,    theta <- theta - e m / ||m||

    The other order would give each noisy gradient the same weight, however small it is, and lose the convergence proof.

    Args:
      learning_rate: e > 0, or an optax schedule: the length of every step, in units of params.
      momentum: b, at least 0 and below 1.

    Raises:
      ValueError: if an argument is out of range.
    """
    _require.learning_rate(learning_rate)
    _require.fraction(momentum=momentum)
    return optax.chain(optax.ema(momentum, debias=False), _with_length(jnp.ones_like), optax.sgd(learning_rate))


def _with_length(new_length):
    """Turns a gradient g into the vector of length new_length(||g||) in the same direction; zero stays zero."""

    def update(gradient, params=None):
        unit, norm = _norm.direction(gradient)
        return optax.tree.scale(new_length(norm), unit)

    return optax.stateless(update)
