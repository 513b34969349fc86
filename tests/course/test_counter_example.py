"""The judge of lesson 09's last exercise, which sees the values of a loss only, and tells rounding from a finding."""

import numpy as np
import pytest

from metalearn.course.exercises.grading import grade
from metalearn.course.lessons import lesson_09


def steep(proximal_strength, smallest_curvature):
    return 4 * (1 + smallest_curvature) * (1 + smallest_curvature + proximal_strength)


def answer(line=steep, places=(0.0, 1.0), scale=1.0, loss=None, curved=True):
    """A loss of an exponential, a parabola and a line, with the initializations that belong to these places of φ*."""

    def counter_example(lam, mu):
        factor, slope = mu * curved, line(lam, mu)

        def h(phi):
            return np.exp(scale * phi) + factor / 2 * phi**2 + slope * phi

        def initialization(phi):
            return phi + (scale * np.exp(scale * phi) + factor * phi + slope) / lam

        return loss(h) if loss else h, *map(initialization, places)

    return counter_example


def in_place(h):
    def changed(phi):
        values = h(phi.copy())
        phi *= 0
        return values

    return changed


@pytest.mark.parametrize(
    "right",
    [
        answer(),
        answer(places=(0.0, 0.01)),
        answer(line=lambda lam, mu: (mu + 1) * (lam + mu + 1), places=(0.0, 0.01)),
        answer(loss=in_place),
    ],
    ids=["far apart", "close together", "hardly above the chord", "a loss that changes its argument"],
)
def test_a_right_answer_is_accepted(right):
    for _ in range(2):
        assert grade(lesson_09.COUNTER_EXAMPLE, right).status == "passed"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (answer(line=lambda lam, mu: 1e7, scale=2.0, curved=False), "below `smallest_curvature`"),
        (lambda lam, mu: (np.exp, ..., ...), "must return three things"),
        (lambda lam, mu: (np.exp, None, 1.0), "must return three things"),
        (lambda lam, mu: (np.exp, 1.0, 1j), "must return three things"),
        (lambda lam, mu: (np.exp, 1.0, np.zeros(2)), "must return three things"),
        (answer(line=lambda lam, mu: 0.0, places=(1.0, 1.5)), "Which term can you add"),
        (answer(line=lambda lam, mu: 1.5 * (mu + 1) * (lam + mu + 1), places=(-9.0, 3.0)), "not all the way between"),
    ],
    ids=["a steep line, flat", "unfinished", "None", "complex", "an array", "no line", "too far apart"],
)
def test_a_wrong_answer_is_told_what_is_wrong(wrong, said):
    verdict = grade(lesson_09.COUNTER_EXAMPLE, wrong)
    assert verdict.status == "failed" and said in verdict.message
