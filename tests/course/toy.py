"""A small lesson, 99, for tests of the teaching layer itself."""

import jax.numpy as jnp
import numpy as np

from metalearn.course.exercises.exercise import Exercise, Misconception, Question


def scaled_mean(points, scale):
    return scale * jnp.mean(points, axis=0)


def _only_square(points, scale):
    return points @ jnp.ones((2, 2))  # raises on the other shapes


MEAN = Exercise(
    id="99.scaled_mean",
    title="A mean",
    difficulty=1,
    minutes=2,
    reference=scaled_mean,
    instances=lambda rng: [
        (rng.normal(1, 1, (2, 2)), 0.5),
        (rng.normal(1, 1, (3, 6)), 2.0),
        (rng.normal(1, 1, (4, 1)), 3.0),
        (rng.normal(1, 1, (5, 300)), 0.1),
    ],
    misconceptions=(
        Misconception("needs a square", _only_square, "Never shown: it raises."),
        Misconception("sum", lambda points, scale: scale * jnp.sum(points, axis=0), "This is a sum."),
        Misconception("wrong axis", lambda points, scale: scale * jnp.mean(points, axis=1), "Over which axis?"),
    ),
    alternatives=(lambda points, scale: sum(points) * scale / len(points),),
    hints=("What is a mean?", "Which axis counts the points?"),
    expected="`[0.5, 1.0]`",
)

PAIR = Exercise(
    id="99.pair",
    title="A pytree",
    difficulty=1,
    minutes=2,
    reference=lambda x: (x[0], {"twice": 2 * x, "zero": 0 * x}),
    instances=lambda rng: [(rng.normal(size=2),), (rng.normal(size=3),)],
    misconceptions=(Misconception("thrice", lambda x: (x[0], {"twice": 3 * x, "zero": 0 * x}), "Count."),),
    alternatives=(lambda x: (float(x[0]), {"zero": np.zeros(len(x)), "twice": x + x}),),
    hints=("Two parts.",),
    expected="A pair.",
)

EXERCISES = (MEAN, PAIR)
QUIZ = (
    Question("What is $1 + 1$?", ("1", "2"), 1, ("Count again.", "Yes, `2`.")),
    Question("Is $a < b$?", ("yes", "no"), 0, ("It is.", "It is not.")),
    Question("Which letter?", ("α", "β"), 0, ("The first.", "The second.")),
)
