"""A-MAML: adaptation is a gradient flow, and an adjoint flow carries the meta-gradient back along it.

(Li, Wang, Narayan, Kirby & Zhe 2023, arXiv 2110.08432; h: support loss, f: query loss)::

    F(θ)  = f(u(T)),    du/dt = -∇h(u),          u(0) = θ,           from 0 to T
    ∇F(θ) = p(0),       dp/dt = ∇²h(u(t)) p,     p(T) = ∇f(u(T)),    from T to 0

Never recover u(t) by running its own flow backwards: that multiplies every error by up to exp(L T), with L
the largest curvature of h. Here about √K points of the path are kept as checkpoints, and the steps between two of them
are repeated.

The flow is solved by the fifth-order Runge-Kutta method of Tsitouras (2011), "Runge-Kutta pairs of order 5(4)
satisfying only the first column simplifying assumption", Computers & Mathematics with Applications 62(2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from metalearn import _require
from metalearn._cost import costs
from metalearn.adaptation import inner
from metalearn.task import Loss, MetaGradient, Number

# Row i holds the weights, in the point where derivative i is taken, of those before it; the last, those in the step.
TSITOURAS = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [0.161, 0, 0, 0, 0, 0],
        [-0.008480655492356989, 0.335480655492357, 0, 0, 0, 0],
        [2.8971530571054935, -6.359448489975075, 4.3622954328695815, 0, 0, 0],
        [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525, 0, 0],
        [5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383, 0],
        [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774],
    ]
)


@costs("18*K + 1", "6*K", copies="2*sqrt(K) + 25", outputs="15")
def a_maml(loss: Loss, horizon: Number, num_steps: int) -> MetaGradient:
    """The gradient of the query loss after a gradient flow on the support set for an inner training time T.

    The flow is the limit of T/α gradient steps with a learning rate α that becomes small. It is solved by K equal steps
    of a fifth-order method, stable up to about T/K = 3/L: twice the steps leave 1/32 of the error or less, where
    gradient steps leave half. The adjoint flow is solved by the transposes of these steps, so that the gradient is
    exact for the value returned, whatever K.

    A step takes six gradients. It is taken once forwards and twice more from a checkpoint during backpropagation, where
    each of its gradients costs a Hessian-vector product. The checkpoints, about 2 √K copies of params, are what
    `maml(..., remat=True)` keeps for gradient steps.

    Args:
      loss: scalar loss of (params, batch).
      horizon: T > 0, in units of params / gradient, as the product of a learning rate and a number of steps; it may be
        traced.
      num_steps: K >= 1.

    Returns:
      A function (params, task) -> (query loss at u(T), meta-gradient); the gradient is a pytree like params.

    Example:
      The flow for a time log 2 halves the distance to the minimum of h, and with it the gradient:

      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> _, gradient = ml.a_maml(loss, horizon=jnp.log(2.0), num_steps=4)(jnp.array(0.0), task)
      >>> round(float(gradient), 2)
      -1.25
    """
    loss = _require.scalar(loss)
    _require.positive(horizon=horizon)
    _require.count(at_least=1, num_steps=num_steps)

    @_require.params_and_task
    def meta_gradient(params, task):
        def after_adaptation(params):
            vector, unravel = ravel_pytree(params)  # for one vector the program is half as large

            def at(u, batch):
                return loss(unravel(u.astype(vector.dtype)), batch)

            def derivative(u):
                return -horizon / num_steps * jax.grad(at)(u, task.support)

            u = vector.astype(jnp.promote_types(vector.dtype, jnp.float32))
            u = inner.repeat(lambda u, _: _step(derivative, u), u, None, int(num_steps), remat=True)
            return at(u, task.query)

        return jax.value_and_grad(after_adaptation)(params)

    return meta_gradient


def _step(derivative, u):
    """One step of length 1 from the vector u. The program holds one gradient, which a loop takes six times."""
    weights = jnp.asarray(TSITOURAS, u.dtype)

    def along(row, derivatives):
        return u + jnp.sum(weights[row][:, None] * derivatives, axis=0)

    def stage(derivatives, i):
        return derivatives.at[i].set(derivative(along(i, derivatives))), None

    derivatives, _ = jax.lax.scan(stage, jnp.zeros((6, u.size), u.dtype), jnp.arange(6))
    return along(6, derivatives)
