"""Many devices do the work of one, and come to the same result. Here the devices are simulated (see conftest)."""

import functools
import importlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import metalearn as ml
from metalearn.training import loop
from metalearn.training.sources import Sampler


class Transformer(nnx.Module):
    """One block on a sequence of length 4, small; its matrices are what gets split."""

    def __init__(self, rngs):
        self.embed = nnx.Linear(1, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.widen, self.narrow = nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 8, rngs=rngs)
        self.readout = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x[..., None])
        x = x + self.attention(x)
        return self.readout(x + self.narrow(nnx.gelu(self.widen(x)))).mean(axis=-2)


@functools.cache
def network():
    """(params, apply)."""
    return ml.models.functional(Transformer(nnx.Rngs(0)))


def loss(params, batch):
    return ml.losses.mean_squared_error(network()[1])(params, batch)


learner = ml.meta_learner(ml.maml(loss, optax.sgd(0.01), 2), optax.sgd(0.003, momentum=0.9))


def draw(key, num_tasks):
    """Sequences of length 4, to be mapped to a sine of their mean, with a random phase."""
    of_phase, of_x = jax.random.split(key)
    phase, x = jax.random.uniform(of_phase, (num_tasks, 1, 1)), jax.random.uniform(of_x, (num_tasks, 10, 4))
    y = jnp.sin(x.mean(-1, keepdims=True) - phase)
    return ml.Task((x[:, :5], y[:, :5]), (x[:, 5:], y[:, 5:]))


def fit(num_steps=20, params=None, meta_batch_size=16, **options):
    params = network()[0] if params is None else params
    return ml.fit(learner, params, draw, num_steps, meta_batch_size, jax.random.key(0), progress=False, **options)


@pytest.fixture(scope="module")
def on_one_device():
    return fit()


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_tasks_shared_by_eight_devices(on_one_device):
    result = fit(mesh=jax.make_mesh((8,), ("tasks",)))
    assert_same(result.params, on_one_device.params)
    assert_same(result.history, on_one_device.history)
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(result.state))


@pytest.mark.slow
def test_each_device_does_its_part_of_the_work():
    """Its temporary memory, by the compiler's own figures, is that of two tasks and not of sixteen."""
    module = importlib.import_module("metalearn.training.fit")

    def temporary(num_tasks, mesh=None):
        state, places = learner.init(network()[0]), None
        if mesh is not None:
            state = module._spread(mesh, state)
            places = module._places(mesh, state, num_tasks)
        source = Sampler(draw, num_tasks, jax.random.key(0))
        source.place(places)
        program = loop.sampled_steps.lower(
            learner, source._draw, 1, places, source._constants, state, jax.random.key(0), 1
        )
        return program.compile().memory_analysis().temp_size_in_bytes

    shared = temporary(16, jax.make_mesh((8,), ("tasks",)))
    assert shared < temporary(16) / 3
    assert shared < 2 * temporary(2)


@pytest.mark.slow
def test_parameters_split_over_devices_stay_split(on_one_device):
    """Four groups of two devices: tasks over the groups, the last axis of every matrix over a group."""
    mesh = jax.make_mesh((4, 2), ("tasks", "model"))

    def split(leaf):
        even = leaf.ndim > 1 and leaf.shape[-1] % 2 == 0
        spec = PartitionSpec(*[None] * (leaf.ndim - 1), "model") if even else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    params = jax.tree.map(split, network()[0])
    result = fit(params=params, mesh=mesh)
    assert_same(result.params, on_one_device.params)

    def on_one(tree):
        return sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(tree))

    assert on_one(result.params) == on_one(params) < 0.7 * on_one(network()[0])
    assert on_one(result.state.opt_state) < 0.7 * on_one(learner.init(network()[0]).opt_state)  # momentum as well


@pytest.mark.slow
def test_a_run_moves_from_one_device_to_eight(on_one_device, tmp_path):
    fit(11, checkpoint_dir=tmp_path)
    result = fit(20, checkpoint_dir=tmp_path, mesh=jax.make_mesh((8,), ("tasks",)))
    assert_same(result.params, on_one_device.params)
    assert len(jax.tree.leaves(result.params)[0].sharding.device_set) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "meta_batch_size", "error", "message"),
    [
        (lambda: 8, 16, TypeError, "mesh must be a mesh of jax.make_mesh, but it is a int"),
        (lambda: jax.make_mesh((8,), ("data",)), 16, ValueError, r"axis named 'tasks'.*\['data'\]"),
        (lambda: jax.make_mesh((8,), ("tasks",)), 12, ValueError, "a multiple of the 8 devices.*it is 12"),
    ],
)
def test_bad_meshes(mesh, meta_batch_size, error, message):
    with pytest.raises(error, match=message):
        fit(mesh=mesh(), meta_batch_size=meta_batch_size)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_processes(on_one_device, tmp_path):
    """Two real processes, joined by jax.distributed over this machine's loopback, with a checkpoint on the way."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("two_processes.py")
    pair = [
        subprocess.Popen(
            [sys.executable, script, str(index), str(port), tmp_path / "run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs[0][1][-2000:]
    found = [[jnp.array(leaf) for leaf in json.loads(out.splitlines()[-1])] for out, _ in outputs]
    expected = [leaf.ravel() for leaf in jax.tree.leaves(on_one_device.params)]
    for params in found:
        assert_same(params, expected)
