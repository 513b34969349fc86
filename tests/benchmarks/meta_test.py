"""Adaptation at meta-test: 10,000 tasks in one call, in little more memory than 1,000.

What grows are the tasks themselves and their curves; adaptation takes the memory of a chunk.
"""

import jax
from measure import Row, in_turn, seconds
from methods import SGD, mlp

import metalearn as ml

NUM_STEPS = 10


def rows(rounds: int) -> list[Row]:
    """How long ten times as many tasks take, and the compiler's word on how much memory."""
    loss, params, tasks = mlp((1, 40, 40, 1), 10_000, 10)
    fewer = jax.tree.map(lambda leaf: leaf[:1_000], tasks)
    times = in_turn({"all": lambda: ml.evaluate.meta_test(loss, SGD, params, tasks, NUM_STEPS)}, rounds)

    def temporary_memory(tasks):
        curve = jax.jit(lambda params, tasks: ml.evaluate.adaptation_curve(loss, SGD, params, tasks, NUM_STEPS))
        return curve.lower(params, tasks).compile().memory_analysis().temp_size_in_bytes

    most, least = temporary_memory(tasks), temporary_memory(fewer)
    return [
        Row(
            f"temporary memory of `meta_test`, 10,000 tasks ({seconds(times['all'])})",
            f"{most / 1e6:.3g} MB",
            f"1,000 tasks: {least / 1e6:.3g} MB",
            most / least,
            ("at most", 1.5),
        )
    ]
