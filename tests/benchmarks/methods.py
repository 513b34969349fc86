"""Every meta-gradient with K inner steps, and how many gradients it needs on paper."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from flax import nnx

import metalearn as ml
from metalearn.task import Loss, MetaGradient

CG_STEPS = 5
SGD = optax.sgd(0.01)


class Method(NamedTuple):
    """A meta-gradient of the library.

    Attributes:
      build: (loss, K) -> the meta-gradient.
      count: K -> its gradients on paper: a Hessian-vector product counts two, a loss a third.
      first_order: whether it takes gradients only.
    """

    build: Callable[[Loss, int], MetaGradient]
    count: Callable[[int], float]
    first_order: bool = False


def fo_b_maml(estimator: str, loops: int) -> Method:
    """`loops` counts gradients a step: one of a loop that does not lean, two of one that does."""
    return Method(lambda loss, k: ml.fo_b_maml(loss, SGD, k, 1.0, 0.05, estimator), lambda k: loops * k + 1 / 3, True)


METHODS = {
    "fo_maml": Method(lambda loss, k: ml.fo_maml(loss, SGD, k), lambda k: k + 1, True),
    "reptile": Method(lambda loss, k: ml.reptile(loss, SGD, k), lambda k: k + 1 / 3, True),
    "fo_muml": Method(lambda loss, k: ml.fo_muml(loss, 0.01, k), lambda k: k + 4 / 3, True),
    "fo_b_maml forward": fo_b_maml("forward", 3),
    "fo_b_maml symmetric": fo_b_maml("symmetric", 4),
    "fo_b_maml three_point": fo_b_maml("three_point", 5),
    "fo_b_maml fourth_order": fo_b_maml("fourth_order", 8),
    "hf_maml": Method(lambda loss, k: ml.hf_maml(loss, SGD, k, 0.01), lambda k: 3 * k + 1, True),
    "fo_b_maml_limit": Method(lambda loss, k: ml.fo_b_maml_limit(loss, SGD, k, 1.0), lambda k: 6 * k + 1 / 3),
    "imaml": Method(lambda loss, k: ml.imaml(loss, SGD, k, 1.0, CG_STEPS), lambda k: k + 1 + 2 * CG_STEPS),
    "maml": Method(lambda loss, k: ml.maml(loss, SGD, k), lambda k: 3 * k + 1),
    "maml remat": Method(lambda loss, k: ml.maml(loss, SGD, k, remat=True), lambda k: 5 * k + 1),
    "meta_rkhs_i": Method(lambda loss, k: ml.meta_rkhs_i(loss, 0.01), lambda k: 6),
    "a_maml": Method(lambda loss, k: ml.a_maml(loss, 0.01 * k, k), lambda k: 23 * k * 5 / 3),
}


def mlp(widths: tuple[int, ...], num_tasks: int, num_examples: int) -> tuple:
    """(loss, params, a batch of tasks) on sine curves."""
    params, apply = ml.models.functional(ml.models.MLP(widths, rngs=nnx.Rngs(0)))
    tasks = ml.tasks.Sinusoid(num_examples, num_examples)(jax.random.key(0), num_tasks)
    return ml.losses.mean_squared_error(apply), params, tasks
