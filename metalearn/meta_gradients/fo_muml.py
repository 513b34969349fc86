"""FO-MuML: first-order MAML descends a Moreau envelope, the better the more often its inner step is repeated.

(Mishchenko, Hanzely & Richtarik 2023, arXiv 2301.06806; h: support loss, a: inner step)

    F(theta)      = min_z  h(z) + 1/(2a) ||z - theta||^2
    grad F(theta) = (theta - z*) / a = grad h(z*),    z* = theta - a grad h(z*)

    z_0 = theta,   z_{l+1} = theta - a grad h(z_l),   grad F(theta) ~ grad h(z_s)            every step starts at theta

One step is FO-MAML with the support set in both roles. (The abstract was read; the name FO-MuML and the form of the
iteration are given from memory.)
"""

import jax
import optax

from metalearn import _require
from metalearn.task import Loss, MetaGradient


def fo_muml(loss: Loss, step_size: float, num_steps: int) -> MetaGradient:
    """The support gradient at the end of the anchored iteration, near the gradient of the Moreau envelope.

    There is one loss a task: the query set only serves for the reported value. Cost: s + 1 gradients a task (and one
    loss). Memory: flat in s. Biased, by at most (a L)^(s+1) of the gradient, where h is convex with curvatures up to
    L < 1 / a; with a L >= 1 the iteration need not converge. More steps go no further towards the minimum of h, as
    they would in `fo_maml`: they find z* better.

    Args:
      loss: scalar loss of (params, batch).
      step_size: a > 0, in units of params / gradient; 1 / a is the proximal strength of `imaml`.
      num_steps: s >= 0; with 0 this is the plain gradient of the support loss.

    Returns:
      A function (params, task) -> (query loss at z_s, grad h(z_s)); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.positive(step_size=step_size)
    _require.count(num_steps=num_steps)

    def meta_gradient(params, task):
        def anchored_step(z, _):
            return optax.tree.add_scale(params, -step_size, jax.grad(loss)(z, task.support)), None

        z, _ = jax.lax.scan(anchored_step, params, length=num_steps)
        return loss(z, task.query), jax.grad(loss)(z, task.support)

    return meta_gradient
