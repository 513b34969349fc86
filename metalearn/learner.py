"""The outer loop's step: map a meta-gradient over a batch of tasks, average, apply the outer rule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalearn import _require
from metalearn.task import MetaGradient, Params, Task


class MetaState(NamedTuple):
    """What meta-training carries from step to step.

    Attributes:
      params: the start from which tasks adapt.
      opt_state: what the outer transformation remembers.
      step: how many outer steps were taken, an int32 scalar.
    """

    params: Params
    opt_state: Any
    step: jax.Array


class MetaInfo(NamedTuple):
    """What one outer step reports.

    Attributes:
      query_loss: the loss after adaptation, shape [num_tasks].
      grad_norm: length of the averaged meta-gradient before the outer rule, a scalar.
      finite: which tasks gave a finite loss and gradient, shape [num_tasks]; the others were left out.
    """

    query_loss: jax.Array
    grad_norm: jax.Array
    finite: jax.Array


class MetaLearner(NamedTuple):
    """A pair of pure functions, in the manner of optax.

    Attributes:
      init: params -> MetaState.
      step: (MetaState, batch of tasks) -> (MetaState, MetaInfo). Wrap it in jax.jit to call it by hand.
    """

    init: Callable[[Params], MetaState]
    step: Callable[[MetaState, Task], tuple[MetaState, MetaInfo]]


def meta_learner(meta_gradient: MetaGradient, outer: optax.GradientTransformation) -> MetaLearner:
    """Meta-training with the mean meta-gradient of a batch of tasks.

    A task whose loss or gradient is not finite is left out of the mean and marked in `MetaInfo.finite`. When no task
    is left, the step changes nothing but the count.

    Args:
      meta_gradient: (params, task) -> (query loss, gradient), for instance maml(loss, optax.sgd(0.01), 5).
      outer: any optax transformation, for instance optax.adam(1e-3) or outer.normalized_sgd(0.01).

    Returns:
      A MetaLearner.

    Raises:
      TypeError: if an argument is of the wrong kind; `init` and `step` raise for params and tasks they cannot use.
    """
    _require.function(meta_gradient=meta_gradient)
    _require.transformation(outer=outer)

    def init(params):
        _require.float_params(params)
        return MetaState(params, outer.init(params), jnp.zeros((), jnp.int32))

    def step(state, tasks):
        _require.task_batch(tasks)
        query_loss, gradients = jax.vmap(meta_gradient, in_axes=(None, 0))(state.params, tasks)
        finite = jax.vmap(_all_finite)((query_loss, gradients))
        gradient = jax.tree.map(lambda leaf: _mean_where(finite, leaf), gradients)

        updates, opt_state = outer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite.any(), new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        info = MetaInfo(query_loss, optax.tree.norm(gradient), finite)
        return MetaState(params, opt_state, state.step + 1), info

    return MetaLearner(init, step)


def _all_finite(tree):
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _mean_where(keep, leaf):
    """Mean over the leading axis of the entries to keep; zero if there are none."""
    mask = keep.reshape(keep.shape + (1,) * (leaf.ndim - 1))
    total = jnp.sum(jnp.where(mask, leaf, 0), axis=0)
    return (total / jnp.maximum(keep.sum(), 1)).astype(leaf.dtype)
