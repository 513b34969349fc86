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
    """

    support: Batch
    query: Batch


MetaGradient = Callable[[Params, Task], tuple[Scalar, Params]]
"""One task's (query loss after adaptation, meta-gradient): a drop-in for `jax.value_and_grad`."""
