"""Exercises, predictions, quiz and figures of lesson 16, the project: a task distribution of the learner's own."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from metalearn import plots
from metalearn.course.exercises.checking import HEADINGS
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import comparison, own, project
from metalearn.course.lessons.project import interval, pairs, quantile
from metalearn.course.widgets import diagrams
from metalearn.course.widgets.display import show_card
from metalearn.task import Task

_Array = Float[np.ndarray, "..."]

# 16.plan ------------------------------------------------------------------------------------------------------------

FEWEST_SEEDS = 5
LEAST_SPENT = 0.9  # of the budget
_KEYS = ("outer steps", "outer rates", "clipping", "task seeds", "tuning seed", "seeds")


def _plan(**changed):
    """Variants of the plan: functions of (cost, budget) that replace single entries."""

    def my_plan(cost, budget):
        plan = project.default_plan(cost, budget)
        return plan | {name.replace("_", " "): change(cost, budget) for name, change in changed.items()}

    return my_plan


def _plan_in_loops(cost, budget):
    """An alternative: entry by entry, one norm more, other seeds."""
    plan = {"outer steps": {}, "outer rates": {}, "clipping": {}}
    for name, gradients in cost.items():
        plan["outer steps"][name] = int(np.floor(budget / gradients))
        plan["outer rates"][name] = [1e-3, 3e-3, 1e-2]
        plan["clipping"][name] = [None, 0.1, 10.0]
    seeds = {"train": 7, "validation": 8, "test": 9}
    return plan | {"task seeds": seeds, "tuning seed": 0, "seeds": [1, 2, 3, 4, 5]}


def _plan_in_tens(cost, budget):
    """An alternative: the number of outer steps rounded down to a multiple of five."""
    return _plan(outer_steps=lambda c, b: {name: b // each // 5 * 5 for name, each in c.items()})(cost, budget)


def _names(words):
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _times(factor):
    return f"{factor:.1f}".removesuffix(".0")


def plan_faults(plan: Mapping[str, Any], cost: Mapping[str, int], budget: int) -> tuple[list[float], list[str]]:
    """A number for each rule, 1 where it is kept, and what is to be said where it is not."""
    said: list[str] = []
    rules = [
        _rule_of_task_seeds(plan["task seeds"], said),
        _rule_of_seeds(plan["tuning seed"], list(plan["seeds"]), said),
        _rule_of_clipping(plan["clipping"], said),
        _rule_of_rates(plan["outer rates"], said),
        *_rule_of_budget(plan["outer steps"], cost, budget, said),
    ]
    return [float(rule) for rule in rules], said


def _rule_of_task_seeds(seeds, said):
    shared = [pair for pair in itertools.combinations(project.PARTS, 2) if seeds[pair[0]] == seeds[pair[1]]]
    for first, second in shared:
        said.append(f"Your {first.replace('train', 'training')} tasks share keys with your {second} tasks.")
    return (
        1 if not shared else -sum(2.0 ** list(itertools.combinations(project.PARTS, 2)).index(pair) for pair in shared)
    )


def _rule_of_seeds(tuning, seeds, said):
    if tuning in seeds:
        said.append("The tuning seed is one of the reported seeds, so a choice was fitted to a run that is reported.")
    if len(set(seeds)) < len(seeds):
        said.append("A reported seed occurs twice. A run that is repeated tells nothing new.")
    elif len(seeds) < FEWEST_SEEDS:
        said.append(f"There are only {len(seeds)} seeds. Take at least {FEWEST_SEEDS}.")
    return 1 - (tuning in seeds) - 2 * (len(set(seeds)) < len(seeds)) - 4 * (len(set(seeds)) < FEWEST_SEEDS)


def _rule_of_clipping(norms, said):
    without = [name for name, values in norms.items() if None not in values]
    never = [name for name, values in norms.items() if all(value is None for value in values)]
    bad = [name for name, values in norms.items() if any(value is not None and not value > 0 for value in values)]
    if never:
        said.append(f"Clipping is not tuned for {_names(never)}: the meta-gradient is never clipped.")
    if without:
        said.append(f"Clipping is not tuned for {_names(without)}: every configuration clips, so nobody can tell.")
    if bad:
        said.append("A norm to which a meta-gradient is clipped must be positive.")
    unequal = not never and not without and len({tuple(map(str, values)) for values in norms.values()}) > 1
    if unequal:
        said.append("The methods choose from different norms. Give all of them the same list.")
    place = {name: number for number, name in enumerate(norms)}
    return (
        1
        - sum(2.0 ** (place[name] + 1) for name in never)
        - sum(100 * 2.0 ** (place[name] + 1) for name in without)
        - 1e5 * bool(bad)
        - 1e6 * unequal
    )


def _rule_of_rates(rates, said):
    numbers = {name: len(set(values)) for name, values in rates.items()}
    if min(numbers.values()) < 2:
        said.append("Somebody has a single outer learning rate, so it is not tuned. Give everybody at least two.")
    if len({tuple(sorted(values)) for values in rates.values()}) > 1:
        said.append("The methods choose from different outer learning rates. Give all of them the same list.")
    if not all(value > 0 for values in rates.values() for value in values):
        said.append("An outer learning rate must be positive.")
        return -50
    return 1 - (min(numbers.values()) < 2) - 2 * (len({tuple(sorted(v)) for v in rates.values()}) > 1)


def _rule_of_budget(steps, cost, budget, said):
    spent = {name: steps[name] * cost[name] / budget for name in cost}
    kept = {name: LEAST_SPENT <= share <= 1 for name, share in spent.items()}
    if not all(kept.values()):
        most, least = max(spent, key=spent.get), min(spent, key=spent.get)
        told = [f"{name} spends {_times(share)} times the budget" for name, share in spent.items() if share > 1]
        told += [
            f"{name} spends {100 * share:.0f}\u00a0% of it" for name, share in spent.items() if share < LEAST_SPENT
        ]
        text = f"The budget is {budget:,} gradients for each run: {_names(told)}."
        if spent[least] > 0 and spent[most] > 1.1 * spent[least]:
            text += f" So {most} has {_times(spent[most] / spent[least])} times the gradients of {least}."
        said.append(text)
    return [1.0 if kept[name] else 10 * spent[name] for name in cost]


def judge_plan(my_plan: Callable[..., Any], cost: Mapping[str, int], budget: int) -> Any:
    """What the check compares, a number for each rule, and what it says."""
    plan = my_plan(cost, budget)
    if plan is None or plan is Ellipsis:
        return plan
    nothing = np.zeros(4 + len(cost))
    if not isinstance(plan, Mapping) or set(plan) != set(_KEYS):
        return nothing, f"Your function must return a dictionary with the keys {_names([f'`{key}`' for key in _KEYS])}."
    for key in _KEYS[:3]:
        if not isinstance(plan[key], Mapping) or set(plan[key]) != set(cost):
            return nothing, f"`{key}` must be a dictionary with one entry for each method: {_names(list(cost))}."
    if not isinstance(plan["task seeds"], Mapping) or set(plan["task seeds"]) != set(project.PARTS):
        return nothing, f"`task seeds` must be a dictionary with the keys {_names(list(project.PARTS))}."
    try:
        rules, said = plan_faults(plan, cost, budget)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        return nothing, f"Your plan cannot be read. {type(error).__name__}: {error}"
    if not all(math.isfinite(rule) for rule in rules):
        return nothing, "A number of your plan is not finite."
    steps = _names([f"{count:,} outer steps of {name}" for name, count in plan["outer steps"].items()])
    good = f"**Your plan breaks no rule.** With a budget of {budget:,} gradients it takes {steps}."
    return np.array(rules), " ".join(said) or good


PLAN = Exercise(
    id="16.plan",
    title="A plan that is fair to all",
    difficulty=2,
    minutes=12,
    reference=project.default_plan,
    judge=judge_plan,
    instances=lambda rng: [
        (project.cost_of(project.DEFAULT_METHODS), project.BUDGET),
        ({"FO-B-MAML forward": 15, "iMAML": 16, "FO-MAML": 6, "fine-tuning": 2}, int(rng.integers(3_000, 9_000))),
        ({"a": 7, "b": 31}, 4_001),
    ],
    misconceptions=(
        Misconception(
            "equal steps, set by the dearest",
            _plan(outer_steps=lambda cost, budget: dict.fromkeys(cost, budget // max(cost.values()))),
            "Your plan gives all methods as many outer steps as the dearest one can afford. Equal numbers of steps are "
            "unequal numbers of gradients: a method whose step costs half has half the gradients. How many steps can "
            "each afford?",
        ),
        Misconception(
            "equal steps, set by the cheapest",
            _plan(outer_steps=lambda cost, budget: dict.fromkeys(cost, budget // min(cost.values()))),
            "Your plan gives all methods as many outer steps as the cheapest one can afford, and the others overdraw "
            "the budget.",
        ),
        Misconception(
            "budget taken for steps",
            _plan(outer_steps=lambda cost, budget: dict.fromkeys(cost, budget)),
            "Your plan takes `budget` outer steps with every method. The budget is in gradients; what does a step "
            "cost?",
        ),
        Misconception(
            "budget shared by the seeds",
            _plan(outer_steps=lambda cost, budget: {name: budget // (each * 8) for name, each in cost.items()}),
            "Your plan shares the budget among eight seeds. It is the budget of each run.",
        ),
        Misconception(
            "only the first may clip",
            _plan(
                clipping=lambda cost, budget: {name: (None, 1.0) if i == 0 else (None,) for i, name in enumerate(cost)}
            ),
            "Clipping is tuned for the first method alone. In lesson 07 that one line more took MAML from the fifth "
            "place to the first, so nobody may have it alone.",
        ),
        Misconception(
            "everybody clips",
            _plan(clipping=lambda cost, budget: dict.fromkeys(cost, (1.0,))),
            "In your plan every meta-gradient is clipped. That is equal for all, but it is not tuned: some methods are "
            "better without.",
        ),
        Misconception(
            "nobody clips",
            _plan(clipping=lambda cost, budget: dict.fromkeys(cost, (None,))),
            "In your plan no meta-gradient is ever clipped. That is equal for all, but it hurts some more than others.",
        ),
        Misconception(
            "a wider grid for the favourite",
            _plan(
                outer_rates=lambda cost, budget: {
                    name: (1e-3, 3e-3, 1e-2) if i == 0 else (3e-3, 1e-2) for i, name in enumerate(cost)
                }
            ),
            "The first method chooses from more outer learning rates than the others. Whoever has more tries finds a "
            "lower error, whatever the method is worth.",
        ),
        Misconception(
            "one learning rate",
            _plan(outer_rates=lambda cost, budget: dict.fromkeys(cost, (3e-3,))),
            "There is one outer learning rate for all, so it is not tuned. One that suits one method may not suit "
            "another.",
        ),
        Misconception(
            "tuning seed reported",
            _plan(tuning_seed=lambda cost, budget: 0),
            "The tuning seed is one of the reported seeds. The configuration was chosen because it did well with this "
            "seed, so its run does not belong to the report.",
        ),
        Misconception(
            "three seeds",
            _plan(seeds=lambda cost, budget: (0, 1, 2)),
            "There are three seeds. The factor for an interval of 95 % is 4.3 with three seeds and 2.8 with five, so "
            "hardly any claim would be carried. Take at least five.",
        ),
        Misconception(
            "one seed, eight times",
            _plan(seeds=lambda cost, budget: (0,) * 8),
            "All of your seeds are the same, so all runs would be the same too.",
        ),
        Misconception(
            "validated on the test",
            _plan(task_seeds=lambda cost, budget: {"train": 0, "validation": 1, "test": 1}),
            "Your validation tasks share keys with your test tasks, so they are the same tasks. Whatever is chosen on "
            "them was chosen on the test.",
        ),
        Misconception(
            "trained on the test",
            _plan(task_seeds=lambda cost, budget: {"train": 0, "validation": 1, "test": 0}),
            "Your training tasks share keys with your test tasks. The report would be about tasks that were trained "
            "on.",
        ),
        Misconception(
            "one seed for all tasks",
            _plan(task_seeds=lambda cost, budget: dict.fromkeys(project.PARTS, 0)),
            "All three parts of your tasks share their keys.",
        ),
    ),
    alternatives=(_plan_in_loops, _plan_in_tens),
    hints=(
        "Go through the rules of the section above one by one. Only the first entry needs a calculation: how many "
        "outer steps of each method does the budget pay for?",
        "A dictionary with an entry for each method is `{name: ... for name in cost}`. A quotient with `//` is "
        "rounded down, so that nobody overdraws.",
    ),
    expected="A dictionary with six entries. The check says which rule it breaks.",
)

# 16.interval --------------------------------------------------------------------------------------------------------


def _seed_part(d):
    return d.mean(axis=1).var(ddof=1) / d.shape[0]


def _task_part(d):
    return d.mean(axis=0).var(ddof=1) / d.shape[1]


def _interval(
    seeds=_seed_part,
    tasks=_task_part,
    factors=lambda q_seeds, q_tasks: (q_seeds, q_tasks),
    combined=lambda a, b: np.hypot(a, b),
    ends=lambda mean, half: (mean - half, mean + half),
):
    """Variants of mean ± the root of the sum of two squared half widths."""

    def interval(differences, seed_quantile, task_quantile):
        of_seeds, of_tasks = factors(seed_quantile, task_quantile)
        half = combined(of_seeds * np.sqrt(seeds(differences)), of_tasks * np.sqrt(tasks(differences)))
        return np.array(ends(differences.mean(), half))

    return interval


def _by_mean_squares(differences, seed_quantile, task_quantile):
    """An alternative: the mean squares of an analysis of variance."""
    seeds, tasks = differences.shape
    grand = differences.mean()
    of_seeds = tasks * np.sum((differences.mean(axis=1) - grand) ** 2) / (seeds - 1)
    of_tasks = seeds * np.sum((differences.mean(axis=0) - grand) ** 2) / (tasks - 1)
    half = np.sqrt((seed_quantile**2 * of_seeds + task_quantile**2 * of_tasks) / (seeds * tasks))
    return grand + half * np.array([-1.0, 1.0])


def _by_standard_errors(differences, seed_quantile, task_quantile):
    """An alternative: two half widths, combined as the sides of a right triangle."""
    means = differences.mean(axis=1), differences.mean(axis=0)
    errors = [each.std(ddof=1) / math.sqrt(len(each)) for each in means]
    half = math.hypot(seed_quantile * errors[0], task_quantile * errors[1])
    return np.array([differences.mean() - half, differences.mean() + half])


def _pooled(q=lambda q_seeds, q_tasks: q_tasks):
    """All numbers taken for independent ones."""

    def interval(differences, seed_quantile, task_quantile):
        half = q(seed_quantile, task_quantile) * differences.std(ddof=1) / np.sqrt(differences.size)
        return np.array([differences.mean() - half, differences.mean() + half])

    return interval


def _crossed(rng, seeds, tasks, of_seeds, of_tasks, of_both, mean):
    """Differences with a part that belongs to the seed, one that belongs to the task, and one that belongs to both."""
    return (
        mean
        + of_seeds * rng.normal(size=(seeds, 1))
        + of_tasks * rng.gamma(0.5, 1.0, size=(1, tasks))
        + of_both * rng.normal(size=(seeds, tasks))
    )


INTERVAL = Exercise(
    id="16.interval",
    title="Your line of the derivation: an interval over seeds and tasks",
    difficulty=3,
    minutes=18,
    reference=interval,
    instances=lambda rng: [
        (_crossed(rng, 5, 40, 0.3, 1.5, 0.4, -0.2), 2.78, 2.02),
        (_crossed(rng, 8, 30, 1.0, 0.6, 0.5, 2.0), 2.36, 2.05),
        (_crossed(rng, 6, 6, 0.5, 1.0, 1.0, -3.0), 2.57, 2.57),
        (_crossed(rng, 2, 25, 0.4, 0.5, 0.3, 0.0), 12.7, 2.06),
        (_crossed(rng, 12, 3, 0.2, 0.3, 0.2, 10.0), 2.2, 4.3),
    ],
    misconceptions=(
        Misconception(
            "seeds only",
            _interval(tasks=lambda d: 0.0),
            "Your interval knows of the seeds only. It says what other seeds would have given on *these* test tasks. "
            "Which part of the variance in line 2 is missing?",
        ),
        Misconception(
            "tasks only",
            _interval(seeds=lambda d: 0.0),
            "Your interval knows of the tasks only. It says what other test tasks would have given with *these* runs. "
            "Which part of the variance in line 2 is missing?",
        ),
        Misconception(
            "all numbers independent",
            _pooled(),
            "Your interval treats all numbers of the table as independent. Those of a row share a run, and those of a "
            "column share a task: line 2 divides their variances by $S$ and by $M$, and not by $SM$.",
        ),
        Misconception(
            "all numbers independent, with the other quantile",
            _pooled(lambda q_seeds, q_tasks: q_seeds),
            "Your interval treats all numbers of the table as independent. Those of a row share a run, and those of a "
            "column share a task.",
        ),
        Misconception(
            "divided by the other number",
            _interval(lambda d: d.mean(1).var(ddof=1) / d.shape[1], lambda d: d.mean(0).var(ddof=1) / d.shape[0]),
            "Your variance of the seeds' means is divided by the number of tasks, and that of the tasks' means by the "
            "number of seeds. How many seeds' means are averaged?",
        ),
        Misconception(
            "standard deviations",
            _interval(lambda d: d.mean(1).var(ddof=1), lambda d: d.mean(0).var(ddof=1)),
            "Your variances are those of a single seed's mean and of a single task's mean. The grand mean averages $S$ "
            "of the first and $M$ of the second.",
        ),
        Misconception(
            "divided by n",
            _interval(lambda d: d.mean(1).var() / d.shape[0], lambda d: d.mean(0).var() / d.shape[1]),
            "Your variances are divided by the number of values, which makes them too small: for two seeds by a factor "
            "of two. NumPy's `var` needs `ddof=1` for an unbiased estimate.",
        ),
        Misconception(
            "half widths added",
            _interval(combined=lambda a, b: a + b),
            "Your interval adds two half widths. It is the *variances* of independent parts that add, so the half "
            "widths combine like the sides of a right triangle.",
        ),
        Misconception(
            "no root",
            _interval(combined=lambda a, b: a**2 + b**2),
            "Your half width is a sum of squares. An interval has the unit of the errors.",
        ),
        Misconception(
            "quantiles missing",
            _interval(factors=lambda q_seeds, q_tasks: (1.0, 1.0)),
            "Your half width is one standard error. Where do the quantiles belong?",
        ),
        Misconception(
            "the tasks' quantile for both",
            _interval(factors=lambda q_seeds, q_tasks: (q_tasks, q_tasks)),
            "Your interval takes the quantile of the tasks for the seeds as well. A variance that is estimated from a "
            "few seeds is itself uncertain, and the larger quantile makes up for this.",
        ),
        Misconception(
            "the seeds' quantile for both",
            _interval(factors=lambda q_seeds, q_tasks: (q_seeds, q_seeds)),
            "Your interval takes the quantile of the seeds for the tasks as well.",
        ),
        Misconception(
            "quantiles exchanged",
            _interval(factors=lambda q_seeds, q_tasks: (q_tasks, q_seeds)),
            "Your interval has the quantiles exchanged. Which part of the variance is estimated from the seeds?",
        ),
        Misconception(
            "quantile under the root",
            _interval(factors=lambda q_seeds, q_tasks: (np.sqrt(q_seeds), np.sqrt(q_tasks))),
            "Your half widths have the square roots of the quantiles. If you add squares, square the quantiles too.",
        ),
        Misconception(
            "half width returned",
            _interval(ends=lambda mean, half: (mean, half)),
            "You return the mean and the half width. The exercise asks for both ends.",
        ),
        Misconception(
            "high before low",
            _interval(ends=lambda mean, half: (mean + half, mean - half)),
            "You return the upper end first.",
        ),
    ),
    relatives=(
        ("what an interval of this width around zero gives", _interval(ends=lambda mean, half: (-half, half))),
        ("what half of the width gives", _interval(ends=lambda mean, half: (mean - half / 2, mean + half / 2))),
        ("what the larger one of the two half widths gives, where both belong", _interval(combined=max)),
        (
            "what the median gives in place of the mean",
            lambda d, q_seeds, q_tasks: interval(d, q_seeds, q_tasks) - d.mean() + np.median(d),
        ),
    ),
    alternatives=(_by_mean_squares, _by_standard_errors),
    hints=(
        "The mean of a row is $\\mu + a_s$ plus means of many $b_t$ and $e_{st}$. All rows share the same $b_t$, so "
        "the *variance among rows* knows nothing of them. What does it estimate? Then do the same with columns.",
        "`differences.mean(axis=1)` has one number for each seed. Their variance, divided by how many they are, is the "
        "first part; the tasks give the second one. The half width is the root of a sum of two terms, each the square "
        "of a quantile times a part.",
    ),
    expected="An array of two numbers, the lower end first.",
)

# 16.audit -----------------------------------------------------------------------------------------------------------


class Reported(NamedTuple):
    """What somebody reports of a comparison.

    Attributes:
      train, validation, test: numbers of the tasks in each part.
      cost: gradients of an outer step for each task, of each method.
      outer_steps: of each method.
      budget: gradients that each run may spend for each task.
      clipping_tuned: whether each method had configurations with and without clipping.
      validation_error: shape [methods, configurations], NaN where a run diverged.
      chosen: place of the configuration that each method was reported with.
      tuning_seed: of the runs that choose.
      seeds: of the reported runs.
      difference: an interval for error of A minus error of B; the claim is that A has the lower error on new tasks.
    """

    train: Any
    validation: Any
    test: Any
    cost: Any
    outer_steps: Any
    budget: Any
    clipping_tuned: Any
    validation_error: Any
    chosen: Any
    tuning_seed: Any
    seeds: Any
    difference: Any


def _leaks(r):
    parts = [set(np.asarray(part).tolist()) for part in (r.train, r.validation, r.test)]
    return any(one & other for one, other in itertools.combinations(parts, 2))


def _seeds_wrong(r):
    seeds = np.asarray(r.seeds).tolist()
    return r.tuning_seed in seeds or len(set(seeds)) < max(FEWEST_SEEDS, len(seeds))


def _shares(r):
    return np.asarray(r.cost) * np.asarray(r.outer_steps) / r.budget


def _budget_wrong(r):
    return bool((_shares(r) > 1).any() or (_shares(r) < LEAST_SPENT).any())


def _clipping_wrong(r):
    return not np.all(r.clipping_tuned)


def _choice_wrong(r):
    return bool((np.nanargmin(r.validation_error, axis=1) != r.chosen).any())


def _claim_wrong(r):
    return r.difference[1] >= 0


_RULES = (_leaks, _seeds_wrong, _budget_wrong, _clipping_wrong, _choice_wrong, _claim_wrong)
FAULTS = ("parts share tasks", "seeds", "budget", "clipping", "choice", "claim")


def _audit(order=(0, 1, 2, 3, 4, 5), flip=False, **other):
    """An audit from one rule for each fault; other ones are given by the rule's name."""
    rules = [other.get(rule.__name__.strip("_"), rule) for rule in _RULES]

    def audit(report):
        found = np.array([rules[place](report) for place in order], float)
        return 1 - found if flip else found

    return audit


audit = _audit()


def _by_counting(report):
    """An alternative: numbers are counted, positions compared one by one."""
    every = np.concatenate([np.unique(part) for part in (report.train, report.validation, report.test)])
    spent = [c * s for c, s in zip(report.cost, report.outer_steps, strict=True)]
    numbers = list(report.seeds)
    best = [int(np.argmin(np.where(np.isnan(row), np.inf, row))) for row in report.validation_error]
    return np.array(
        [
            len(np.unique(every)) < len(every),
            numbers.count(report.tuning_seed) > 0 or len(numbers) < 5 or any(numbers.count(n) > 1 for n in numbers),
            max(spent) > report.budget or min(spent) < LEAST_SPENT * report.budget,
            sum(map(bool, report.clipping_tuned)) < len(spent),
            best != list(report.chosen),
            not max(report.difference) < 0,
        ],
        float,
    )


def _report(rng, methods=3, points=6, share=None, **changed):
    """A report without a fault, in which single entries are replaced; `share` = (part, other part)."""
    tasks = rng.permutation(10_000)
    parts = {"train": tasks[:60], "validation": tasks[60:80], "test": tasks[80:120]}
    if share:
        one, other = share
        parts[other][int(rng.integers(1, len(parts[other]) - 1))] = parts[one][
            int(rng.integers(1, len(parts[one]) - 1))
        ]
    cost = rng.integers(4, 40, methods)
    budget = 40 * int(rng.integers(150, 250))
    validation = 1 + rng.random((methods, points))
    chosen = rng.integers(1, points - 1, methods)
    validation[np.arange(methods), chosen] = 0.5 + 0.1 * rng.random(methods)
    validation[np.arange(methods), (chosen + 1) % points] = np.nan
    fine = Reported(
        **parts,
        cost=cost,
        outer_steps=budget // cost,
        budget=budget,
        clipping_tuned=np.ones(methods, bool),
        validation_error=validation,
        chosen=chosen,
        tuning_seed=100,
        seeds=np.arange(FEWEST_SEEDS + int(rng.integers(1, 4))),
        difference=np.array([-0.3, -0.1]) * rng.uniform(0.5, 2.0),
    )
    return fine._replace(**{name: change(fine) if callable(change) else change for name, change in changed.items()})


def _but(values, place, value):
    changed = np.array(values)
    changed[place] = value
    return changed


def _audit_instances(rng):
    def of(**changed):
        return (_report(rng, **changed),)

    exact = {"cost": np.array([10, 9, 20]), "outer_steps": np.array([100, 100, 50]), "budget": 1_000}
    return [
        of(),
        of(share=("train", "test"), methods=4),
        of(share=("validation", "test"), difference=np.array([-0.4, 0.2])),
        of(share=("train", "validation"), seeds=np.arange(FEWEST_SEEDS)),
        of(tuning_seed=3, methods=2),
        of(seeds=np.arange(FEWEST_SEEDS - 1), difference=np.array([-0.4, 0.0])),
        of(seeds=np.array([0, 1, 2, 3, 4, 2])),
        of(seeds=np.array([0, 1, 2, 3, 3])),
        of(**exact),
        of(outer_steps=lambda r: _but(r.outer_steps, -1, 2 * r.outer_steps[-1])),
        of(outer_steps=lambda r: np.full(len(r.cost), r.budget // r.cost.max()), cost=np.array([30, 7, 12])),
        of(clipping_tuned=lambda r: _but(r.clipping_tuned, 1, False)),
        of(clipping_tuned=lambda r: ~_but(r.clipping_tuned, 0, False), difference=np.array([0.1, 0.4])),
        of(chosen=lambda r: _but(r.chosen, -1, 0)),
        of(chosen=lambda r: _but(r.chosen, 0, np.flatnonzero(np.isnan(r.validation_error[0]))[0]), points=9),
        of(share=("train", "test"), tuning_seed=0, difference=np.array([-0.05, 0.6])),
        of(outer_steps=lambda r: _but(r.outer_steps, 0, r.outer_steps[0] // 2), difference=np.array([-3.0, 0.01])),
    ]


AUDIT = Exercise(
    id="16.audit",
    title="Find the faults of a report",
    difficulty=3,
    minutes=20,
    reference=audit,
    instances=_audit_instances,
    misconceptions=(
        Misconception(
            "validation tasks forgotten",
            _audit(leaks=lambda r: bool(set(r.train.tolist()) & set(r.test.tolist()))),
            "Your first fault is found where training and test tasks meet, and nowhere else. The validation tasks must "
            "be apart from both.",
        ),
        Misconception(
            "training tasks forgotten",
            _audit(leaks=lambda r: bool(set(r.validation.tolist()) & set(r.test.tolist()))),
            "Your first fault is found where validation and test tasks meet, and nowhere else. What if a test task was "
            "trained on?",
        ),
        Misconception(
            "only the test is looked at",
            _audit(leaks=lambda r: bool(set(r.test.tolist()) & set([*r.train.tolist(), *r.validation.tolist()]))),
            "Your first fault misses validation tasks that were trained on. A choice on them prefers what has learned "
            "its training tasks by heart.",
        ),
        Misconception(
            "tuning seed only",
            _audit(seeds_wrong=lambda r: r.tuning_seed in r.seeds),
            "Your second fault is found where the tuning seed is reported. There is more that can be wrong with seeds.",
        ),
        Misconception(
            "number of seeds only",
            _audit(seeds_wrong=lambda r: len(r.seeds) < FEWEST_SEEDS),
            "Your second fault is found where there are fewer than five seeds. There is more that can be wrong with "
            "them.",
        ),
        Misconception(
            "repeated seeds counted",
            _audit(seeds_wrong=lambda r: r.tuning_seed in r.seeds or len(r.seeds) < FEWEST_SEEDS),
            "Your second fault misses a seed that occurs twice.",
        ),
        Misconception(
            "five different seeds suffice",
            _audit(seeds_wrong=lambda r: r.tuning_seed in r.seeds or len(set(r.seeds.tolist())) < FEWEST_SEEDS),
            "Your second fault misses a seed that occurs twice where five different ones are left. Each repeated run "
            "makes the interval shorter and tells nothing.",
        ),
        Misconception(
            "steps compared",
            _audit(budget_wrong=lambda r: len(set(r.outer_steps.tolist())) > 1),
            "Your third fault is found where the numbers of outer *steps* differ. They should differ, for steps cost "
            "different numbers of gradients.",
        ),
        Misconception(
            "overdrawn only",
            _audit(budget_wrong=lambda r: bool((_shares(r) > 1).any())),
            "Your third fault misses a method that was given too little.",
        ),
        Misconception(
            "underspent only",
            _audit(budget_wrong=lambda r: bool((_shares(r) < LEAST_SPENT).any())),
            "Your third fault misses a method that was given too much.",
        ),
        Misconception(
            "all must overdraw",
            _audit(budget_wrong=lambda r: bool((_shares(r) > 1).all() or (_shares(r) < LEAST_SPENT).all())),
            "Your third fault is found only if every method breaks the budget. One is enough.",
        ),
        Misconception(
            "somebody clips",
            _audit(clipping_wrong=lambda r: not np.any(r.clipping_tuned)),
            "Your fourth fault is found only if clipping was tuned for no method. It must be tuned for all.",
        ),
        Misconception(
            "diverged run chosen",
            _audit(choice_wrong=lambda r: bool((np.argmin(r.validation_error, axis=1) != r.chosen).any())),
            "Your fifth fault takes a configuration that *diverged* for the best one: NumPy's `argmin` takes NaN for "
            "the smallest number of all.",
        ),
        Misconception(
            "first method only",
            _audit(choice_wrong=lambda r: bool(np.nanargmin(r.validation_error[0]) != r.chosen[0])),
            "Your fifth fault looks at the first method alone.",
        ),
        Misconception(
            "every choice wrong",
            _audit(choice_wrong=lambda r: bool((np.nanargmin(r.validation_error, axis=1) != r.chosen).all())),
            "Your fifth fault is found only if the choice was wrong for every method. One is enough.",
        ),
        Misconception(
            "middle of the interval",
            _audit(claim_wrong=lambda r: r.difference.mean() >= 0),
            "Your sixth fault looks at the middle of the interval. The claim is carried if the *whole* interval says "
            "so.",
        ),
        Misconception(
            "only zero inside",
            _audit(claim_wrong=lambda r: r.difference[0] <= 0 <= r.difference[1]),
            "Your sixth fault is found where zero lies in the interval. If the whole interval is above zero, B is the "
            "better one, and the claim about A is wrong too.",
        ),
        Misconception(
            "wrong direction",
            _audit(claim_wrong=lambda r: r.difference[0] <= 0),
            "Your sixth fault has the sign turned round: A is better if error of A minus error of B is negative.",
        ),
        Misconception(
            "one for fine",
            _audit(flip=True),
            "Your result is 1 where there is *no* fault.",
        ),
        Misconception(
            "order",
            _audit(order=(5, 0, 1, 2, 3, 4)),
            "Your six numbers are right but for their order, in which the claim comes last.",
        ),
    ),
    relatives=(
        (
            "what the audit gives if an end at zero carries the claim",
            _audit(claim_wrong=lambda r: r.difference[1] > 0),
        ),
        (
            "what the audit gives if at least six seeds are asked for",
            _audit(seeds_wrong=lambda r: r.tuning_seed in r.seeds or len(set(r.seeds.tolist())) < max(6, len(r.seeds))),
        ),
        (
            "what the audit gives if nothing less than the whole budget is allowed",
            _audit(budget_wrong=lambda r: bool((_shares(r) != 1).any())),
        ),
    ),
    alternatives=(_by_counting,),
    hints=(
        "One line for each fault, as in `07.diagnose`. For the first: `set(report.train) & set(report.test)` is what "
        "two parts have in common, and there are three pairs of parts.",
        "A seed occurs twice if `len(set(seeds)) < len(seeds)`. What a run spends is its number of outer steps times "
        "the cost of one. `np.nanargmin(..., axis=1)` is the best configuration of each method.",
    ),
    expected="An array of six zeros or ones.",
)

EXERCISES = (PLAN, INTERVAL, AUDIT)

# The interval on recorded runs ---------------------------------------------------------------------------------------


def recorded_errors() -> dict[str, _Array]:
    """Errors on springs of every method, shape [seeds, tasks], from the record."""
    return {name: np.array(errors) for name, errors in project.recorded()["errors"].items()}


def recorded_difference() -> _Array:
    """Error of FO-MAML minus error of Reptile, shape [40, 150]."""
    errors = recorded_errors()
    return errors["FO-MAML"] - errors["Reptile"]


KINDS = {
    "all numbers independent": _pooled(lambda *_: 1.96),  # the normal quantile, for so many numbers
    "tasks only": _interval(seeds=lambda d: 0.0),
    "seeds only": _interval(tasks=lambda d: 0.0),
    "seeds and tasks": interval,
}


def coverage(num_seeds: int, num_tasks: int, draws: int = 1_000) -> dict[str, float]:
    """How often each kind of interval covers the mean of a whole table of differences, from which it sees a part.

    Seeds and tasks are drawn with replacement, so the whole table is a population whose mean is known.
    """
    table = recorded_difference()
    rng, factors = np.random.default_rng(0), (quantile(num_seeds), quantile(num_tasks))
    hits = dict.fromkeys(KINDS, 0)
    for _ in range(draws):
        rows, columns = rng.integers(table.shape[0], size=num_seeds), rng.integers(table.shape[1], size=num_tasks)
        seen = table[np.ix_(rows, columns)]
        for name, kind in KINDS.items():
            low, high = kind(seen, *factors)
            hits[name] += low <= table.mean() <= high
    return {name: float(count) / draws for name, count in hits.items()}


# The learner's project -----------------------------------------------------------------------------------------------


def look(my_task: Callable[..., Task]) -> project.Problem | None:
    """Shows some tasks of the learner's distribution and its floor, and says on a card what is wrong with it.

    Returns:
      The problem, or None if nothing can be measured on it.
    """
    try:
        posed = project.problem(my_task)
    except own.Unusable as error:
        own.told("failed", str(error))
        return None
    if posed.classes:
        _draw_classes(posed)
    else:
        _draw_curves(posed)
    told = "These are tasks, and none of them, number for number, occurs in two parts."
    number = plots.number(posed.floor)
    if posed.classes:
        if posed.labels_have_meaning:
            told += (
                " But their labels do not come in random order: one function, the nearest mean of each label, has an "
                f"error rate of {number}, which is lower than that of guessing. Shuffle the labels of each task, or "
                "say in your report that the floor is only an upper bound."
            )
        else:
            told += (
                " If the labels come in random order, nobody gets below an error rate of "
                f"{number} without a support set."
            )
    else:
        left = f"{100 * posed.floor:.0f}\u00a0%"
        told += f" One function leaves {left} of the targets' variance, so the floor is {number}."
    if _template(my_task):
        told += f" They are still {_template(my_task)}, which we gave you."
    own.show_card("passed", f"**{HEADINGS['passed']}** {told}")
    return posed


def _template(my_task):
    """What a distribution of the lesson's is called; "" if it is the learner's own."""
    key = jax.random.key(0)
    for template, words in zip(project.TEMPLATES, ("the springs", "the patients", "the characters"), strict=True):
        ours, theirs = (jax.tree.leaves(function(key, "train")) for function in (template, my_task))
        if len(ours) == len(theirs) and all(
            np.shape(a) == np.shape(b) and np.allclose(a, b) for a, b in zip(ours, theirs, strict=True)
        ):
            return words
    return ""


def _draw_curves(posed):
    """Ten tasks, each a line through its points, and the best single function."""
    figure, (axes,) = plots.subplots(height=2.9)
    found = posed.curve
    for i in range(10):
        x, y = (np.concatenate([half[k][i, :, 0] for half in posed.parts["train"]]) for k in (0, 1))
        order = np.argsort(x)
        axes.plot(x[order], y[order], color=plots.PALETTE["muted"], linestyle="-", linewidth=0.7, alpha=0.7, marker=".")
    stretches = (np.array_split(values, 48) for values in (found.x, found.best))
    middles = [[stretch.mean() for stretch in each] for each in stretches]
    axes.plot(*middles, color=plots.PALETTE["orange"], linestyle="-", linewidth=2.5)
    plots.label(axes, "x", "y")
    plots.show(
        figure,
        alt="Ten training tasks, the points of each joined by a line, and the mean of all tasks, which is the best "
        "single function.",
        title=f"One function leaves {100 * posed.floor:.0f}\u00a0% of the targets' variance",
        caption="Ten training tasks, the points of each joined by a line. Orange: the best single function.",
    )


def _draw_classes(posed):
    """Two tasks: for each label its support examples, and its query examples."""
    (x, labels), (x_query, labels_query) = posed.parts["train"]
    side = math.isqrt(x.shape[-1])
    if side**2 != x.shape[-1]:
        plots.table(
            {
                part: (len(tasks.query[1]), tasks.support[1].shape[1], tasks.query[1].shape[1])
                for part, tasks in posed.parts.items()
            },
            ("part", "tasks", "support examples", "query examples"),
            title=f"{int(labels.max()) + 1} labels, {x.shape[-1]} features",
        )
        return
    figure, both = plots.subplots(2, height=2.9)
    for i, axes in enumerate(both):
        rows = []
        for label in np.unique(labels[i]):
            pictures = [*x[i][labels[i] == label][:2], *x_query[i][labels_query[i] == label][:3]]
            rows.append(np.concatenate([np.pad(p.reshape(side, side), 1) for p in pictures], axis=1))
        width = min(row.shape[1] for row in rows)
        axes.imshow(np.concatenate([row[:, :width] for row in rows]), cmap="gray_r")
        axes.set(xticks=[], yticks=[])
        axes.set_title("one task" if i == 0 else "another task", loc="left", weight="bold")
    plots.show(
        figure,
        alt="Two tasks. Each row holds pictures of one class, first from the support set and then from the query set.",
        title="What a class is called changes from task to task",
        caption="A row is a class: first its support pictures, then query pictures.",
    )


def study(posed: project.Problem | None, methods: Sequence[str], my_plan: Callable[..., Any]) -> project.Study | None:
    """Runs the learner's plan on the learner's tasks, once it breaks no rule."""
    if posed is None:
        own.told("not yet", "The tasks above need mending first.")
        return None
    unknown = [name for name in methods if name not in comparison.ROWS]
    if unknown or len(set(methods)) < 2 or len(set(methods)) < len(methods):
        own.told("failed", f"`methods` must be at least two different ones of {_names(list(comparison.ROWS))}.")
        return None
    cost = project.cost_of(methods)
    try:
        plan, judged = my_plan(cost, project.BUDGET), judge_plan(my_plan, cost, project.BUDGET)
    except NotImplementedError:
        plan, judged = project.default_plan(cost, project.BUDGET), (np.ones(1), "")
        show_card("not yet", f"**{HEADINGS['not yet']}** Your plan is not written yet, so this run uses ours.")
    if not isinstance(judged, tuple) or not (judged[0] == 1).all():
        told = judged[1] if isinstance(judged, tuple) else "Your plan returns nothing."
        own.told("failed", f"{told} Nothing is trained before that is mended.")
        return None
    try:
        if plan["task seeds"] != project.TASK_SEEDS:
            posed = project.problem(posed.my_task, plan["task seeds"])
        return project.run(posed, tuple(methods), plan)
    except own.Unusable as error:
        own.told("failed", str(error))
        return None


def _of_one(errors):
    """(lower end, mean, upper end) of one method's error."""
    if not np.isfinite(errors).all():
        return (math.nan,) * 3
    low, high = interval(errors, *map(quantile, errors.shape))
    return float(low), float(errors.mean()), float(high)


def report(found: project.Study | None) -> None:
    """Shows a study in one figure and one table."""
    if found is None:
        own.told("not yet", "There is no study to report yet.")
        return
    names, differences = found.methods, pairs(found.errors, found.methods)
    figure, (left, right) = plots.subplots(2, height=0.42 * max(len(names), len(differences)) + 1.5)
    _dots(left, {name: errors.mean(axis=1) for name, errors in zip(names, found.errors, strict=True)})
    for place, errors in enumerate(reversed(found.errors)):
        low, _, high = _of_one(errors)
        left.plot([low, high], [place, place], "-", color=plots.PALETTE["orange"], linewidth=1.5, zorder=1)
    left.axvline(found.problem.floor, color=plots.PALETTE["muted"], linestyle=":")
    left.annotate("floor", (found.problem.floor, len(names) - 0.5), ha="center", color=plots.PALETTE["text"])
    left.set_ylim(-0.6, len(names))
    plots.label(left, "error rate" if found.problem.classes else "share of the variance", "", title="on new tasks")
    right.axvline(0, color=plots.PALETTE["muted"], linewidth=0.8)
    rows = [f"{a} − {b}" for a, b in differences]
    for place, (low, mean, high) in enumerate(reversed(differences.values())):
        apart = low > 0 or high < 0
        color = plots.PALETTE["blue" if apart else "muted"]
        right.plot([low, high], [place, place], "-", color=color, linewidth=2.5)
        right.plot(mean, place, "D" if apart else "o", color=color, markersize=6)
    right.set_yticks(range(len(rows)), rows[::-1])
    right.set_ylim(-0.6, len(rows))
    plots.label(right, "difference of the errors", "", title="differences")
    plots.show(
        figure,
        alt="Left, the error of each method on new tasks: a dot for each seed, a diamond for the mean with its "
        "interval, and the floor as a dotted line. Right, the difference of each two methods with its interval; where "
        "it does not contain zero, the mark is a diamond.",
        title=_finding(differences),
        caption=f"Left: dots are seeds, a diamond the mean with its 95 % interval. Right: {len(rows)} differences, "
        "whose intervals hold all at once with 95 %; a diamond where zero lies outside.",
    )
    plots.table(
        {name: _row(found, number) for number, name in enumerate(names)},
        ("", "spent", "chosen", "validation error", "test error, interval", "largest"),
        title="What was spent, what was chosen, and what came out",
        caption=f"{found.problem.unit.capitalize()}. {found.errors.shape[1]} seeds, {found.errors.shape[2]} tasks; "
        f"the floor is {plots.number(found.problem.floor)}. Spent: outer steps, rounded down to a multiple "
        f"of {project.TICKS}, times gradients of one for each task. Largest: error of a single run on a single task.",
    )


def _row(found, number):
    name = found.methods[number]
    point, kind = found.configurations[name][found.chosen[name]], comparison.ROWS[name].own
    settings = [f"η\u00a0=\u00a0{point.outer_rate:g}", f"{kind}\u00a0=\u00a0{point.own:g}"]
    settings[1:] = settings[1:] if kind != "outer" else []
    settings.append("clipped" if math.isfinite(point.max_norm) else "not clipped")
    low, mean, high = _of_one(found.errors[number])
    test = f"{mean:.3f} ({low:.3f} to {high:.3f})" if math.isfinite(mean) else "a run diverged"
    lowest = f"{found.validation[number][found.chosen[name]]:.3f}"
    largest = plots.number(float(found.errors[number].max()), 2)
    spent = f"{found.outer_steps[name]:,} × {found.cost[name]}"
    return spent, ", ".join(settings), lowest, test, largest


def _finding(differences):
    """What the intervals carry, in one sentence."""
    ahead = [(a, b) if high < 0 else (b, a) for (a, b), (low, _, high) in differences.items() if low > 0 or high < 0]
    if not ahead:
        return "No two methods are separated"
    behind: dict[str, list[str]] = {}
    for better, worse in ahead:
        behind.setdefault(better, []).append(worse)
    return "; ".join(f"{better} is ahead of {_names(worse)}" for better, worse in behind.items())


def _dots(axes, errors):
    """A row for each method: a dot for each seed, a diamond for the mean."""
    for place, values in enumerate(reversed(errors.values())):
        values = values[np.isfinite(values)]
        axes.plot(values, np.full(len(values), place), "o", color=plots.PALETTE["blue"], markersize=4, alpha=0.7)
        if len(values):
            axes.plot(values.mean(), place, "D", color=plots.PALETTE["orange"], markersize=5.5, zorder=3)
    axes.set_yticks(range(len(errors)), list(errors)[::-1])
    axes.margins(x=0.05)


def judge(found: project.Study | None, my_claims: Sequence[tuple[str, str]], audit: Callable[[Reported], Any]) -> str:
    """Says for each claim of the learner's whether the intervals carry it, and what the learner's audit finds.

    Args:
      found: the study.
      my_claims: pairs of names, each saying that the first has the lower error on new tasks; the second may be "floor".
      audit: the learner's.

    Returns:
      "passed", "not yet" or "failed".
    """
    if found is None or not my_claims:
        waits = "There is no study yet." if found is None else "Now write what you claim into `my_claims`."
        return own.told("not yet", waits)
    names = [*found.methods, "floor"]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 and set(pair) <= set(names) and pair[0] != pair[1]
               for pair in my_claims):  # fmt: skip
        return own.told("failed", f"A claim must be a pair of two different names of {_names(names)}.")
    lines, status = [], "passed"
    for better, worse in my_claims:
        low, high = _difference(found, better, worse)
        ends = f"from {plots.number(low, 2)} to {plots.number(high, 2)}"
        said = f"{better} has a lower error than {'the floor' if worse == 'floor' else worse}"
        if better == "floor":
            said = f"The floor is lower than the error of {worse}"
        if high < 0:
            lines.append(f"- ✓ {said}: the difference lies {ends}.")
            continue
        status = "failed"
        if not math.isfinite(low):
            lines.append(f"- ✗ {said}: a run diverged, so there is no interval, and no claim.")
        elif low > 0:
            lines.append(f"- ✗ {said}: the intervals say the opposite, for the difference lies {ends}.")
        else:
            lines.append(
                f"- ✗ {said}: the interval of the difference reaches {ends}, so it contains zero, and the claim is not "
                f"carried.{_why_wide(found, better, worse)}"
            )
    mine = [_reported(found, _difference(found, *pair)) for pair in my_claims]
    try:
        theirs = [np.asarray(audit(each), float) for each in mine]
        agree = all(np.array_equal(a, _by_counting(b)) for a, b in zip(theirs, mine, strict=True))
        told = (
            "Your audit comes to the same result."
            if agree
            else "Your audit comes to another result; has it passed its check?"
        )
    except NotImplementedError:
        told = "Your audit is not written yet."
    except Exception as error:
        told = f"Your audit raised {type(error).__name__}: {error}"
    own.show_card(status, f"**{HEADINGS[status]}** What the intervals say:\n\n" + "\n".join(lines) + f"\n\n{told}")
    return status


def _why_wide(found, better, worse):
    """What makes the interval of a difference wide: a few tasks, the seeds or all tasks; "" if both do their part."""
    errors = [found.errors[found.methods.index(name)] for name in (better, worse) if name != "floor"]
    if max(float(each.max() / each.sum()) for each in (each.mean(axis=0) for each in errors)) >= 0.1:
        largest = plots.number(max(float(each.mean(axis=0).max()) for each in errors), 2)
        return (
            f" A few test tasks with very large errors, up to {largest}, make the interval wide. They belong to the "
            "result, so say in words what happens there."
        )
    difference = errors[0] - errors[1] if len(errors) == 2 else errors[0]
    of_seeds, of_tasks = (
        quantile(number) * np.sqrt(part(difference))
        for number, part in zip(difference.shape, (_seed_part, _task_part), strict=True)
    )
    if of_seeds > 2 * of_tasks:
        return " Nearly all of its width comes from the seeds: look at the dots in the figure."
    if of_tasks > 2 * of_seeds:
        return " Nearly all of its width comes from the tasks, so more seeds would not make it narrow."
    return ""


def _difference(found, better, worse):
    """The interval of the difference of two errors, or of an error and the floor."""
    if "floor" in (better, worse):
        name = worse if better == "floor" else better
        low, _, high = _of_one(found.errors[found.methods.index(name)])
        ends = (low - found.problem.floor, high - found.problem.floor)
        return ends if better != "floor" else (-ends[1], -ends[0])
    every = pairs(found.errors, found.methods)
    if (better, worse) in every:
        return every[better, worse][0], every[better, worse][2]
    low, _, high = every[worse, better]
    return -high, -low


def _reported(found, difference):
    """A study as `16.audit` sees it. A task's number tells its part's seed and its place."""
    plan, names = found.plan, found.methods
    parts = {part: 10**6 * plan["task seeds"][part] + np.arange(number) for part, number in project.PARTS.items()}
    return Reported(
        **parts,
        cost=np.array([found.cost[name] for name in names]),
        outer_steps=np.array([found.outer_steps[name] for name in names]),
        budget=project.BUDGET,
        clipping_tuned=np.array(
            [len({math.isfinite(p.max_norm) for p in found.configurations[n]}) == 2 for n in names]
        ),
        validation_error=np.where(np.isfinite(found.validation), found.validation, np.nan),
        chosen=np.array([found.chosen[name] for name in names]),
        tuning_seed=plan["tuning seed"],
        seeds=np.array(plan["seeds"]),
        difference=np.array(difference),
    )


# Figures ------------------------------------------------------------------------------------------------------------


def chain() -> None:
    """Shows the parts of the project, what each brings forth, and who scores it."""
    d = diagrams.Drawing(680, 344)
    parts = (
        ("tasks", "my_task", "a floor"),
        ("plan", "my_plan", "equal budgets"),
        ("study", "one call", "errors"),
        ("report", "one call", "intervals"),
        ("claims", "my_claims", "what is carried"),
        ("conclusion", "your words", "one paragraph"),
    )
    for i, (name, what, result) in enumerate(parts):
        x, y = 6 + 240 * (i % 3), 40 + 138 * (i // 3)
        yours = i in (0, 1, 4, 5)
        d.box(x, y, 186, 64, diagrams.BLUE if yours else diagrams.LINE)
        d.text(x + 93, y + 28, name, diagrams.BLUE if yours else diagrams.TEXT, bold=True, size=15)
        d.text(x + 93, y + 50, what, diagrams.MUTED)
        d.text(x + 93, y + 88, result, diagrams.TEXT)
        if i % 3 < 2:
            d.arrow((x + 190, y + 32), (x + 236, y + 32))
    d.path([(579, 134), (579, 154), (99, 154)], diagrams.BLUE)
    d.arrow((99, 154), (99, 176))
    d.text(6, 22, "blue: written by you", diagrams.BLUE, "start")
    d.text(6, 314, "scored by the checks: tasks, plan, intervals, claims", diagrams.MUTED, "start")
    d.text(6, 336, "scored by a teacher: the conclusion, and why these tasks", diagrams.MUTED, "start")
    diagrams.show(
        d.svg(),
        "Six boxes in two rows: tasks, plan, study, report, claims, conclusion. Tasks, plan, claims and conclusion are "
        "written by the learner; study and report are one call each. The checks score tasks, plan, intervals and "
        "claims, and a teacher the conclusion and the choice of the tasks.",
        title="The six parts of the project",
        caption="What stands below a box is what comes out of it.",
    )


def costs() -> None:
    """Shows what an outer step of each method costs, how many the budget pays for, and what its direction is."""
    directions = {
        "MAML": "exact for MAML's objective",
        "FO-MAML": "without the factors (I\u00a0−\u00a0αH)",
        "Reptile": "the displacement of the inner loop",
        "iMAML": "exact for the proximal objective, where both solves converge",
        "FO-B-MAML forward": "the proximal objective, up to O(ν)",
        "FO-B-MAML symmetric": "the proximal objective, up to O(ν²)",
        "fine-tuning": "joint training, a baseline",
    }
    cost = project.cost_of(list(directions))
    plots.table(
        {name: (cost[name], f"{project.BUDGET // cost[name]:,}", told) for name, told in directions.items()},
        ("", "gradients of a step", f"outer steps for {project.BUDGET:,} gradients", "direction"),
        title="The cheaper the direction, the more outer steps",
        caption=f"For one task, K = {project.SETTINGS.num_steps} inner steps.",
    )


def table_of_differences() -> None:
    """Shows a part of the recorded table as colours: a row is a seed, a column a test task."""
    shown = recorded_difference()[:8, :40]
    figure, (axes,) = plots.subplots(height=2.6)
    limit = float(np.quantile(np.abs(shown), 0.95))
    axes.imshow(shown, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.grid(False)
    for marker, sign in (("+", 1), ("_", -1)):
        rows, columns = np.nonzero(sign * shown > limit / 4)
        dark = np.abs(shown[rows, columns]) > 0.6 * limit
        for which, color in ((dark, "white"), (~dark, "black")):
            axes.plot(columns[which], rows[which], marker, color=color, markersize=5, linestyle="", label="_")
    axes.set_yticks(range(8), [f"seed {i + 1}" for i in range(8)])
    plots.label(axes, "test tasks", "")
    plots.show(
        figure,
        alt="A table of colours with a row for each of eight seeds and a column for each of forty test tasks. Many "
        "columns have one colour from top to bottom, and some rows differ from the others.",
        title="The numbers of a column share a task, and those of a row share a run",
        caption="Error of FO-MAML minus error of Reptile, for 8 of the 40 recorded seeds and 40 of 150 springs. Brown, "
        "with a minus: FO-MAML is better. Violet, with a plus: Reptile is better. Small differences have no sign.",
    )


def coverages(found: dict[tuple[int, int], dict[str, float]]) -> None:
    """Shows how often each kind of interval covers the true difference."""
    plots.table(
        {name: [f"{100 * of[name]:.0f}\u00a0%" for of in found.values()] for name in KINDS},
        ("interval from", *(f"{seeds} seeds, {tasks} tasks" for seeds, tasks in found)),
        title="An interval covers as often as it promises only if it knows of seeds and of tasks",
        caption="Share of 1,000 draws from 40 recorded seeds and 150 test tasks in which the interval contains the "
        "true difference of FO-MAML and Reptile on springs. All intervals promise 95 %.",
    )


def templates() -> None:
    """Shows the recorded studies of the three task distributions that the lesson gives."""
    _recorded_studies(
        project.recorded()["templates"],
        "The order of the three methods depends on the tasks",
        "Error on 400 new tasks, mean of 8 seeds: a share of the targets' variance, for characters the error rate.",
    )


def control() -> None:
    """Shows the recorded control: MAML with as many outer steps as Reptile."""
    steps = project.recorded()["outer_steps"]
    _recorded_studies(
        {
            f"MAML with {steps['MAML']:,} steps": project.recorded()["templates"]["springs"],
            f"MAML with {steps['Reptile']:,} steps": project.recorded()["control"],
        },
        "With as many outer steps as Reptile, MAML is ahead of both",
        f"Error on 400 new springs, mean of 8 seeds. FO-MAML always takes {steps['FO-MAML']:,} steps, and Reptile "
        f"{steps['Reptile']:,}.",
    )


def _recorded_studies(studies, title, caption):
    rows = {}
    for name, found in studies.items():
        ends = {tuple(key.split(" − ")): value for key, value in found["differences"].items()}
        means = [f"{np.mean(found['errors'][method]):.3f}" for method in project.DEFAULT_METHODS]
        rows[name] = (f"{found['floor']:.2f}", *means, _finding(ends))
    columns = ("", "floor", *project.DEFAULT_METHODS, "what the intervals carry")
    plots.table(rows, columns, title=title, caption=caption)


def opening() -> tuple[str, str]:
    """The picture of the project: three methods on springs, and four intervals for a difference.

    It names no method and counts nothing, so it answers no prediction of the lesson.
    """
    _, (left,) = plots.subplots(width=4.8, height=2.45)
    named = zip("ABC", recorded_errors().values(), strict=True)
    errors = {f"method {letter}": values[:8] for letter, values in named}
    _dots(left, {name: values.mean(axis=1) for name, values in errors.items()})
    for place, values in enumerate(reversed(errors.values())):
        low, _, high = _of_one(values)
        left.plot([low, high], [place, place], "-", color=plots.PALETTE["orange"], linewidth=1.5, zorder=1)
    floor = project.recorded()["floor"]
    left.axvline(floor, color=plots.PALETTE["muted"], linestyle=":")
    beside = {"textcoords": "offset points", "ha": "right", "color": plots.PALETTE["text"]}
    left.annotate("floor without\nadaptation", (floor, 0.8), xytext=(-5, 0), **beside)
    left.set_ylim(-0.6, 2.9)
    plots.label(left, "error on new springs, share of the variance", "")
    _, (right,) = plots.subplots(width=4.8, height=2.45)
    table, rng = recorded_difference(), np.random.default_rng(0)
    seen = table[np.ix_(rng.integers(table.shape[0], size=5), rng.integers(table.shape[1], size=100))]
    found = {name: kind(seen, quantile(5), quantile(100)) for name, kind in KINDS.items()}
    for place, ends in enumerate(reversed(found.values())):
        right.plot(ends, [place, place], "-", color=plots.PALETTE["blue"], linewidth=2.5)
        right.plot(seen.mean(), place, "D", color=plots.PALETTE["blue"], markersize=5.5)
    right.axvline(table.mean(), color=plots.PALETTE["orange"], linestyle="--")
    right.set_yticks(range(4), list(found)[::-1])
    right.set_ylim(-0.6, 3.9)
    plots.label(right, "difference of two methods' errors", "")
    right_ones = [name for name, (low, high) in found.items() if low <= table.mean() <= high]
    return diagrams.opening(
        plots.svg(left.figure),
        plots.svg(right.figure),
        ("Is one method better than another?", "How sure is a difference?"),
        (
            "Three meta-gradients on springs, eight seeds each.",
            "One study, four intervals that promise 95 % (dashed: the truth).",
        ),
        "Left: errors of three methods on new springs, a dot for each of eight seeds and an interval around their "
        "mean; all are far below the floor. Right: four intervals for the same difference, of very different widths. "
        f"The true difference lies in the following ones: {', '.join(right_ones)}.",
    )


PREDICTIONS = (
    Guess(
        "16.ahead",
        "On the springs, under one budget in gradients, which of the three methods has the lowest error on new tasks?",
        ("MAML, whose gradient is exact", "FO-MAML", "Reptile, the cheapest"),
        why="For the same gradients Reptile takes more than three times as many outer steps as MAML. With this small "
        "budget, that is worth more than an exact gradient, as the next section shows by a control.",
        read="A problem to begin with",
    ),
    Guess(
        "16.pooled",
        "Five seeds and 100 test tasks give 500 differences of errors. Somebody treats them as 500 independent numbers "
        "and reports an interval of 95 %. In how many per cent of such reports does the interval contain the true "
        "difference?",
        unit="per cent",
        why="The numbers of a row share a run, and those of a column share a task, so there are far fewer independent "
        "ones than 500, and the interval is far too short.",
        read="How sure is a difference?",
    ),
    Guess(
        "16.images",
        "Now the tasks are characters, five classes with one picture of each. Which of the three methods has the "
        "lowest error rate?",
        ("MAML, whose gradient is exact", "FO-MAML", "Reptile, the cheapest"),
        why="Lesson 12 has found the same order of MAML and FO-MAML. On characters, more outer steps do not make up "
        "for what the cheap directions leave out.",
        read="Which method for which tasks?",
    ),
)

QUIZ = (
    Question(
        "A report says: error 0.31 ± 0.01, from five seeds on the same 200 test tasks; the interval is that of the "
        "five means. What is the interval valid for?",
        (
            "For other seeds and other test tasks",
            "For other seeds on these 200 test tasks",
            "For other test tasks with these five runs",
            "For every new task",
        ),
        1,
        (
            "How would the interval know of other tasks? All five means saw the same ones.",
            "Yes: what other test tasks would have changed is not in it.",
            "These five runs are what varies in the interval, and the tasks are fixed.",
            "An interval is about a mean, and says nothing of a single task.",
        ),
    ),
    Question(
        "You tried four task distributions until your favourite method was ahead on one with an interval that excludes "
        "zero. You report this one. What is wrong?",
        (
            "Nothing, the interval excludes zero",
            "The other three took part in a choice, and belong in the report",
            "Four is too few",
            "The budget was spent four times",
        ),
        1,
        (
            "The chance that at least one of four intervals excludes zero by luck is nearly one in five.",
            "Yes. A choice among results is a choice, whatever was chosen among.",
            "More tries make it worse.",
            "The budget is that of each run.",
        ),
    ),
    Question(
        "Your method A has a lower mean than B, and the interval of the difference contains zero. What do you do?",
        (
            "Add seeds until it does not",
            "Report that A and B are equally good",
            "Report the difference with its interval, and claim nothing",
            "Report A's best seed",
        ),
        2,
        (
            "Whoever stops when the hoped-for result appears has let the result choose the number of seeds. A number "
            "of seeds that is fixed before a new study is another thing.",
            "The interval may be wide: that nothing was found does not show that nothing is there.",
            "Yes. A reader can see how large the difference might be.",
            "The best seed is luck that a new run will not repeat.",
        ),
    ),
)
