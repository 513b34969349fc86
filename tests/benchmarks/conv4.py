"""An outer step of MAML on images with Conv4-32: 4 tasks, 5 ways, 1 shot, 15 queries a class, 28x28, 5 inner steps."""

from unittest import mock

import jax
import numpy as np
import optax
import pytorch
from flax import nnx
from measure import Row, in_turn, ratio, seconds

import metalearn as ml
from metalearn.models import networks

INNER_STEPS, INNER_RATE = 5, 0.1


def problem() -> tuple:
    """(loss, params, a batch of tasks): noise for pictures, as the time does not depend on them."""
    params, apply = networks.functional(networks.ConvNet(rngs=nnx.Rngs(0)))
    random = np.random.default_rng(0)

    def batch(num_examples):
        images = random.uniform(size=(4, num_examples, 28, 28, 1)).astype(np.float32)
        return images, random.integers(0, 5, (4, num_examples)).astype(np.int32)

    return ml.losses.cross_entropy(apply), params, jax.device_put(ml.Task(batch(5), batch(75)))


def rows(rounds: int) -> list[Row]:
    """The library's network against XLA's own convolution and pooling, and against PyTorch where it is installed."""
    loss, params, tasks = problem()
    ours = outer_step(loss, params, tasks, tasks_at_once=1)
    with mock.patch.multiple(networks, patch_convolution=jax.lax.conv_general_dilated, _max_pool=xla_max_pool):
        xla_loss, *_ = problem()
        xla = outer_step(xla_loss, params, tasks, tasks_at_once=None)  # side by side, where it is faster
        xla()  # compiles while the patch is there
    np.testing.assert_allclose(ours()[1].query_loss, xla()[1].query_loss, rtol=1e-2)

    rivals = {"XLA's own convolution and pooling": xla}
    if pytorch.installed():
        rivals |= pytorch.conv4_meta_gradients(params, tasks, INNER_STEPS, INNER_RATE)
    times = in_turn({"ours": ours, **rivals}, rounds)
    result = []
    for number, name in enumerate(rivals):
        what, figure = ("", "") if number else ("Conv4-32, outer step of `maml`", seconds(times["ours"]))
        bar = ("at least", 1.5 if number else 8)
        result.append(Row(what, figure, f"{name}: {seconds(times[name])}", ratio(times[name], times["ours"]), bar))
    return result


def outer_step(loss, params, tasks, tasks_at_once):
    """A function of nothing that takes one outer step."""
    meta_gradient = ml.maml(loss, optax.sgd(INNER_RATE), INNER_STEPS)
    learner = ml.meta_learner(meta_gradient, optax.adam(1e-3), tasks_at_once=tasks_at_once)
    step, state = jax.jit(learner.step), learner.init(params)
    return lambda: step(state, tasks)


def xla_max_pool(x):
    return nnx.max_pool(x, (2, 2), strides=(2, 2))
