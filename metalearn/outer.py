"""Outer optimizers for an objective whose curvature grows with its gradient: clip it, or normalize it.

Chayti & Jaggi (arXiv 2409.03682) show that the meta-objective is not L-smooth. A learning rate that is safe far from
the solution is then needlessly small near it, whereas a step of bounded norm is safe everywhere. All three are optax
transformations, so they can stand wherever optax.sgd does.
"""

import jax.numpy as jnp
import optax

from metalearn import _norm, _require
from metalearn.task import Number


def clipped_sgd(learning_rate: optax.ScalarOrSchedule, max_norm: Number) -> optax.GradientTransformation:
    """θ ← θ - η g min(1, max_norm / ‖g‖), where the norm is that of all parameters together.

    Args:
      learning_rate: η > 0, or an optax schedule; it may be traced.
      max_norm: > 0, the largest norm of a gradient that is left as it is, in units of loss / params; it may be traced.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> outer = ml.outer.clipped_sgd(learning_rate=1.0, max_norm=5.0)
      >>> updates, _ = outer.update(jnp.array([30.0, 40.0]), outer.init(jnp.zeros(2)))
      >>> [round(number, 2) for number in updates.tolist()]
      [-3.0, -4.0]
    """
    _require.learning_rate(learning_rate)
    _require.positive(max_norm=max_norm)
    return optax.chain(_with_norm(lambda norm: jnp.minimum(norm, max_norm)), optax.sgd(learning_rate))


def normalized_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """θ ← θ - η g / ‖g‖, so that every step has norm η, in units of params.

    Args:
      learning_rate: η > 0, or an optax schedule; it may be traced. With a constant one θ circles the solution at a
        distance of about η.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> outer = ml.outer.normalized_sgd(learning_rate=0.1)
      >>> updates, _ = outer.update(jnp.array([30.0, 40.0]), outer.init(jnp.zeros(2)))
      >>> [round(number, 2) for number in updates.tolist()]
      [-0.06, -0.08]
    """
    _require.learning_rate(learning_rate)
    return optax.chain(_with_norm(jnp.ones_like), optax.sgd(learning_rate))


def normalized_sgd_momentum(learning_rate: optax.ScalarOrSchedule, momentum: Number) -> optax.GradientTransformation:
    """SNGDM: average the gradients first, then normalize.  (Cutkosky & Mehta 2020, arXiv 2002.03305)

    ::

        m ← β m + (1 - β) g,    θ ← θ - η m / ‖m‖

    The other order would give each noisy gradient the same weight, however small it is, and lose the convergence proof.

    Args:
      learning_rate: η > 0, or an optax schedule; the norm of every step, in units of params. It may be traced.
      momentum: β, at least 0 and below 1; it may be traced.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> outer = ml.outer.normalized_sgd_momentum(learning_rate=0.1, momentum=0.5)
      >>> state = outer.init(jnp.zeros(2))
      >>> for gradient in jnp.array([[0.0, 8.0], [3.0, 0.0]]):
      ...     updates, state = outer.update(gradient, state)
      >>> [round(number, 2) for number in updates.tolist()]  # the mean, m = (1.5, 2), has norm 2.5
      [-0.06, -0.08]
    """
    _require.learning_rate(learning_rate)
    _require.fraction(momentum=momentum)
    return optax.chain(optax.ema(momentum, debias=False), _with_norm(jnp.ones_like), optax.sgd(learning_rate))


def _with_norm(new_norm):
    """Turns a gradient g into the vector of norm new_norm(‖g‖) in the same direction; zero stays zero."""

    def update(gradient, params=None):
        unit, norm = _norm.direction(gradient)
        return optax.tree.scale(new_norm(norm), unit)

    return optax.stateless(update)
