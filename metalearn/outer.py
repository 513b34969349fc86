"""Outer steps for an objective whose curvature grows with its gradient: clip, or normalise.

Chayti & Jaggi (arXiv 2409.03682) show that the meta-objective is not L-smooth. A plain gradient step that is safe far
from the solution is then needlessly small near it; a step of bounded length is safe everywhere.
All three are optax transformations, to be used wherever optax.sgd could be.
"""

import optax

from metalearn import _require

# Keeps 0 / 0 from arising where the gradient vanishes; too small to shorten any other step.
_TINY = 1e-30


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
    return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate))


def normalized_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """theta <- theta - e g / ||g||: every step has length e, in units of params.

    Args:
      learning_rate: e > 0, or an optax schedule. A constant one circles the solution at a distance of about e.

    Raises:
      ValueError: if the learning rate is not positive.
    """
    _require.learning_rate(learning_rate)
    return optax.chain(optax.normalize_by_update_norm(eps=_TINY), optax.sgd(learning_rate))


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
    return optax.chain(
        optax.ema(momentum, debias=False),
        optax.normalize_by_update_norm(eps=_TINY),
        optax.sgd(learning_rate),
    )
