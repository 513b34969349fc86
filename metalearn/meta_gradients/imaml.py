"""iMAML: differentiate the solution, not the path to it.  (Rajeswaran, Finn, Kakade & Levine 2019, arXiv 1909.04630)

::

    φ*(θ)        = argmin_φ  h(φ) + λ/2 ‖φ - θ‖²                          h: support loss, f: query loss
    ∇_θ f(φ*(θ)) = g  with  (I + H / λ) g = ∇f(φ*),   H = ∇²h(φ*)           λ: proximal strength

The linear system is solved by conjugate gradients, which need only Hessian-vector products. When only some of the
parameters adapt (ANIL), it is solved for these, and the others receive their part of ∇f(φ*) - H g / λ.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from metalearn import _require
from metalearn._cost import costs
from metalearn.adaptation.inner import Objective, adapting_to_stationarity, descend, proximal
from metalearn.task import Loss, MetaGradient, Number, Params, Scalar


@costs("K + 1", "C + 1", copies="6", outputs="4.5", where="C is the number of steps of conjugate gradients")
def imaml(
    loss: Loss,
    inner: optax.GradientTransformation,
    num_steps: int,
    proximal_strength: Number,
    cg_steps: int,
) -> MetaGradient:
    """The implicit gradient at the end of an inner loop on the proximal objective.

    The gradient is exact when the inner loop has converged and conjugate gradients too. The inner loop can converge if
    its learning rate is at most 2 / (L + λ), with L the largest curvature of h, and if λ exceeds every negative
    curvature of h. Where one of the two has not converged, the gradient can be wrong by several hundred per cent
    without looking wrong: `evaluate.convergence` says, task by task, how far both have come. The page "Choosing ν, λ, α
    and K" of the documentation says how to set these numbers.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer; it receives the gradient of h(φ) + λ/2 ‖φ - θ‖².
      num_steps: K >= 1.
      proximal_strength: λ > 0, in units of curvature (loss / params²); it may be traced.
      cg_steps: number of conjugate-gradient steps, >= 1. As many as there are parameters solve the system exactly.

    Returns:
      A function (params, task) -> (query loss at φ_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError: by the function itself, where `inner` does not converge to φ*. Weight decay, for instance, belongs
        into the loss.

    Example:
      The minimum is φ* = 0.5, and g = λ / (1 + λ) ∇f(φ*):

      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> meta_gradient = ml.imaml(loss, optax.sgd(0.5), num_steps=10, proximal_strength=1.0, cg_steps=1)
      >>> round(float(meta_gradient(jnp.array(0.0), task)[1]), 2)
      -1.25
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps, cg_steps=cg_steps)
    _require.positive(proximal_strength=proximal_strength)

    @_require.params_and_task
    def meta_gradient(params, task):
        def support_loss(phi):
            return loss(phi, task.support)

        adapts = adapting_to_stationarity("imaml", inner, num_steps, params)
        adapted = descend(proximal(support_loss, params, proximal_strength), inner, num_steps, params)
        value, query_gradient = jax.value_and_grad(loss)(adapted, task.query)
        solution, _ = implicit_gradient(support_loss, adapted, query_gradient, adapts, proximal_strength, cg_steps)
        return value, solution

    return meta_gradient


def implicit_gradient(
    support_loss: Objective,
    adapted: Params,
    query_gradient: Params,
    adapts: Params,
    proximal_strength: Number,
    cg_steps: int,
) -> tuple[Params, Scalar]:
    """The g of this file's second equation, and the relative residual ‖∇f - (I + H / λ) g‖ / ‖∇f‖ of its solve.

    Args:
      support_loss: h, params -> scalar.
      adapted: φ*, as far as the inner loop has found it.
      query_gradient: ∇f(φ*), a pytree like `adapted`.
      adapts: which parameters adapt, a pytree of booleans like `adapted`.
      proximal_strength: λ > 0.
      cg_steps: number of conjugate-gradient steps.
    """
    right_side, unravel = ravel_pytree(query_gradient)  # one vector: `cg` cannot mix dtypes, params may
    mask = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(adapts)])

    _, hessian_times = jax.linearize(jax.grad(support_loss), adapted)

    def curvature(vector):
        return ravel_pytree(hessian_times(unravel(vector)))[0] / proximal_strength

    def times_system(vector):
        return vector + jnp.where(mask, curvature(vector), 0)

    of_adapting = jnp.where(mask, right_side, 0)
    solution, _ = jax.scipy.sparse.linalg.cg(times_system, of_adapting, tol=0.0, maxiter=cg_steps)
    # Where the system holds NaN, `cg` takes no step, and its zero would pass for a gradient.
    solution = jnp.where((jnp.vdot(of_adapting, of_adapting) != 0) & ~solution.any(), jnp.nan, solution)
    # Where a result is not used, the compiler leaves out its Hessian-vector product: when everything adapts, that of
    # the second half, and in `imaml` that of the residual.
    norm = jnp.linalg.norm(of_adapting)
    left = jnp.linalg.norm(of_adapting - times_system(solution)) / jnp.where(norm > 0, norm, 1)
    return unravel(jnp.where(mask, solution, right_side - curvature(solution))), left
