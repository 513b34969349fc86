"""What a wrong result equals: every row of the tables is told, in its own words."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from toy import PAIR

from metalearn.course.exercises.candidates import Candidate, alterations
from metalearn.course.exercises.grading import grade
from metalearn.course.exercises.relations import OF_NUMBERS, OF_VECTORS, REDUCTIONS, Case, relation
from metalearn.task import Task

ROWS = pytest.mark.parametrize(
    ("text", "cause", "function"), OF_NUMBERS + OF_VECTORS, ids=[text for text, *_ in OF_NUMBERS + OF_VECTORS]
)
REDUCED = pytest.mark.parametrize(("text", "function"), REDUCTIONS, ids=[text for text, _ in REDUCTIONS])


def told(targets, results):
    """Of an exercise that has these targets; its argument, a word, is like none of them."""
    words = [f"instance {number}" for number in range(len(targets))]
    right, wrong = dict(zip(words, targets, strict=True)), dict(zip(words, results, strict=True))
    toy = replace(PAIR, reference=lambda word: right[word], instances=lambda rng: [(word,) for word in words])
    return grade(toy, lambda word: wrong[word]).relation


def made_of(function):
    """Vectors, and what a function makes of them; where it makes too few numbers, others follow."""
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=size) for size in (3, 5)]
    with np.errstate(invalid="ignore"):
        if not all(np.isfinite(function(target)).all() for target in targets):  # roots and logarithms
            targets = list(map(np.abs, targets))
    return targets, [np.append(made := function(one), rng.normal(size=one.size - made.size)) for one in targets]


@ROWS
def test_what_is_made_of_the_target_is_told(text, cause, function):
    assert told(*made_of(function)) == f"Your result is {text.format('the target')}. {cause}"


@ROWS
def test_what_is_made_of_a_part_is_told(text, cause, function):
    targets, results = ([(one, -1.7) for one in side] for side in made_of(function))
    said = f"the first part is {text.format('its target')}"
    assert told(targets, results) == f"All is right but one part: {said}. {cause}"


@REDUCED
def test_a_step_that_is_missing_or_too_much_is_told(text, function):
    rng = np.random.default_rng(0)
    long = [rng.normal(size=shape) for shape in ((3, 4), (2, 5))]
    short = list(map(function, long))
    assert told(short, long) == f"The {text} of your result equals the target. Is a last step missing?"
    question = "What does the docstring say about its form?"
    assert told(long, short) == f"Your result is the {text} of the target. {question}"


# --- other arguments -----------------------------------------------------------------------------------------


def mixed(task, num_steps, rate, strength, hessian, other, params, tree, one, two, words):
    """Three numbers that depend on every number of the arguments, each in a way of its own."""
    leaves = jax.tree.leaves((task, num_steps, rate, strength, hessian, other, params, tree, words))
    leaves += [one(0.3), two(0.3)]
    sums = [np.ravel(leaf) @ np.cos(1 + place + np.arange(np.size(leaf))) for place, leaf in enumerate(leaves)]
    return np.sin(np.outer([1, 2, 3], sums) + np.arange(len(sums))).sum(axis=1)


def arguments(rng, num_steps, rate, size):
    task = Task(*rng.normal(size=(2, size)))
    matrices = rng.normal(size=(2, 3, 3))
    trees = ({"a": rng.normal(size=(2, size))} for _ in range(2))
    functions = (np.cos, np.sqrt)
    return (task, num_steps, rate, rng.normal(), *matrices, *trees, *functions, [rng.normal(size=2) for _ in range(3)])


INSTANCES = [arguments(np.random.default_rng(n), *given) for n, given in enumerate([(4, 0.3, 2), (0, -0.7, 3)])]
INSTANCES.append(arguments(np.random.default_rng(2), 3, 0.2, 4))
NAMES = mixed.__code__.co_varnames[: mixed.__code__.co_argcount]
MIXED = replace(PAIR, reference=mixed, instances=lambda rng: INSTANCES)
CHANGES = list(alterations(dict(zip(NAMES, INSTANCES[0], strict=True))))


@pytest.mark.parametrize(("text", "cause", "change"), CHANGES, ids=[text for text, *_ in CHANGES])
def test_the_right_result_for_other_arguments_is_told(text, cause, change):
    def function(*given):
        return mixed(**change(dict(zip(NAMES, given, strict=True))))

    assert grade(MIXED, function).relation == f"Your result is the right result {text}. {cause}"


# --- sums and constants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1, "plus the right result with the support set in both roles. Is there a term too many?"),
        (-1, "minus the right result with the support set in both roles. Is a term missing, or subtracted"),
        (0.5, "plus ½ times the right result with the support set in both roles. Is there a term too many?"),
        (-2, "minus 2 times the right result with the support set in both roles. Is a term missing, or subtracted"),
    ],
)
def test_a_term_too_many_or_too_few_is_told(factor, said):
    def function(*given):
        task, *others = given
        return mixed(*given) + factor * mixed(Task(task.support, task.support), *others)

    assert grade(MIXED, function).relation.startswith(f"Your result is the target {said}")


@pytest.mark.parametrize("first", [0, 1])
def test_a_mean_over_a_loop_is_told(first):
    def function(*given):
        task, num_steps, *others = given
        counts = range(first, num_steps + 1)
        return sum((mixed(task, count, *others) for count in counts), np.zeros(3)) / max(len(counts), 1)

    said = f"Your result is the mean of the right results for `num_steps` from {first} to what is given. "
    assert grade(MIXED, function).relation.startswith(said)


def test_the_same_number_again_and_again_is_told():
    targets = [np.array([1.0, 2.0, 4.0]), np.array([3.0, 1.0])]
    assert told(targets, [np.full(3, 7.1), np.full(2, -0.3)]).startswith("On each instance all numbers of your result")
    assert told(targets, [np.full(3, 7.1), np.array([-0.3, 1.0])]) is None
    assert told([np.full(3, 2.0), targets[1]], [np.full(3, 7.1), np.full(2, -0.3)]) is None


def test_an_equal_candidate_is_found_before_others_are_computed_on_every_instance():
    """Of single numbers everything is a multiple, so looking for multiples first would use up the time."""
    computed = []

    def other(number):
        computed.append(number)
        return np.array([7.0, 8.0, 11.0][number])

    case = Case(
        arguments=[{"word": word} for word in ("a", "b", "c")],
        targets=list(map(np.array, [1.0, 2.0, 5.0])),
        results=list(map(np.array, [1.3, 2.9, 5.1])),
        close=np.allclose,
        candidates=lambda: [
            Candidate("another", "", other),
            Candidate("it", "Why?", lambda number: np.array([1.3, 2.9, 5.1][number])),
        ],
    )
    assert relation(case) == "Your result is it. Why?"
    assert computed == [0]


# --- steps from an argument ----------------------------------------------------------------------------------


def told_of_a_step(length):
    """What is told of a step of this length, (x, rate) -> number, from x in a direction in which it should be 1 long.

    Once as the whole result, and once as the first of two parts.
    """

    def step(x, length=1.0):
        return x + length * np.cos(x + np.arange(x.size))

    def instances(rng):
        return [(rng.normal(size=size), rate) for size, rate in ((3, 0.3), (5, 0.7), (4, 0.2))]

    never = (replace(PAIR.misconceptions[0], function=lambda x, rate: 0.0),)
    whole = replace(PAIR, reference=lambda x, rate: step(x), instances=instances, misconceptions=never)
    pair = replace(whole, reference=lambda x, rate: (step(x), np.sin(x)))
    return (
        grade(whole, lambda x, rate: step(x, length(x, rate))).relation,
        grade(pair, lambda x, rate: (step(x, length(x, rate)), np.sin(x))).relation,
    )


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (lambda x, rate: -1, "minus the one to {}. Is a sign turned round somewhere?"),
        (lambda x, rate: 3, "3 times the one to {}. "),
        (lambda x, rate: -rate, "minus `rate` times the one to {}. "),
        (lambda x, rate: 1 / x.size, "(1 / the length of `x`) times the one to {}. Is a sum taken for a mean"),
        (
            lambda x, rate: np.exp(rate),
            "a multiple of the one to {}, by a factor that differs between instances: 1.35, 2.01",
        ),
    ],
)
def test_a_step_of_another_length_is_told(length, said):
    whole, part = told_of_a_step(length)
    assert whole.startswith(f"The change from the argument `x` to your result is {said.format('the target')}")
    opening = "All is right but one part: the change from the argument `x` to the first part is"
    assert part.startswith(f"{opening} {said.format('its target')}")


def test_a_step_that_was_not_taken_is_told():
    whole, part = told_of_a_step(lambda x, rate: 0)
    assert whole == "Your result is the argument `x` itself. Was it ever changed?"
    assert part == "All is right but one part: the first part is the argument `x` itself. Was it ever changed?"


def test_parts_of_another_length_each_are_told():
    rng = np.random.default_rng(0)
    targets = [(rng.normal(size=size), [rng.normal(size=2), rng.normal(size=3)]) for size in (3, 5)]
    results = [
        (a * one, [b * each for each in other])
        for (one, other), a, b in zip(targets, (2.1, 0.3), (0.7, 1.9), strict=True)
    ]
    assert told(targets, results).startswith("Each part of your result is a multiple of its target")
    leaf_by_leaf = [(one, [2.1 * other[0], other[1]]) for one, other in results]
    assert told(targets, leaf_by_leaf).startswith("Each array of your result is a multiple of its target")
