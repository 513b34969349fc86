"""The protocol that every meta-gradient keeps, as a test: for those of this library, and for a method of your own."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from metalearn.task import Loss, MetaGradient, Params, Task


def check_meta_gradient(factory: Callable[[Loss], MetaGradient]) -> None:
    """Passes if `factory(loss)` is a drop-in for `jax.value_and_grad` of one task's objective.

    On a small regression by a network with one hidden layer it checks that

    - the value is a scalar, and the gradient has the structure, shapes and dtypes of params, is finite and not zero;
    - any pytree of params gives what one flat vector gives: a dictionary, nested tuples, an nnx State;
    - `jax.vmap` over tasks gives what a loop over them gives;
    - params may be float32, float64, bfloat16 or a mixture of dtypes;
    - one compiled program serves new params and new tasks;
    - the value is a loss on the query set.

    It takes a few seconds, most of them compilation. Whether the gradient is *right* is a question for an oracle, such
    as `theory.unrolled` or `theory.proximal`.

    Args:
      factory: loss -> meta-gradient, for instance `lambda loss: maml(loss, optax.sgd(0.1), num_steps=5)`.

    Raises:
      AssertionError: at the first promise that is not kept; the message says which, and what came instead.

    Example:
      >>> import metalearn as ml, optax
      >>> ml.testing.check_meta_gradient(lambda loss: ml.fo_maml(loss, optax.sgd(0.1), num_steps=2))
    """
    params, tasks = _params(jnp.float32), [_task(seed) for seed in range(3)]
    meta_gradient = jax.jit(factory(_loss))
    value, gradient = meta_gradient(params, tasks[0])
    _check_like(value, gradient, params)
    _check_containers(factory, params, tasks[0], gradient)
    _check_vmap(meta_gradient, params, tasks)
    _check_dtypes(factory, tasks[0], gradient)
    _check_one_program(factory, tasks)
    _check_query(factory, params, tasks[0])


def _loss(params, batch):
    """Half the mean squared error of a network with three tanh units, for params {"hidden": [2, 3], "output": [3]}."""
    inputs, targets = batch
    return jnp.mean((jnp.tanh(inputs @ params["hidden"]) @ params["output"] - targets) ** 2) / 2


def _params(hidden: Any, output: Any = None) -> Params:
    """Params of the given dtypes, the same numbers in each."""
    hidden_key, output_key = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(hidden_key, (2, 3), jnp.float32).astype(hidden),
        "output": jax.random.normal(output_key, (3,), jnp.float32).astype(output or hidden),
    }


def _task(seed: int) -> Task:
    keys = jax.random.split(jax.random.key(1 + seed), 4)
    draw = [
        (jax.random.normal(keys[i], (6, 2), jnp.float32), 2 * jax.random.normal(keys[i + 1], (6,), jnp.float32))
        for i in (0, 2)
    ]
    return Task(*draw)


def _flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0]).astype(np.float64)


def _check_like(value: Any, gradient: Any, params: Params) -> None:
    assert jnp.shape(value) == (), f"The value must be a scalar, but it has shape {list(jnp.shape(value))}."
    found, expected = str(jax.tree.structure(gradient)), str(jax.tree.structure(params))
    assert found == expected, f"The gradient must be a pytree like params, {expected}, but it is {found}."
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        part = dict(jax.tree_util.tree_leaves_with_path(gradient))[path]
        assert (part.shape, part.dtype) == (leaf.shape, leaf.dtype), (
            f"gradient{name} must be {leaf.dtype}{list(leaf.shape)} as in params, "
            f"but it is {part.dtype}{list(part.shape)}."
        )
    assert np.isfinite(_flat(gradient)).all(), "The gradient is not finite."
    assert np.linalg.norm(_flat(gradient)) > 1e-4, "The gradient is zero, though the loss is not stationary."


def _check_containers(factory, params, task, gradient):
    for kind, container, view in _containers(params):
        value, found = jax.jit(factory(lambda p, batch, view=view: _loss(view(p), batch)))(container, task)
        _check_like(value, found, container)
        _check_close(view(found), gradient, f"Params in {kind} give another gradient than params in a dictionary")


def _containers(params: Params) -> Iterator[tuple[str, Any, Callable[[Any], Params]]]:
    """(name, the same numbers in it, how to see it as the dictionary), for several kinds of containers."""
    from flax import nnx

    vector, unravel = ravel_pytree(params)
    yield "one flat vector", vector, unravel
    yield "nested tuples", ((params["hidden"],), params["output"]), lambda p: {"hidden": p[0][0], "output": p[1]}
    state = nnx.State({name: nnx.Param(leaf) for name, leaf in params.items()})
    yield "an nnx State", state, lambda p: {name: p[name][...] for name in ("hidden", "output")}


def _check_vmap(meta_gradient, params, tasks):
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    side_by_side = jax.vmap(meta_gradient, in_axes=(None, 0))(params, batch)
    loop = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(meta_gradient(params, task) for task in tasks))
    _check_close(side_by_side, loop, "vmap over tasks gives another result than a loop over them")


def _check_dtypes(factory, task, gradient):
    """Data stay float32, as they come; each leaf of the gradient has the dtype of its leaf of params."""
    expected = _flat(gradient)
    for hidden, output in ((jnp.float64,) * 2, (jnp.bfloat16,) * 2, (jnp.float32, jnp.bfloat16)):
        with jax.enable_x64(hidden == jnp.float64):
            params = _params(hidden, output)
            value, found = jax.jit(factory(_loss))(params, task)
            _check_like(value, found, params)
            found = _flat(found)
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        # bfloat16 keeps 8 bits, of which a finite difference loses several: only the direction must survive.
        assert cosine > (0.9999 if hidden == jnp.float64 else 0.9), (
            f"With params of {hidden.__name__} and {output.__name__} the gradient points elsewhere than with float32: "
            f"the cosine of the angle between them is {cosine:.4f}."
        )


def _check_one_program(factory, tasks):
    traces = []

    def counted_loss(params, batch):
        traces.append(batch)
        return _loss(params, batch)

    meta_gradient = jax.jit(factory(counted_loss))
    params = _params(jnp.float32)
    first = 0
    for task in tasks:
        _, gradient = meta_gradient(params, task)
        first = first or len(traces)
        params = jax.tree.map(lambda leaf, part: leaf - 0.1 * part, params, gradient)
    assert len(traces) == first, (
        "New values of params or of a task compile a new program. Do not read numbers out of arrays while tracing."
    )


def _check_query(factory, params, task):
    """Where the loss of the query set is the constant 0, so is the value."""

    def flagged_loss(params, batch):
        return _loss(params, batch[:2]) * batch[2].mean()

    flags = jnp.ones(len(task.support[0]))
    value, _ = jax.jit(factory(flagged_loss))(params, Task((*task.support, flags), (*task.query, 0 * flags)))
    assert value == 0, f"The value must be a loss on the query set, which is 0 here, but it is {value}."


def _check_close(found: Any, expected: Any, complaint: str) -> None:
    found, expected = _flat(found), _flat(expected)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-3, f"{complaint}: they differ by {error:.1e}, relative to the norm."
