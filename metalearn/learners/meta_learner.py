"""The outer step: map a meta-gradient over a batch of tasks, average, apply the outer optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from metalearn import _norm, _require
from metalearn.adaptation.inner import initialized, update
from metalearn.learners.task_weights import TaskWeights
from metalearn.task import MetaGradient, Params, Scalar, Task


class MetaState(NamedTuple):
    """What meta-training carries from step to step.

    Attributes:
      params: the meta-parameters θ, the initialization from which tasks adapt.
      opt_state: the state of the outer optimizer.
      step: how many outer steps were taken, an int32 scalar.

    Example: see `meta_learner`.
    """

    params: Params
    opt_state: Any
    step: Int[Array, ""]


class MetaInfo(NamedTuple):
    """What one outer step reports.

    Attributes:
      query_loss: the loss after adaptation, shape [num_tasks].
      grad_norm: the norm of the averaged meta-gradient before the outer optimizer, a scalar. It is right at any scale:
        squares that do not fit into the floating-point type do no harm.
      finite: which tasks gave a finite loss and gradient, and a weight that is finite and not negative, shape
        [num_tasks]; the others were left out.

    Example: see `meta_learner`.
    """

    query_loss: Float[Array, " num_tasks"]
    grad_norm: Scalar
    finite: Bool[Array, " num_tasks"]


class MetaLearner(NamedTuple):
    """A pair of pure functions, in the manner of optax.

    Attributes:
      init: params -> MetaState.
      step: (MetaState, batch of tasks) -> (MetaState, MetaInfo). Wrap it in jax.jit to call it by hand.

    Example: see `meta_learner`.
    """

    init: Callable[[Params], MetaState]
    step: Callable[[MetaState, Task], tuple[MetaState, MetaInfo]]


def meta_learner(
    meta_gradient: MetaGradient,
    outer: optax.GradientTransformation,
    task_weights: TaskWeights | None = None,
    tasks_at_once: int | None = None,
) -> MetaLearner:
    """Meta-training with the mean meta-gradient of a batch of tasks.

    A task whose loss or gradient is not finite is left out of the mean and marked in `MetaInfo.finite`. When no task
    is left, or every weight is 0, the step changes nothing but the count.

    Args:
      meta_gradient: (params, task) -> (query loss, gradient), for instance maml(loss, optax.sgd(0.01), 5). The loss
        is a scalar, and the gradient has the structure and the shapes of params.
      outer: the outer optimizer, any optax transformation, for instance optax.adam(1e-3) or outer.normalized_sgd(0.01).
      task_weights: (query losses [num_tasks], gradients with a leading task axis) -> weights [num_tasks], not negative,
        of any sum; for instance task_weights.inverse_loss(0.1). A failed task is shown to it as a loss and a gradient
        of 0. By default all tasks count the same.
      tasks_at_once: how many tasks of a batch adapt side by side, >= 1; the others wait, and need no memory but for
        their gradients. By default all do, which is fastest for small networks. On a CPU a convolutional network is
        faster with 1, unless it is written with models.patch_convolution. Several devices share the tasks anyway:
        leave it out there.

    Returns:
      A MetaLearner.

    Raises:
      TypeError, ValueError: at the first step, if `meta_gradient` does not return a pair (scalar loss, gradient like
        params), or `task_weights` does not return one number for each task.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> tasks = ml.Task(support=jnp.array([[1.0], [3.0]]), query=jnp.array([[1.0], [3.0]]))  # two of them
      >>> learner = ml.meta_learner(ml.maml(loss, optax.sgd(0.5), num_steps=1), optax.sgd(0.1))
      >>> state, info = learner.step(learner.init(jnp.array(0.0)), tasks)
      >>> round(float(state.params), 2), info.query_loss.tolist()
      (0.05, [0.125, 1.125])
    """
    _require.function(meta_gradient=meta_gradient)
    _require.transformation(outer=outer)
    if task_weights is not None:
        _require.function(task_weights=task_weights)
    if tasks_at_once is not None:
        _require.count(at_least=1, tasks_at_once=tasks_at_once)

    def init(params):
        _require.float_params(params)
        return MetaState(params, initialized(params, outer=outer), jnp.zeros((), jnp.int32))

    def step(state, tasks):
        _require.task_batch(tasks)

        def of_one(task):
            return _require.value_and_gradient(meta_gradient(state.params, task), state.params)

        if tasks_at_once is None:
            query_loss, gradients = jax.vmap(of_one)(tasks)
        else:
            query_loss, gradients = jax.lax.map(of_one, tasks, batch_size=tasks_at_once)
        gradient, finite, any_left = _mean(task_weights, query_loss, gradients)

        value = jnp.mean(query_loss, where=finite)
        updates, opt_state = update(outer, gradient, state.opt_state, state.params, value, no_line_search, "outer")
        params = optax.apply_updates(state.params, updates)
        params, opt_state = optax.tree.where(any_left, (params, opt_state), (state.params, state.opt_state))
        info = MetaInfo(query_loss, _norm.norm(gradient), finite)
        return MetaState(params, opt_state, state.step + 1), info

    return MetaLearner(init, step)


def no_line_search(params: Params) -> NoReturn:
    """In the place of the objective that a line search of the outer optimizer would evaluate: raises TypeError."""
    raise TypeError(
        "outer has a line search, which needs the meta-objective at other params than those of the step. Take it out, "
        "as in optax.lbfgs(1e-2, linesearch=None)."
    )


def _mean(task_weights, query_loss, gradients):
    """(mean gradient of the tasks that are left, which tasks are finite, whether any is left)."""

    def of_those_left():
        finite = jax.vmap(all_finite)((query_loss, gradients))
        weights = finite.astype(float)
        if task_weights is not None:
            weights, finite = _weigh(task_weights, query_loss, gradients, finite)
        return jax.tree.map(lambda leaf: mean_where(weights, leaf), gradients), finite, weights.any()

    if task_weights is not None:
        return of_those_left()
    # To look at every number of every task takes as long as the mean itself, which is not finite if one of them is not.
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)
    all_left = mean, jnp.ones(query_loss.shape, bool), jnp.array(True)
    return jax.lax.cond(all_finite((query_loss, mean)), lambda: all_left, of_those_left)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number in the tree is finite, a boolean scalar."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _weigh(task_weights, query_loss, gradients, finite):
    """The weights, 0 for tasks that are left out; and which tasks are not."""
    seen = jax.tree.map(lambda leaf: jnp.where(_per_task(finite, leaf), leaf, 0), (query_loss, gradients))
    weights = jnp.asarray(task_weights(*seen), float)
    if weights.shape != finite.shape:
        raise ValueError(
            f"task_weights must return one number for each task, shape {list(finite.shape)}, "
            f"but it returned shape {list(weights.shape)}."
        )
    finite &= jnp.isfinite(weights) & (weights >= 0)
    return jnp.where(finite, weights, 0), finite


def mean_where(weights: Shaped[Array, " n"], leaf: Shaped[Array, "n ..."]) -> Shaped[Array, "..."]:
    """Mean over the leading axis, of the entries whose weight is not 0; zero if there are none."""
    column = _per_task(weights, leaf)
    total = jnp.sum(jnp.where(column > 0, column * leaf, 0), axis=0)  # an entry to leave out may be NaN
    return (total / jnp.where(weights.any(), weights.sum(), 1)).astype(leaf.dtype)


def _per_task(values, leaf):
    return values.reshape(values.shape + (1,) * (leaf.ndim - 1))
