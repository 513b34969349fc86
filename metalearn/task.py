"""A task, and the types every other file is written in."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

Scalar = Float[Array, ""]
"""A number that a program computes: an array of shape []."""

Number = float | Float[Array, ""]
"""A number that is given: one of Python, or an array of shape [], which may be traced."""

Params = Any
"""Any pytree of floating-point arrays: an nnx State, a Linen dict, a tuple, one array."""

Batch = Any
"""Any pytree of arrays whose leading axis counts examples."""

Loss = Callable[[Params, Batch], Scalar]
"""Your model's loss: (params, batch) -> scalar."""


class Task(NamedTuple):
    """What a learner adapts on, and what it is judged on.

    A batch of tasks is a Task whose arrays have one more leading axis, which counts tasks.

    Attributes:
      support: the examples adaptation may use.
      query: the examples that score the adapted parameters.

    Example:
      >>> import jax, metalearn as ml
      >>> tasks = ml.tasks.Sinusoid(num_support=5, num_query=10)(jax.random.key(0), 25)
      >>> first = jax.tree.map(lambda leaf: leaf[0], tasks)
      >>> tasks.support[0].shape, first.support[0].shape
      ((25, 5, 1), (5, 1))
    """

    support: Batch
    query: Batch


MetaGradient = Callable[[Params, Task], tuple[Scalar, Params]]
"""One task's (query loss after adaptation, meta-gradient): a drop-in for `jax.value_and_grad`."""
