"""A finite population of tasks: each is met again and again, with fresh examples, and known by its id."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Int, PRNGKeyArray

from metalearn import _require
from metalearn.task import Batch, Task


class IndexedTasks(NamedTuple):
    """A batch of tasks of a population, for `moml`.

    Attributes:
      ids: which tasks of the population they are, whole numbers from 0, shape [num_tasks].
      tasks: a batch of tasks.

    Example: see `Population`.
    """

    ids: Int[Array, " num_tasks"]
    tasks: Task


class ClientData(NamedTuple):
    """What the clients of one round of `local_moml` learn from; a client is a task.

    Attributes:
      first: the support sets of the first adaptation; arrays have leading axes [num_clients, number of sets].
      local: a task for each local step; arrays have leading axes [num_clients, num_local_steps].

    Example: see `Clients`.
    """

    first: Batch
    local: Task


@dataclasses.dataclass(frozen=True)
class Population:
    """Tasks 0 ... num_all_tasks - 1, from which every batch takes different ones, all equally likely.

    A learner without memory trains on it too: lambda key, num_tasks: population(key, num_tasks).tasks.

    Attributes:
      num_all_tasks: how many tasks there are, >= 1.
      draw: (key, id) -> Task, fresh examples of the task with that id, which is an int32 scalar of a compiled program.

    Raises:
      ValueError: if more tasks are asked for than there are.

    Example:
      >>> import jax, metalearn as ml
      >>> draw = lambda key, i: ml.Task(*jax.random.normal(key, (2, 5)) + i)
      >>> batch = ml.tasks.Population(10, draw)(jax.random.key(0), 4)
      >>> batch.ids.shape, batch.tasks.support.shape
      ((4,), (4, 5))
    """

    num_all_tasks: int
    draw: Callable[[PRNGKeyArray, Int[Array, ""]], Task]

    def __post_init__(self) -> None:
        _require.count(at_least=1, num_all_tasks=self.num_all_tasks)
        _require.takes("key", "id", draw=self.draw)

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> IndexedTasks:
        """A batch of different tasks."""
        _require.random_key(key=key)
        id_key, draw_key = jax.random.split(key)
        ids = self.sample_ids(id_key, num_tasks)
        return IndexedTasks(ids, jax.vmap(self.one_task)(jax.random.split(draw_key, num_tasks), ids))

    def one_task(self, key: PRNGKeyArray, task_id: Int[Array, ""]) -> Task:
        """What `draw` returns, which must be a Task."""
        task = self.draw(key, task_id)
        if not isinstance(task, Task):
            raise TypeError(f"draw must return a metalearn.Task(support, query), but it returned {task!r:.80}.")
        return task

    def sample_ids(self, key: PRNGKeyArray, num_tasks: int) -> Int[Array, " {num_tasks}"]:
        """Different ids, an int32 array of shape [num_tasks]."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        if num_tasks > self.num_all_tasks:
            raise ValueError(f"num_tasks must be at most num_all_tasks ({self.num_all_tasks}), but it is {num_tasks}.")
        return jax.random.choice(key, self.num_all_tasks, (num_tasks,), replace=False)


@dataclasses.dataclass(frozen=True)
class Clients:
    """Rounds of federated learning: every round takes different tasks of a population, and several draws of each.

    Attributes:
      population: whose tasks the clients are.
      num_local_steps: H >= 1, the steps a client takes in a round, each with its own draw.
      num_first: draws whose support sets make the first adaptation of a round, >= 1.

    Example:
      >>> import jax, metalearn as ml
      >>> population = ml.tasks.Population(10, lambda key, i: ml.Task(*jax.random.normal(key, (2, 5)) + i))
      >>> data = ml.tasks.Clients(population, num_local_steps=3, num_first=2)(jax.random.key(0), 4)
      >>> data.first.shape, data.local.query.shape
      ((4, 2, 5), (4, 3, 5))
    """

    population: Population
    num_local_steps: int
    num_first: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.population, Population):
            raise TypeError(f"population must be a tasks.Population, but it is a {type(self.population).__name__}.")
        _require.count(at_least=1, num_local_steps=self.num_local_steps, num_first=self.num_first)

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> ClientData:
        """The data of a round of `num_tasks` clients."""
        _require.random_key(key=key)
        id_key, draw_key = jax.random.split(key)
        ids = self.population.sample_ids(id_key, num_tasks)
        keys = jax.random.split(draw_key, (num_tasks, self.num_first + self.num_local_steps))
        draws = jax.vmap(jax.vmap(self.population.one_task, in_axes=(0, None)))(keys, ids)
        first, local = (
            jax.tree.map(lambda leaf, part=part: leaf[:, part], draws)
            for part in (slice(self.num_first), slice(self.num_first, None))
        )
        return ClientData(first.support, local)
