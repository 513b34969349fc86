"""Where the tasks of a run come from: a sampler that is compiled with the outer step, or batches from outside."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from metalearn import _require
from metalearn.learners.meta_learner import MetaLearner
from metalearn.training import fingerprint, loop

_again = jax.make_user_context(None)  # another value of it makes JAX trace everything anew, helpers under jit included

_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
_HOST_DATA = (
    "Data that is drawn with NumPy or read by a loader is given as an iterable of Task batches instead of a sampler, "
    "for instance a generator that yields them, without meta_batch_size and key."
)


class Sampler:
    """Tasks drawn by a pure function (key, number) -> batch, those of step t with jax.random.fold_in(key, t)."""

    mark = None
    """A sampler needs no record of where it is: the step says it."""
    failure = None

    def __init__(self, sampler: Callable[..., Any], meta_batch_size: Any, key: Any):
        """Traces the sampler twice, at its first use.

        Raises:
          ValueError, TypeError: if an argument is not as `fit` describes it, or the two traces differ.
        """
        if inspect.isgeneratorfunction(sampler):
            raise TypeError(f"tasks is a generator function; give what it yields, tasks={sampler.__name__}(...).")
        _require.count(at_least=1, meta_batch_size=meta_batch_size)
        _require.hashable(tasks=sampler)
        _require.random_key(key=key)
        self._key = key
        self._draw = _program(*_traces(sampler, int(meta_batch_size), key))
        self.example = self._draw.example
        self.num_tasks: int = int(meta_batch_size)
        for size in {leaf.shape[:1] for leaf in jax.tree.leaves(self.example)}:
            if size and size[0] != meta_batch_size:
                raise ValueError(
                    f"tasks returned {size[0]} tasks, but meta_batch_size is {meta_batch_size}: "
                    "a sampler (key, number) must return that number of tasks."
                )

    def identity(self) -> dict[str, Any]:
        """What a checkpoint remembers, to know the run again."""
        return {
            "key": np.asarray(jax.random.key_data(self._key)).tolist(),
            "meta_batch_size": self.num_tasks,
            "sampler": fingerprint.of_program(self._draw.traced),
        }

    def place(self, places: tuple[Any, ...] | None) -> None:
        """Puts the arrays that the sampler captured where the program runs, once for all its calls."""
        sharding = None if places is None else NamedSharding(places[0].mesh, PartitionSpec())
        self._constants = [jax.device_put(const, sharding) for const in self._draw.traced.consts]

    def skip(self, num_steps: int) -> None:
        """Nothing is to be done, since tasks depend on the step alone."""

    def advance(
        self, learner: MetaLearner, places: tuple[Any, ...] | None, state: Any, capacity: int, count: int
    ) -> tuple[Any, loop.History, str | None]:
        """(State after `count` steps, their History, the mark that belongs to them)."""
        state, history = loop.sampled_steps(
            learner, self._draw, capacity, places, self._constants, state, self._key, count
        )
        # JAX computes in the background: the wait is here, and with it nearly every Ctrl-C.
        return state, loop.History(*(np.asarray(leaf)[:count] for leaf in history)), None


class _Drawing:
    """A traced sampler as a function (captured arrays, key) -> tasks: data stays outside the compiled program."""

    def __init__(self, traced, structure):
        self.traced, self._structure = traced, structure
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in traced.out_avals]
        self.example = jax.tree.unflatten(structure, shapes)

    def __call__(self, constants, key):
        return jax.tree.unflatten(self._structure, jax.core.eval_jaxpr(self.traced.jaxpr, constants, key))


def _traces(sampler, number, key):
    """(Two traces of a sampler, the shapes of its tasks); JAX keeps them while the sampler is in use."""
    try:
        inspect.signature(sampler).bind(key, number)
    except TypeError:
        raise TypeError("tasks must be a sampler that takes (key, number), or an iterable of Task batches.") from None
    except ValueError:
        pass  # a function without a signature
    compiled = _compiled(sampler, number)
    try:
        first = compiled.trace(key)
        with _again(True):
            second = compiled.trace(key)
    except _NEEDS_VALUES as error:
        raise TypeError(
            f"tasks, the sampler, cannot be compiled, since it needs the value of its key: {_first_line(error)} "
            f"Draw with jax.random alone. {_HOST_DATA}"
        ) from error
    return first.jaxpr, second.jaxpr, jax.tree.structure(first.out_info)


@functools.lru_cache(maxsize=32)
def _compiled(sampler, number):
    def draw(key):
        tasks = sampler(key, number)
        if jax.tree.leaves(tasks):  # that it is no Task at all, the learner says
            _require.arrays("tasks", tasks)
        return tasks

    return jax.jit(draw)


@functools.lru_cache(maxsize=32)
def _program(first, second, structure):
    """The sampler as a program, the same object whenever the traces are, so that nothing is compiled twice."""
    if not fingerprint.same(first, second):
        raise ValueError(
            "tasks, the sampler, gave two different batches for one key: it draws with NumPy, reads a loader or counts "
            f"its calls. Compiled, it would give one batch for ever. Draw with jax.random and the key. {_HOST_DATA}"
        )
    return _Drawing(first, structure)


class TasksEndedError(RuntimeError):
    """Raised by `fit` when an iterator over batches ends before the run does.

    Attributes:
      result: the FitResult up to there; nothing is lost.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> learner = ml.meta_learner(ml.maml(loss, optax.sgd(0.5), num_steps=1), optax.sgd(0.1))
      >>> batches = iter([ml.Task(support=jnp.ones((2, 1)), query=jnp.ones((2, 1)))])
      >>> try:
      ...     ml.fit(learner, jnp.array(0.0), batches, num_steps=3, progress=False)
      ... except ml.TasksEndedError as error:
      ...     print(error.result.state.step)
      1
    """

    result: Any = None


class Batches:
    """Tasks from an iterable of batches; the next one is on its way to the device while a step is computed."""

    def __init__(self, batches: Iterable[Any], meta_batch_size: Any, key: Any, num_steps: int, marked: bool):
        """Reads the first batch.

        Raises:
          ValueError, TypeError: if an argument or the first batch is not as `fit` describes it.
        """
        if isinstance(batches, (str, bytes, dict)) or hasattr(batches, "_fields") or not hasattr(batches, "__iter__"):
            raise TypeError(
                "tasks must be a sampler, a function of (key, number), or an iterable of Task batches, but it is a "
                f"{type(batches).__name__}. One batch that serves every step is given as [batch]."
            )
        for name, value in (("meta_batch_size", meta_batch_size), ("key", key)):
            if value is not None:
                raise ValueError(
                    f"{name} belongs to a sampler, but tasks is an iterable, whose batches are taken as they come. "
                    f"Leave {name} out."
                )
        self.failure: BaseException | None = None
        self.mark = hashlib.sha256().hexdigest() if marked else None
        self._batches = _endless(batches)
        self._sharding = None
        self._unread = num_steps  # the run reads no more, so that what is left of a generator can serve the next
        self._number = 0
        self.example = None
        self._first = self._next()
        self.example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._first)
        self.num_tasks = _require.same_leading_axis("tasks", self._first)
        self._ahead = None

    def identity(self) -> dict[str, Any]:
        """What a checkpoint remembers, to know the run again; the batches are known by their mark."""
        return {"sampler": "none, but an iterable"}

    def place(self, places: tuple[Any, ...] | None) -> None:
        """Says where batches go."""
        self._sharding = None if places is None else places[0]

    def skip(self, num_steps: int) -> None:
        """Goes past the batches that were used before the run was stopped."""
        for _ in range(num_steps):
            self.mark = self._marked(self.mark, self._take())

    def advance(
        self, learner: MetaLearner, places: tuple[Any, ...] | None, state: Any, capacity: int, count: int
    ) -> tuple[Any, loop.History, str | None]:
        """(State after `count` steps, their History, the mark that belongs to them).

        The steps are fewer if the batches end or one of them fails; `failure` then says why.
        """
        history, mark, taken, before = loop.blank(capacity), self.mark, 0, None
        try:
            while taken < count:
                host, device = self._ahead or self._fetch()
                self._ahead = None
                state, history = loop.one_step(learner, places, state, history, taken, device)
                mark, taken = self._marked(mark, host), taken + 1
                if self._unread:
                    self._ahead = self._fetch()  # while the device computes, but it must not be two steps behind
                jax.block_until_ready(before)
                before = history
        except _SourceError as error:
            self.failure = error.__cause__
        return state, loop.History(*(np.asarray(leaf)[:taken] for leaf in history)), mark

    def _fetch(self):
        """(The next batch, the same on the device.)"""
        try:
            batch = self._take()
        except Exception as error:
            raise _SourceError from error
        return batch, jax.device_put(batch, self._sharding)

    def _take(self):
        batch, self._first = (self._next() if self._first is None else self._first), None
        self._unread -= 1
        return batch

    def _next(self):
        """The next batch as NumPy arrays, after a look at whether it is like the first."""
        try:
            batch = next(self._batches)
        except StopIteration:
            raise TasksEndedError(
                f"tasks ended after {self._number} batches, one for each step. A list or a DataLoader is read "
                "again from its beginning, but an iterator or a generator ends for good. "
                "What was reached is in this error's `result`."
            ) from None
        self._number += 1
        name = f"Batch {self._number} of tasks"
        if batch is None or type(batch) in (tuple, list, dict) or jax.tree_util.all_leaves([batch]):
            raise TypeError(
                f"tasks must yield metalearn.Task(support, query) batches, but batch {self._number} is a "
                f"{type(batch).__name__}."
            )
        batch = jax.tree_util.tree_map_with_path(lambda path, leaf: _array(f"{name}{_text(path)}", leaf), batch)
        if self.example is None:
            return batch
        structure: Any = jax.tree.structure(batch)
        if structure != jax.tree.structure(self.example):
            raise ValueError(f"{name} is built otherwise than the first one: {_short(batch)}, {_short(self.example)}.")
        for (path, leaf), first in zip(
            jax.tree_util.tree_leaves_with_path(batch), jax.tree.leaves(self.example), strict=True
        ):
            if (leaf.shape, leaf.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"{name}{_text(path)} is {leaf.dtype}{list(leaf.shape)}, but that of the first batch is "
                    f"{first.dtype}{list(first.shape)}. All batches must be alike, since the step is compiled once; "
                    "a DataLoader leaves out a smaller last batch with drop_last=True."
                )
        return batch

    def _marked(self, mark, batch):
        """A checksum of all batches so far, the last one included."""
        return mark and hashlib.sha256((mark + fingerprint.of_arrays(batch)).encode()).hexdigest()


class _SourceError(Exception):
    """Its cause comes from the iterable and not from the step."""


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    """Every batch, again and again; an iterator is over when it is over."""
    while True:
        iterator, empty = iter(batches), True
        for batch in iterator:
            empty = False
            yield batch
        if empty or iterator is batches:
            return


def _array(name, leaf):
    """A copy, since a loader may fill its buffers anew while a step is computed, in a dtype that JAX has."""
    if isinstance(leaf, jax.Array):
        return leaf
    try:
        array = np.array(leaf)
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise TypeError(f"its elements are of type {array.dtype}.")
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    except Exception as error:
        raise TypeError(
            f"{name}, a {type(leaf).__name__}, cannot be made an array of numbers: {_first_line(error)}"
        ) from error
    if array.size and array.dtype.kind in "iu" and dtype != array.dtype:
        low, high = array.min(), array.max()
        if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
            raise ValueError(f"{name} holds whole numbers from {low} to {high}, which do not fit into {dtype}.")
    return array.astype(dtype, copy=False)


def _text(path):
    return jax.tree_util.keystr(path)


def _short(tree):
    return str(jax.tree.structure(tree)).removeprefix("PyTreeDef")[:100]


def _first_line(error):
    return str(error).strip().partition("\n")[0]
