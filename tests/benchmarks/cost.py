"""The time of one meta-gradient, in units of the time of one support gradient."""

import jax
from measure import Row, in_turn, ratio, seconds
from methods import METHODS, SGD, mlp

from metalearn.adaptation.inner import descend

NUM_STEPS = 10  # K
WIDTHS, NUM_EXAMPLES = (1, 256, 256, 1), 1_000  # large enough for the gradients to be nearly all of the work


def rows(rounds: int) -> list[Row]:
    """Each method against its count on paper; the unit is a gradient step within a loop of K steps."""
    loss, params, tasks = mlp(WIDTHS, 1, NUM_EXAMPLES)
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    steps = jax.jit(lambda params, task: descend(lambda phi: loss(phi, task.support), SGD, NUM_STEPS, params))
    result = []
    for name, method in METHODS.items():
        program = jax.jit(method.build(loss, NUM_STEPS))
        times = in_turn({"steps": lambda: steps(params, task), name: lambda p=program: p(params, task)}, rounds)
        unit, count = times["steps"] / NUM_STEPS, method.count(NUM_STEPS)
        result.append(
            Row(
                f"`{name}`, K = {NUM_STEPS}",
                seconds(times[name]),
                f"{count:.4g} gradients of {seconds(unit)}",
                ratio(times[name], count * unit),
                ("at most", 1.15) if method.first_order else None,
            )
        )
    return result
