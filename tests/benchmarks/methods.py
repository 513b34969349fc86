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


def counted(name: str, build: Callable, first_order: bool = False, **options) -> Method:
    """A method that theory.cost knows."""
    return Method(build, lambda k: ml.theory.cost(name, 1, k, **options).gradients, first_order)


METHODS = {
    "fo_maml": counted("fo_maml", lambda loss, k: ml.fo_maml(loss, SGD, k), True),
    "reptile": counted("reptile", lambda loss, k: ml.reptile(loss, SGD, k), True),
    "fo_muml": counted("fo_muml", lambda loss, k: ml.fo_muml(loss, 0.01, k), True),
    **{
        f"fo_b_maml {estimator}": counted(
            "fo_b_maml",
            lambda loss, k, estimator=estimator: ml.fo_b_maml(loss, SGD, k, 1.0, 0.05, estimator),
            True,
            estimator=estimator,
        )
        for estimator in ("forward", "symmetric", "three_point", "fourth_order")
    },
    "hf_maml": counted("hf_maml", lambda loss, k: ml.hf_maml(loss, SGD, k, 0.01), True),
    "fo_b_maml_limit": counted("fo_b_maml_limit", lambda loss, k: ml.fo_b_maml_limit(loss, SGD, k, 1.0)),
    "imaml": counted("imaml", lambda loss, k: ml.imaml(loss, SGD, k, 1.0, CG_STEPS), cg_steps=CG_STEPS),
    "maml": counted("maml", lambda loss, k: ml.maml(loss, SGD, k)),
    "maml remat": counted("maml with remat", lambda loss, k: ml.maml(loss, SGD, k, remat=True)),
    "meta_rkhs_i": counted("meta_rkhs_i", lambda loss, k: ml.meta_rkhs_i(loss, 0.01)),
    "a_maml": counted("a_maml", lambda loss, k: ml.a_maml(loss, 0.01 * k, k)),
}


def mlp(widths: tuple[int, ...], num_tasks: int, num_examples: int) -> tuple:
    """(loss, params, a batch of tasks) on sine curves."""
    params, apply = ml.models.functional(ml.models.MLP(widths, rngs=nnx.Rngs(0)))
    tasks = ml.tasks.Sinusoid(num_examples, num_examples)(jax.random.key(0), num_tasks)
    return ml.losses.mean_squared_error(apply), params, tasks
