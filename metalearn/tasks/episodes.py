"""Few-shot episodes of arrays of one's own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray

from metalearn import _require
from metalearn.task import Batch, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """N-way K-shot tasks: tell apart `num_ways` classes of a data set from `num_support` examples of each.

    A task draws different classes, in random order, and of each class different examples; no example is in both the
    support and the query set. Within a task, labels are 0 ... num_ways - 1. Meta-train on some classes of a data set
    and meta-test on others:

    >>> import jax, metalearn as ml, numpy as np
    >>> images, names = np.zeros((60, 28, 28, 1), np.float32), np.repeat(["ant", "bee", "cat"], 20)
    >>> episodes = ml.tasks.Episodes(images, names, num_ways=2, num_support=5, num_query=15)
    >>> batch = episodes(jax.random.key(0), 4)
    >>> batch.support[0].shape, batch.query[1].shape
    ((4, 10, 28, 28, 1), (4, 30))

    The arrays are copied to the device once, when the object is made. `fit` hands them to its program, which holds no
    data; in a `jax.jit` of your own, give the program what it captures as an argument in the same way.

    Attributes:
      inputs: what a model reads, any pytree of NumPy or JAX arrays with leading axis num_examples.
      labels: the class of each example, shape [num_examples]: whole numbers, not necessarily from 0 on, or strings.
      num_ways: N, classes per task, 2 to the number of classes.
      num_support: K, support examples per class, >= 1; a support set has num_ways * num_support.
      num_query: query examples per class, >= 1; every class has at least num_support + num_query examples.

    Raises:
      ValueError: if a class has too few examples; the message names it.
    """

    inputs: Batch
    labels: Any
    num_ways: int
    num_support: int
    num_query: int
    _members: Int[Array, " num_examples"] = dataclasses.field(init=False, repr=False)
    _first: Int[Array, " num_classes"] = dataclasses.field(init=False, repr=False)
    _sizes: Int[Array, " num_classes"] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        _require.count(at_least=2, num_ways=self.num_ways)
        _require.count(at_least=1, num_support=self.num_support, num_query=self.num_query)
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not (labels.dtype.kind in "iuUS" or _are_strings(labels)):
            raise TypeError(
                "labels must be whole numbers or strings of shape [num_examples], "
                f"but they are {labels.dtype}{list(labels.shape)}."
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.inputs):
            if not isinstance(leaf, np.ndarray | jax.Array) or leaf.dtype.kind not in "fiubVc":
                raise TypeError(
                    f"inputs{jax.tree_util.keystr(path)} must be an array of numbers, but it is {leaf!r:.60}."
                )
        num_examples = _require.same_leading_axis("examples", self.inputs)
        if num_examples != len(labels):
            raise ValueError(f"labels must be as many as the {num_examples} examples of inputs, but are {len(labels)}.")
        classes, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if self.num_ways > len(classes):
            raise ValueError(
                f"num_ways must be at most the {len(classes)} classes of labels, but it is {self.num_ways}."
            )
        wanted = self.num_support + self.num_query
        small = np.flatnonzero(sizes < wanted)
        if small.size:
            raise ValueError(
                f"num_support + num_query must be at most the examples of each class, but they are {wanted} and class "
                f"{classes[small[0]].item()!r} has {sizes[small[0]]}"
                + (f", as {small.size - 1} more have too few. " if small.size > 1 else ". ")
                + "Take fewer, or leave the small classes out of inputs and labels."
            )
        held = {
            # A copy, so that the caller may change theirs; waited for, since JAX copies in the background.
            "inputs": jax.block_until_ready(jax.tree.map(jnp.array, self.inputs)),
            "_members": jnp.asarray(np.argsort(class_of, kind="stable"), jnp.int32),
            "_first": jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32),
            "_sizes": jnp.asarray(sizes, jnp.int32),
        }
        for name, value in held.items():
            object.__setattr__(self, name, value)

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """A batch of tasks: support and query are (inputs, labels).

        Their arrays have leading axes [num_tasks, num_ways * examples per class], class after class; labels are int32.
        """
        _require.random_key(key=key)
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        return jax.vmap(self._draw)(jax.random.split(key, num_tasks))

    def _draw(self, key):
        class_key, example_key = jax.random.split(key)
        classes = _different(class_key, len(self._sizes), self.num_ways)
        keys = jax.random.split(example_key, self.num_ways)
        number = self.num_support + self.num_query
        places = jax.vmap(lambda key, size: _different(key, size, number))(keys, self._sizes[classes])
        rows = self._members[self._first[classes][:, None] + places]

        def batch(rows):
            inputs = jax.tree.map(lambda leaf: leaf[rows.ravel()], self.inputs)
            return inputs, jnp.repeat(jnp.arange(self.num_ways, dtype=jnp.int32), rows.shape[1])

        return Task(support=batch(rows[:, : self.num_support]), query=batch(rows[:, self.num_support :]))


def _different(key: PRNGKeyArray, size: Int[ArrayLike, ""], number: int) -> Int[Array, " {number}"]:
    """`number` different whole numbers below `size`, in random order, each order as likely as any other.

    In time that does not depend on `size`, which may be traced: the next number is the r-th of those not yet taken.
    """
    ranks = jax.random.randint(key, (number,), 0, size - jnp.arange(number))

    def take(taken, rank):
        # Of the k-th smallest number taken, so many smaller ones are free: those of rank r and below are passed over.
        passed = jnp.sum(taken - jnp.arange(number) <= rank, dtype=jnp.int32)
        return jnp.sort(taken.at[-1].set(rank + passed)), rank + passed

    nothing = jnp.full(number, jnp.iinfo(jnp.int32).max, jnp.int32)
    return jax.lax.scan(take, nothing, ranks.astype(jnp.int32))[1]


def _are_strings(labels: np.ndarray) -> bool:
    return labels.dtype == object and all(isinstance(label, str) for label in labels)
