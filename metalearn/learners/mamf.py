"""MAMF: fine-tune on one random sub-task after another, with no outer loop.  (Wang et al. 2022, arXiv 2203.04904)

::

    𝒯_1, ..., 𝒯_J   uniform random n-subsets of the N labels,   J = round(log d / log(1 - n/N))
    θ_j             = fine-tune(θ_{j-1} on 𝒯_j),                each with a new state of the optimizer

A label is missed by one subset with probability 1 - n/N, hence by all J with a probability of about d. Classical
fine-tuning is one task of all N labels. Seen from here, MAMF is Reptile with one task a step and an outer learning rate
of 1.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, Shaped

from metalearn import _require
from metalearn._cost import costs
from metalearn.adaptation.inner import descend
from metalearn.losses import Apply
from metalearn.task import Loss, Params, Task


@costs("2*K", copies="1", outputs="3", where="a gradient on support and query set joined counts as two, one for each")
def mamf(loss: Loss, inner: optax.GradientTransformation, num_steps: int) -> Callable[[Params, Task], Params]:
    """Fine-tuning on a sequence of tasks, each from where the last one ended.

    There is no query set: a step descends the loss on all examples of its task, support and query joined. The paper's
    epochs of minibatches are full-batch steps here, which is the same where a task fits into one minibatch.

    Args:
      loss: scalar loss of (params, batch).
      inner: the optimizer; the paper takes Adam. What it remembers is dropped after each task.
      num_steps: K >= 1, steps on each task.

    Returns:
      A function (params, tasks) -> params. Tasks is a batch of tasks, trained on in its order; with one task of all
      labels this is classical fine-tuning. At meta-test adapt to every task from the returned params, as
      `evaluate.meta_test` does, and not from where the last one ended.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> tasks = ml.Task(support=jnp.array([[1.0], [3.0]]), query=jnp.array([[1.0], [3.0]]))
      >>> print(ml.mamf(loss, optax.sgd(0.5), num_steps=1)(jnp.array(0.0), tasks))  # 0, then 0.5, then 1.75
      1.75
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)

    def fine_tune(params, tasks):
        _require.float_params(params)
        _require.task_batch(tasks)
        support, query = (
            [leaf.shape[2:] for leaf in jax.tree.leaves(half)] + [jax.tree.structure(half)] for half in tasks
        )
        if support != query:
            raise ValueError(
                "tasks must have support and query sets of one structure, and examples of one shape, so that they can "
                f"be joined, but they have {support} and {query}."
            )

        def on_one_task(params, task):
            batch = jax.tree.map(lambda *halves: jnp.concatenate(halves), *task)
            return descend(lambda phi: loss(phi, batch), inner, num_steps, params), None

        end, _ = jax.lax.scan(on_one_task, params, tasks)
        return end

    return fine_tune


def tasks_to_cover(num_ways: int, num_labels: int, miss_probability: float = 1e-3) -> int:
    """J: how many uniform n-subsets of N labels leave a given label out with probability about d.

    The chance is (1 - n/N)^J. The paper, which calls it K, rounds J to the nearest number; where that is down, the
    chance is above d, by at most a factor 1 / √(1 - n/N). That *some* label is left out is up to N times as likely.

    Args:
      num_ways: n, from 1 to N.
      num_labels: the number N of all labels.
      miss_probability: d, above 0 and below 1; the paper's is 0.001.

    Example:
      >>> from metalearn.learners.mamf import tasks_to_cover
      >>> tasks_to_cover(num_ways=5, num_labels=100)
      135
    """
    _require.count(at_least=1, num_ways=num_ways, num_labels=num_labels)
    _at_most("num_ways", num_ways, "labels", num_labels)
    _require.known(miss_probability=miss_probability)
    _require.positive(miss_probability=miss_probability)
    _require.fraction(miss_probability=miss_probability)
    if num_ways == num_labels:
        return 1
    return max(1, round(math.log(miss_probability) / math.log1p(-num_ways / num_labels)))


def uniform_tasks(
    examples: Shaped[Array | np.ndarray, "num_labels num_examples ..."], num_ways: int, num_support: int
) -> Callable[[PRNGKeyArray, int], Task]:
    """Tasks of `num_ways` labels, every subset of the labels as likely as any other.

    Args:
      examples: the examples of each label, shape [num_labels, num_examples, ...].
      num_ways: n, from 1 to num_labels.
      num_support: how many of a label's examples are support, the first ones; the rest are query. At least one each.

    Returns:
      A function (key, num_tasks) -> batch of tasks. A batch is (inputs [num_tasks, examples, ...], labels
      [num_tasks, examples]); labels are rows of `examples`, in ascending order, not renumbered within the task.

    Example:
      >>> import jax, numpy as np
      >>> from metalearn.learners.mamf import uniform_tasks
      >>> tasks = uniform_tasks(np.zeros((10, 4, 28, 28)), num_ways=5, num_support=1)(jax.random.key(0), 3)
      >>> tasks.support[0].shape, tasks.query[1].shape
      ((3, 5, 28, 28), (3, 15))
    """
    _require.array(examples=examples)
    examples = jnp.asarray(examples)
    if examples.ndim < 2 or examples.size == 0:
        raise ValueError(
            f"examples must have shape [num_labels, num_examples, ...], none of them 0, but it has "
            f"{list(examples.shape)}."
        )
    num_labels, num_examples = examples.shape[:2]
    _require.count(at_least=1, num_ways=num_ways, num_support=num_support)
    _at_most("num_ways", num_ways, "labels", num_labels)
    _at_most("num_support", num_support, "examples of a label but one", num_examples - 1)

    def draw(key):
        labels = jnp.sort(jax.random.permutation(key, num_labels)[:num_ways])
        support, query = jnp.split(examples[labels], [num_support], axis=1)
        return Task(_flattened(support, labels), _flattened(query, labels))

    def sample_tasks(key, num_tasks):
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        return jax.vmap(draw)(jax.random.split(key, num_tasks))

    return sample_tasks


def among_present(measure: Callable[[Apply], Loss], apply: Apply) -> Loss:
    """A loss or metric that chooses only among the labels which occur in its batch: the n-way loss of a sub-task.

    Args:
      measure: losses.cross_entropy or losses.accuracy.
      apply: (params, inputs) -> logits [num_examples, num_labels] for all labels.

    Returns:
      The measure of (params, (inputs, labels)), the logits of the other labels being minus infinity.

    Raises:
      ValueError: by the measure, as `losses.cross_entropy` for labels out of range.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> from metalearn.learners.mamf import among_present
      >>> model = lambda scale, x: scale * x
      >>> batch = jnp.array([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]), jnp.array([0, 1])  # label 2 does not occur
      >>> print(ml.losses.accuracy(model)(1.0, batch), among_present(ml.losses.accuracy, model)(1.0, batch))
      0.0 1.0
    """
    _require.takes("apply", measure=measure)
    _require.takes("params", "inputs", apply=apply)

    def measured(params, batch):
        _, labels = _require.pair(batch, "inputs", "labels")
        _require.array(labels=labels)

        def masked(params, inputs):
            logits = _require.returned_floats("apply", apply(params, inputs))
            # Added, and not put in their place, so that a NaN reaches the gradient even where no label is present.
            return logits + jnp.where(jnp.isin(jnp.arange(logits.shape[-1]), labels), 0, -jnp.inf)

        loss = measure(masked)
        if not callable(loss):
            raise TypeError(f"measure must return a function of (params, batch), but it returned {loss!r:.80}.")
        return loss(params, batch)

    return measured


def _flattened(inputs, labels):
    """[ways, shots, ...] -> a batch of ways * shots examples."""
    shots = inputs.shape[1]
    return inputs.reshape(-1, *inputs.shape[2:]), jnp.repeat(labels, shots)


def _at_most(name, value, what, limit):
    if value > limit:
        raise ValueError(f"{name} must be at most {limit}, the number of {what}, but it is {value}.")
