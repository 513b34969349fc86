"""What one outer step costs: gradients, floating-point operations, memory, communication.

Counted in gradients of the loss on one support set, as in the papers. The gradient of a dense network takes about six
operations for each parameter and example (two forwards, four backwards), so a loss value is a third of a gradient and a
Hessian-vector product two. A convolution or an attention layer uses a parameter more than once: count it that often.

Memory is that of the temporary arrays of the compiled program, in two units: P, a copy of the parameters, and A, the
outputs of all layers for one set of examples. The coefficients were measured on dense networks.
"""

import math
from typing import NamedTuple

from metalearn import _require
from metalearn.meta_gradients.fo_b_maml import STENCILS


class Cost(NamedTuple):
    """The cost of one outer step.

    Attributes:
      gradients: of one task, in gradients on one support set.
      flops: floating-point operations of one device.
      memory: bytes of temporary arrays on one device, which adapts its tasks side by side.
      communication: bytes that one device sends, if gradients are averaged around a ring: 2 (D - 1) / D of a copy of
        the parameters.
    """

    gradients: float
    flops: float
    memory: float
    communication: float


# name -> (gradients, copies of the parameters, copies of the layer outputs); K steps, L leaning solutions, U upright
# ones, C steps of CG.
_COUNTS = {
    "maml": lambda K, L, U, C: (3 * K + 1, K + 2, 2 * K + 2),
    "maml with remat": lambda K, L, U, C: (5 * K + 1, 2 * math.sqrt(K) + 4, 4),
    "fo_maml": lambda K, L, U, C: (K + 1, 1, 1.5),
    "reptile": lambda K, L, U, C: (K + 1 / 3, 1.5, 1.5),
    "hf_maml": lambda K, L, U, C: (3 * K + 1, 2 * K + 3, 3),
    "imaml": lambda K, L, U, C: (K + 1 + 2 * (C + 1), 6, 4.5),
    "fo_b_maml": lambda K, L, U, C: ((2 * L + U) * K + 1 / 3, 4 * L + U, 3 * L),
    "fo_b_maml_limit": lambda K, L, U, C: (6 * K + 1 / 3, 8, 6),
    "a_maml": lambda K, L, U, C: (30 * K + 1, 2 * math.sqrt(K) + 25, 15),
}


def cost(
    method: str,
    num_params: int,
    num_steps: int,
    *,
    num_tasks: int = 1,
    num_devices: int = 1,
    num_examples: int = 1,
    num_outputs: int = 0,
    estimator: str = "symmetric",
    cg_steps: int = 5,
    itemsize: int = 4,
) -> Cost:
    """Predicts what one outer step costs, to about a factor 1.5.

    Args:
      method: "maml", "maml with remat", "fo_maml", "reptile", "hf_maml", "imaml", "fo_b_maml",
        "fo_b_maml_limit" or "a_maml".
      num_params: parameters of the network, each as often as it is used for an example.
      num_steps: K >= 1 inner steps.
      num_tasks: tasks of the outer step, over all devices.
      num_devices: D >= 1; each adapts its part of the tasks.
      num_examples: in a support set; a query set is taken to be as large.
      num_outputs: numbers that the layers put out for one example, all layers together.
      estimator: of `fo_b_maml`.
      cg_steps: C of `imaml`.
      itemsize: bytes of a number, 4 for float32.

    Raises:
      ValueError: if the method or the estimator is unknown or a count too small.
    """
    if method not in _COUNTS:
        raise ValueError(f"method must be one of {', '.join(map(repr, _COUNTS))}, but it is {method!r}.")
    _require.count(
        at_least=1,
        num_params=num_params,
        num_steps=num_steps,
        num_tasks=num_tasks,
        num_devices=num_devices,
        num_examples=num_examples,
        cg_steps=cg_steps,
        itemsize=itemsize,
    )
    _require.count(num_outputs=num_outputs)
    if estimator not in STENCILS:
        raise ValueError(f"estimator must be one of {', '.join(map(repr, STENCILS))}, but it is {estimator!r}.")
    offsets = STENCILS[estimator][0]
    upright = offsets.count(0.0)
    gradients, copies, outputs = _COUNTS[method](num_steps, len(offsets) - upright, upright, cg_steps)
    tasks_here = math.ceil(num_tasks / num_devices)
    return Cost(
        gradients,
        tasks_here * gradients * 6 * num_params * num_examples,
        tasks_here * itemsize * (copies * num_params + outputs * num_outputs * num_examples),
        2 * (num_devices - 1) / num_devices * num_params * itemsize,
    )
