"""What every exercise of every lesson promises to the learner."""

import inspect
import re
import time
from dataclasses import replace

import jax
import numpy as np
import pytest
from mutants import BEGIN, END, Solution, all_solutions, mutants, mutation_score, read_solutions, right_results
from toy import MEAN

from metalearn.course.exercises import grading, relations
from metalearn.course.exercises.exercise import all_exercises, find, numbers, quiz_of
from metalearn.course.exercises.grading import grade as grade_within

HIDDEN_SEED = 409_03682
SEEDS = pytest.mark.parametrize("seed", [0, HIDDEN_SEED])
SEVERAL_SEEDS = (*range(6), HIDDEN_SEED)
SOLUTIONS = all_solutions()
EXERCISES = all_exercises()

IN_EVERY_RUN = "02"  # the lesson; .ci/run tests the others as well


def case(exercise, *others, name=""):
    return pytest.param(
        exercise,
        *others,
        id=f"{exercise.id}-{name}" if name else exercise.id,
        marks=() if exercise.lesson == IN_EVERY_RUN else pytest.mark.slow,
    )


EVERY = pytest.mark.parametrize("exercise", [case(exercise) for exercise in EXERCISES])
EVERY_MISCONCEPTION = pytest.mark.parametrize(
    ("exercise", "misconception"),
    [case(exercise, wrong, name=wrong.name) for exercise in EXERCISES for wrong in exercise.misconceptions],
)
EVERY_RELATIVE = pytest.mark.parametrize(
    ("exercise", "text", "function"),
    [case(exercise, *relative, name=relative[0]) for exercise in EXERCISES for relative in exercise.relatives],
)


def grade(*args):
    """To compile takes long on a busy machine, which is no fault of an exercise."""
    return grade_within(*args, timeout=120)


# --- every exercise ------------------------------------------------------------------------------------------


def test_ids_are_found_and_belong_to_their_lesson():
    assert len(EXERCISES) == len({exercise.id for exercise in EXERCISES}) > 0
    for exercise in EXERCISES:
        assert find(exercise.id) is exercise
    assert NEVER_NEGATIVE.keys() <= {exercise.id for exercise in EXERCISES}


def test_every_exercise_has_one_solution_and_every_solution_an_exercise():
    assert set(SOLUTIONS) == {exercise.id for exercise in EXERCISES}


@pytest.mark.parametrize("lesson", numbers())
def test_every_quiz_has_three_questions(lesson):
    assert len(quiz_of(lesson)) == 3


@EVERY
@SEEDS
def test_every_correct_solution_passes(exercise, seed):
    solution = SOLUTIONS[exercise.id].function()
    for function in (exercise.reference, *exercise.alternatives, solution):
        verdict = grade(exercise, function, seed)
        assert verdict.status == "passed", verdict.message


@EVERY
def test_the_stub_is_not_yet(exercise):
    solution = SOLUTIONS[exercise.id]
    stub = re.sub(rf"( *){BEGIN}.*{END}", r"\1raise NotImplementedError", solution.cell, flags=re.DOTALL)
    assert stub != solution.cell
    assert grade(exercise, replace(solution, cell=stub).function()).status == "not yet"


@EVERY_MISCONCEPTION
@SEEDS
def test_every_misconception_gets_its_own_diagnosis(exercise, misconception, seed):
    verdict = grade(exercise, misconception.function, seed)
    assert (verdict.status, verdict.misconception) == ("failed", misconception.name), verdict.message
    assert verdict.message == misconception.diagnosis


@EVERY_RELATIVE
@SEEDS
def test_every_relative_is_told(exercise, text, function, seed):
    assert not text.startswith("right"), "a noun phrase, of which a multiple can be told"
    verdict = grade(exercise, function, seed)
    assert (verdict.status, verdict.relation) == ("failed", f"Your result is {text}."), verdict.message
    assert verdict.message.endswith(verdict.relation)


@EVERY
def test_the_usual_mistakes_are_named(exercise):
    """Whatever the exercise, without a line in its definition."""
    if exercise.judge:  # many answers are right, and the judge's own text says what is wrong with another
        assert not exercise.relatives
        return
    mistakes = _usual_mistakes(exercise)
    verdicts = {name: grade(exercise, function) for name, function in mistakes.items()}
    for name, verdict in verdicts.items():
        assert verdict.status == "failed", name
        assert verdict.misconception or verdict.relation, (name, verdict.message)


def _usual_mistakes(exercise):
    """Wrong functions made from the reference and its parameters, for the ordinary seed."""
    reference, names = exercise.reference, list(inspect.signature(exercise.reference).parameters)

    def like(function):
        function.__signature__ = inspect.signature(reference)
        return function

    def returning(results):
        remaining = iter(results)
        return like(lambda *args: next(remaining))

    def with_other(place, change):
        return like(lambda *args: reference(*(change(arg) if n == place else arg for n, arg in enumerate(args))))

    if _judges(exercise):
        return {"always True": like(lambda *args: True), "always False": like(lambda *args: False)}
    cases = right_results(exercise, 0)
    mistakes = {name: returning(wrong) for name in NAMED for wrong in WRONG_RESULTS[name](*cases)}
    if "num_steps" in names:
        mistakes["one step too many"] = with_other(names.index("num_steps"), lambda count: count + 1)
    if "task" in names:
        mistakes["sets swapped"] = with_other(
            names.index("task"), lambda task: task._replace(support=task.query, query=task.support)
        )
    return mistakes


def _judges(exercise):
    return isinstance(exercise.reference(*exercise.instances(np.random.default_rng(0))[0]), bool)


# --- wrong results ---------------------------------------------------------------------------------------------------


def _each_leaf(change):
    return lambda results, instances: [jax.tree.map(change, results)]


def _leaf_by_leaf(change):
    """A candidate for each of the changes, (result, instance) -> list of them, of results with several leaves."""

    def wrong(results, instances):
        changed = [
            change(*pair) if len(jax.tree.leaves(pair[0])) > 1 else [] for pair in zip(results, instances, strict=True)
        ]
        number = max(map(len, changed))
        return [
            [each[min(n, len(each) - 1)] if each else result for each, result in zip(changed, results, strict=True)]
            for n in range(number)
        ]

    return wrong


def _one_leaf_zero(result, instance):
    leaves, structure = jax.tree.flatten(result)
    return [
        structure.unflatten([0 * leaf if n == other else leaf for other, leaf in enumerate(leaves)])
        for n in range(len(leaves))
    ]


def _first_leaf_and_zeros(result, instance):
    first, *others = jax.tree.leaves(result)
    return [jax.tree.structure(result).unflatten([first, *(0 * leaf for leaf in others)])]


def _first_leaf_and_argument(result, instance):
    """The result's own first leaf, and the other leaves of each argument of its form: never updated."""
    leaves, structure = jax.tree.flatten(result)
    alike = [jax.tree.leaves(argument) for argument in instance if relations.alike(argument, result)]
    return [structure.unflatten([leaves[0], *map(np.asarray, other[1:])]) for other in alike]


def _rows(change):
    """A candidate if some leaf has several rows (tasks, steps, examples), which `change` replaces."""

    def wrong(results, instances):
        if all(np.ndim(leaf) == 0 or len(leaf) < 2 for leaf in jax.tree.leaves(results)):
            return []
        return [jax.tree.map(lambda leaf: change(leaf) if np.ndim(leaf) and len(leaf) else leaf, results)]

    return wrong


def _transposed(results, instances):
    def square(leaf):
        return np.ndim(leaf) == 2 and leaf.shape[0] == leaf.shape[1] > 1

    if not any(map(square, jax.tree.leaves(results))):
        return []
    return [jax.tree.map(lambda leaf: leaf.T if square(leaf) else leaf, results)]


def _first_again(results, instances):
    """The numbers of the first result, in the form that is asked for."""
    if len(results) == 1:
        return []
    numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(results[0])])
    firsts = jax.tree.leaves(results[0])

    def of(result):
        leaves, structure = jax.tree.flatten(result)
        sources = firsts if len(firsts) == len(leaves) else [numbers] * len(leaves)
        return structure.unflatten(
            [np.resize(source, leaf.shape) for source, leaf in zip(sources, leaves, strict=True)]
        )

    return [[of(result) for result in results]]


# What a wrong function returns, made of the right results of all instances: (results, instances) -> candidates, each of
# which must be refused. There is none where the results have no such form.
WRONG_RESULTS = {
    "sign": _each_leaf(lambda leaf: -1.0 * leaf),
    "twice": _each_leaf(lambda leaf: 2.0 * leaf),
    "half": _each_leaf(lambda leaf: 0.5 * leaf),
    "nothing": _each_leaf(lambda leaf: 0.0 * leaf),
    "absolute value": _each_leaf(np.abs),
    "transposed": _transposed,
    "one leaf zero": _leaf_by_leaf(_one_leaf_zero),
    "first leaf, others zero": _leaf_by_leaf(_first_leaf_and_zeros),
    "first leaf, others as in an argument": _leaf_by_leaf(_first_leaf_and_argument),
    "first row, others zero": _rows(lambda leaf: np.concatenate([leaf[:1], 0 * leaf[1:]])),
    "first row, again and again": _rows(lambda leaf: np.repeat(leaf[:1], len(leaf), axis=0)),
    "all rows but the last": _rows(lambda leaf: np.concatenate([leaf[:-1], 0 * leaf[-1:]])),
    "first instance, again and again": _first_again,
}
NAMED = ("sign", "twice", "half", "nothing")
NEVER_NEGATIVE = {
    "00.per_task_losses": "means of squares, and largest errors",
    "01.floor": "a mean of squares",
    "01.adaptation_curve": "means of squares",
    "01.sound_report": "true or false",
    "02.control": "quotients of curvatures",
    "03.small_steps": "fractions of a distance",
    "03.write_the_test": "true or false",
    "04.find_the_bug": "norms",
    "05.best_perturbation": "ν > 0",
    "07.compare": "errors",
    "07.control": "quotients of errors",
    "07.diagnose": "1 for yes and 0 for no",
    "08.longest_training_time": "a time",
    "09.control": "parts of a mean of squares",
    "10.choose_rate": "a rate and a mean of squares",
    "11.drift": "a quotient of norms",
    "12.cka": "a number from 0 to 1",
    "13.step_sizes": "factors of learning rates",
    "13.without_a_task": "factors of learning rates",
    "13.fair_sweep": "an index, an accuracy and half a width",
    "14.contrastive": "a cross-entropy",
    "14.cover": "numbers of sub-tasks",
    "15.step_cost": "a cost",
    "15.most_steps": "a number of steps",
    "15.resumes_exactly": "true or false",
    "16.audit": "1 for yes and 0 for no",
}


def _accepted(exercise, seed, results):
    return grading._agrees(exercise, seed, exercise.reference, jax.tree.map(np.asarray, results))


@pytest.mark.parametrize("kind", WRONG_RESULTS)
@pytest.mark.parametrize("exercise", [case(exercise) for exercise in EXERCISES if not exercise.judge])
def test_wrong_results_are_refused(exercise, kind):
    """With every seed; where it changes nothing, the reason stands in `NEVER_NEGATIVE`."""
    accepted = []
    for seed in SEVERAL_SEEDS:
        right, instances = right_results(exercise, seed)
        assert _accepted(exercise, seed, right)
        candidates = WRONG_RESULTS[kind](right, instances)
        accepted += [(seed, number) for number, wrong in enumerate(candidates) if _accepted(exercise, seed, wrong)]
    if kind == "absolute value" and exercise.id in NEVER_NEGATIVE:
        assert len(accepted) == len(SEVERAL_SEEDS), "the exception does not hold"
    else:
        assert not accepted, "(seed, candidate)"


@pytest.mark.slow
@EVERY
@pytest.mark.timeout(900)
def test_no_seed_is_blind(exercise):
    """With twenty seeds; with five where a check measures errors and costs itself, which takes much longer."""
    for seed in range(1, 6 if exercise.judge else 21):
        for function in (exercise.reference, *exercise.alternatives):
            assert grade(exercise, function, seed).status == "passed", seed
        for wrong in exercise.misconceptions:
            assert grade(exercise, wrong.function, seed).misconception == wrong.name, seed
    for seed in range(1, 4):
        for text, function in exercise.relatives:
            assert grade(exercise, function, seed).relation == f"Your result is {text}.", seed


@EVERY
def test_no_text_gives_the_solution_away(exercise):
    lines = [line.strip() for line in SOLUTIONS[exercise.id].cell.splitlines()]
    written = lines[lines.index(BEGIN) : lines.index(END)]
    returned = [line.removeprefix("return ") for line in written if line.startswith("return ")]
    given_away = [expression for expression in returned if not expression.isidentifier()]
    told = [text for text, _ in exercise.relatives]
    texts = [*exercise.hints, *told, *(misconception.diagnosis for misconception in exercise.misconceptions)]
    for text in texts:
        assert not any(_squeeze(expression) in _squeeze(text) for expression in given_away), text
        assert not any(_squeeze(line) in _squeeze(text) for line in written if line.startswith("return ")), text


def _squeeze(code):
    return re.sub(r"\s+", "", code)


@pytest.mark.slow
@EVERY
def test_no_check_takes_two_seconds(exercise):
    wrong = [misconception.function for misconception in exercise.misconceptions]
    wrong += [function for _, function in exercise.relatives]
    for function in (exercise.reference, *exercise.alternatives, *wrong):
        grade(exercise, function)  # warm-up
        seconds = []
        for _ in range(2):  # the faster one, in processor time: the machine may be busy with something else
            start = time.process_time()
            grade(exercise, function)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 2


@pytest.mark.slow
@pytest.mark.parametrize("lesson", numbers())
def test_checks_reject_mechanical_mistakes(lesson, record_property):
    others = [seed for seed in SEVERAL_SEEDS if seed]
    scores = [
        mutation_score(exercise, SOLUTIONS[exercise.id], others) for exercise in EXERCISES if exercise.lesson == lesson
    ]
    total = sum(scores[1:], scores[0])
    record_property("measured", f"lesson {lesson}: {total}")
    assert all(score.rejected for score in scores), "an exercise without a single mutant proves nothing"
    assert not total.unseen, "\n".join(total.unseen)
    assert total.fraction >= 0.95


# --- the mutants themselves ----------------------------------------------------------------------------------

SOURCE = '''# %% [markdown]
# # A lesson

# %% tags=["imports"]
import jax.numpy as jnp

# %%
def mean_of(points):
    return jnp.mean(points, axis=0)

def unused(points=not_defined):
    pass

# %% tags=["exercise"] exercise="99.scaled_mean"
def scaled(points, scale):
    """A mean."""
    before = 1 + 1
    ### BEGIN SOLUTION
    return scale * jnp.mean(points, axis=0)
    ### END SOLUTION

# %%
check("99.scaled_mean", scaled)
'''


def _toy_solution(body: str = "return scale * jnp.mean(points, axis=0)") -> Solution:
    return read_solutions(SOURCE.replace("return scale * jnp.mean(points, axis=0)", body))["99.scaled_mean"]


def _descriptions(body):
    return {description.partition(": ")[2] for description, _ in mutants(_toy_solution(body))}


def test_solutions_are_read_from_the_source():
    solution = _toy_solution()
    assert solution.name == "scaled"
    np.testing.assert_allclose(solution.function()(np.array([[1.0], [3.0]]), 2.0), [4.0])
    with_helper = _toy_solution("return scale * mean_of(points)")
    np.testing.assert_allclose(with_helper.function()(np.array([[1.0], [3.0]]), 2.0), [4.0])


def test_only_what_the_learner_writes_is_mutated():
    assert all("before" not in description and "1 + 1" not in description for description in _descriptions("return 3"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a + b", {"a - b", "a", "b"}),
        ("a * b", {"a / b", "a + b", "a", "b"}),
        ("a / b", {"a * b", "a"}),
        ("a @ b", {"a * b", "a", "b"}),
        ("-a", {"a"}),
        ("3", {"4", "2", "0"}),
        ("True", {"False"}),
        ("a < b", {"a <= b", "a > b"}),
        ("f(a, b, k=c)", {"f(b, a, k=c)", "f(b, k=c)", "f(a, k=c)", "f(a, b)"}),
        ("range(n)", {"range(n + 1)", "range(n - 1)", "range()"}),
        ("a[b:]", {":"}),
    ],
)
def test_kinds_of_mutants(expression, expected):
    assert {text.partition("  ->  ")[2] for text in _descriptions(f"return {expression}")} == expected


def test_a_mutant_leaves_the_solution_as_it_was():
    solution = _toy_solution()
    points = np.array([[1.0], [3.0]])
    assert len({code for _, code in mutants(solution)}) == len(list(mutants(solution))) > 3
    np.testing.assert_allclose(solution.function()(points, 2.0), [4.0])


@pytest.mark.slow
def test_a_sharp_check_scores_high_and_a_blunt_one_low():
    sharp = mutation_score(MEAN, _toy_solution(), [1, 2])
    assert (sharp.fraction, sharp.escaped, sharp.unseen) == (1.0, (), ())
    assert sharp.rejected >= 4

    def blind_with(seed):
        def instances(rng):
            blind = rng.bit_generator.seed_seq.entropy == seed
            return [(0 * points if blind else points, scale) for points, scale in MEAN.instances(rng)]

        return mutation_score(replace(MEAN, instances=instances), _toy_solution(), [1, 2])

    mistake = "scale * jnp.mean(points, axis=0)  ->  jnp.mean(points, axis=0)"
    assert blind_with(0).fraction < 0.95
    assert any(mistake in text for text in blind_with(0).escaped)
    assert blind_with(2).fraction < 0.95
    assert any(text.endswith(f"{mistake} (seeds [2])") for text in blind_with(2).unseen)
    assert not blind_with(0).unseen and not blind_with(2).escaped


@pytest.mark.slow
def test_endless_mutants_are_rejected_in_bounded_time():
    body = "n = 0\n    while n < 1:\n        n = n + 1\n    return scale * jnp.mean(points, axis=0) * n"
    start = time.process_time()
    score = mutation_score(MEAN, _toy_solution(body), [1, 2])
    assert score.fraction == 1.0
    assert time.process_time() - start < 60
