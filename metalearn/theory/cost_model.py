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
from metalearn._cost import COSTS
from metalearn.meta_gradients.fo_b_maml import STENCILS


class Cost(NamedTuple):
    """The cost of one outer step.

    Attributes:
      gradients: of one task, in gradients on one support set.
      flops: floating-point operations of one device.
      memory: bytes of temporary arrays on one device, which adapts its tasks side by side.
      communication: bytes that one device sends, if gradients are averaged around a ring: 2 (D - 1) / D of a copy of
        the parameters.

    Example: see `cost`.
    """

    gradients: float
    flops: float
    memory: float
    communication: float


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
      method: the name of a method whose docstring states a cost, such as "fo_b_maml", or "maml with remat".
      num_params: parameters of the network, each as often as it is used for an example.
      num_steps: K >= 1 inner steps.
      num_tasks: tasks of the outer step, over all devices.
      num_devices: D >= 1; each adapts its part of the tasks.
      num_examples: in a support set; a query set is taken to be as large.
      num_outputs: numbers that the layers put out for one example, all layers together.
      estimator: of `fo_b_maml`.
      cg_steps: C of `imaml`.
      itemsize: bytes of a number, 4 for float32.

    Example:
      >>> import metalearn as ml
      >>> [round(ml.theory.cost(method, num_params=1000, num_steps=10).gradients) for method in ("maml", "fo_maml")]
      [31, 11]
    """
    if not isinstance(method, str) or method not in COSTS:
        raise ValueError(f"method must be one of {', '.join(map(repr, sorted(COSTS)))}, but it is {method!r}.")
    _require.count(
        at_least=1,
        at_most=2**63 - 1,
        num_params=num_params,
        num_steps=num_steps,
        num_tasks=num_tasks,
        num_devices=num_devices,
        num_examples=num_examples,
        cg_steps=cg_steps,
        itemsize=itemsize,
    )
    _require.count(at_most=2**63 - 1, num_outputs=num_outputs)
    if not isinstance(estimator, str) or estimator not in STENCILS:
        raise ValueError(f"estimator must be one of {', '.join(map(repr, STENCILS))}, but it is {estimator!r}.")
    offsets = STENCILS[estimator][0]
    unperturbed = offsets.count(0.0)
    gradients, copies, outputs = COSTS[method].evaluate(
        K=num_steps, P=len(offsets) - unperturbed, U=unperturbed, C=cg_steps
    )
    tasks_here = math.ceil(num_tasks / num_devices)
    return Cost(
        gradients,
        tasks_here * gradients * 6 * num_params * num_examples,
        tasks_here * itemsize * (copies * num_params + outputs * num_outputs * num_examples),
        2 * (num_devices - 1) / num_devices * num_params * itemsize,
    )
