"""The decision guide: which meta-gradient for which problem. Every number of it comes from a record or a formula.

`python -m metalearn.course build` writes it beside the lessons. A sentence that could become wrong with another record
is made from the record too, or `_must` holds it to the record.
"""

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from metalearn import plots, theory
from metalearn.course import syllabus
from metalearn.course.lessons import lesson_10, project
from metalearn.course.lessons.comparison import METHODS, SETTINGS, low_median_high

SINES, DIGITS = "sinusoid", "mnist1d"


def guide() -> str:
    """The page, in Markdown; its links lead to files in the same folder."""
    return (
        "\n\n".join(
            [
                "# Which meta-gradient?",
                "A guide from the measurements of this course. Each answer stands above the table that it was read "
                "from, and below each table stands the lesson in which you find the experiment. The tables are about "
                "small networks and a few task distributions. So take an answer for a first guess, and "
                f"{_link('16', 'compare on your own tasks')}.",
                _in_short(),
                *_budget(),
                *_inner_steps(),
                *_convergence(),
                *_smoothness(),
                *_few_shot(),
                *_support_batch(),
                *_number_of_tasks(),
                "*This page is written by `python -m metalearn.course build`, from the records of the lessons.*",
            ]
        )
        + "\n"
    )


def _in_short() -> str:
    rows = [
        (
            "gradients are scarce",
            "FO-MAML or Reptile; also try MAML: which of them wins depends on the tasks",
            "budget",
        ),
        (
            "gradients are not scarce",
            "MAML with clipping; also try FO-MAML: which of them wins depends on the tasks",
            "budget",
        ),
        ("MAML does not fit into memory", "MAML with rematerialization", "inner steps"),
        ("you cannot compute second derivatives, and FO-MAML's bias is too large", "FO-B-MAML", "inner steps"),
        (
            "you adapt with a proximal term, and inner loops do not converge",
            "FO-B-MAML rather than iMAML",
            "convergence",
        ),
        ("training is unstable", "the same method with a clipped meta-gradient", "smoothness"),
        ("you classify from few examples with a first-order method", "the zeroing trick", "classes"),
        ("support batches are tiny, tasks come back, and data will be plentiful later", "MOML", "support batches"),
        ("there are few training tasks", "any method, with an eye on the gap to new tasks", "training tasks"),
    ]
    return "## In short\n\n" + _table(("if", "then begin with", "see below"), rows)


def _budget() -> Iterable[str]:
    yield "## How large is the budget?"
    studies = dict(project.recorded()["templates"])
    steps = project.recorded()["outer_steps"]
    studies[f"springs, MAML with {steps['Reptile']:,} steps"] = project.recorded()["control"]
    means = {name: {m: np.mean(e) for m, e in found["errors"].items()} for name, found in studies.items()}
    control = list(means)[-1]
    _must(means["springs"]["MAML"] > max(means["springs"]["FO-MAML"], means["springs"]["Reptile"]))
    _must(min(means[control], key=means[control].__getitem__) == "MAML")
    _must(min(means["springs"], key=means["springs"].__getitem__) == "Reptile")
    _must(min(means["characters"], key=means["characters"].__getitem__) == "MAML")
    yield (
        "A cheap direction pays for more outer steps. Three examples, under a small budget of "
        f"{project.BUDGET:,} gradients: the swing of a weight on a spring, the response of a patient to a dose, and "
        "characters to tell apart. Reptile's cheap steps won on springs, and MAML's exact ones on "
        "characters. With as many outer steps as Reptile, MAML was ahead on springs too."
    )
    yield _table(
        ("error on new tasks", *project.DEFAULT_METHODS),
        [(name, *(f"{means[name][method]:.3f}" for method in project.DEFAULT_METHODS)) for name in means],
    )
    yield (f"Mean of eight seeds: a share of the targets' variance, for characters the error rate; {_link('16')}.")
    record = _record("comparison")
    rows, fewest = [], {}
    for name in (SINES, DIGITS):
        of = {m: low_median_high(record[name][m]["curve"])[:, -1] for m in (*METHODS, "fine-tuning")}
        fewest[name] = min((of[method][1], method) for method in METHODS)[1]
        rows.append([f"{each[1]:.3f} ({each[0]:.3f} to {each[2]:.3f})" for each in of.values()])
    yield (
        "With the larger budgets of lesson 07, tuned with equal effort and clipped where that helped, "
        f"{fewest[SINES]} had the lowest median on sine curves, and {fewest[DIGITS]} on digits. Ranges that overlap do "
        "not separate two methods by themselves."
    )
    names = (*METHODS, "fine-tuning")
    yield _table(
        ("error on new tasks", "sine curves", "digits"), [(m, rows[0][i], rows[1][i]) for i, m in enumerate(names)]
    )
    yield (
        f"Median, lowest and highest of five seeds: squared error on sine curves, error rate on digits; {_link('07')}."
    )


_COSTED: dict[str, tuple[str, dict[str, Any]]] = {
    "MAML": ("maml", {}),
    "MAML, rematerialized": ("maml with remat", {}),
    "FO-MAML": ("fo_maml", {}),
    "Reptile": ("reptile", {}),
    "iMAML": ("imaml", {"cg_steps": SETTINGS.cg_steps}),
    "FO-B-MAML forward": ("fo_b_maml", {"estimator": "forward"}),
    "FO-B-MAML symmetric": ("fo_b_maml", {"estimator": "symmetric"}),
}


def _inner_steps() -> Iterable[str]:
    yield "## How many inner steps, and how much memory?"
    counts = (1, 10, 50)
    places = [SETTINGS.memory_steps.index(k) for k in counts]
    memory = _record("comparison")["memory_bytes"]
    grown = {name: memory[name][places[2]] / memory[name][places[1]] for name in _COSTED}
    _must(all((factor > 1) == name.startswith("MAML") for name, factor in grown.items()))
    yield (
        "All methods cost more with more inner steps K. Of those below, only MAML's memory goes on growing: from ten "
        f"steps to fifty by a factor of {grown['MAML']:.1f}, and with rematerialization by "
        f"{grown['MAML, rematerialized']:.1f}. FO-B-MAML needs no second derivatives, and it is not cheap in gradients."
    )

    def gradients(name, num_steps):
        method, options = _COSTED[name]
        return theory.cost(method, num_params=1, num_steps=num_steps, **options).gradients

    yield _table(
        ("", *(f"gradients, K = {k}" for k in counts), *(f"memory, K = {k}" for k in counts)),
        [
            (
                name,
                *(f"{gradients(name, k):.0f}" for k in counts),
                *(f"{memory[name][place] / 1e3:,.0f} kB" for place in places),
            )
            for name in _COSTED
        ],
    )
    yield (
        "Gradients for one task by `theory.cost`, which for iMAML counts the residual of the initial guess too, two "
        f"gradients more than the budgets of the lessons. Memory of a small network as it was compiled; {_link('07')}."
    )


def _convergence() -> Iterable[str]:
    yield "## Do the inner loops converge?"
    record = _record("comparison")
    rows = []
    for name in ("iMAML", "iMAML, K = 100", "FO-B-MAML forward", "FO-B-MAML symmetric"):
        cells = []
        for task in (SINES, DIGITS):
            entry = record[task][name]
            left, error = np.median(entry["inner_gradient_left"]), low_median_high(entry["curve"])[1, -1]
            cells += [f"{100 * left:.1f}\u00a0%", f"{error:.3f}"]
        rows.append((name, *cells))
    left = {
        name: {task: np.median(record[task][name]["inner_gradient_left"]) for task in (SINES, DIGITS)}
        for name in (*METHODS, "iMAML, K = 100")
    }
    ends = {name: {t: low_median_high(record[t][name]["curve"])[1, -1] for t in (SINES, DIGITS)} for name in left}
    forward, short, long = "FO-B-MAML forward", "iMAML", "iMAML, K = 100"
    _must(left[short][SINES] > 0.1 and ends[short][SINES] > 3 * ends[forward][SINES])
    _must(left[forward][DIGITS] > 0.1 and ends[forward][DIGITS] == min(ends[name][DIGITS] for name in METHODS))
    _must(left[long][DIGITS] < 0.05 and ends[long][DIGITS] > ends[short][DIGITS])
    yield (
        "iMAML and FO-B-MAML differentiate a minimum. On sine curves iMAML's inner loops were far from theirs, and its "
        "error was several times that of FO-B-MAML. FO-B-MAML may do well with such inner loops: on digits they were "
        "as far from converged, and its forward form had the lowest error. (On quadratic tasks it can be far off "
        "then, as the page on the systems shows.) Longer inner loops are not the cure under a "
        "budget. With ten times as many steps iMAML's inner loops converged on digits, and its error did not fall. "
        "`evaluate.convergence` measures what is left on your tasks."
    )
    yield _table(
        ("", "gradient left, sines", "error, sines", "gradient left, digits", "error, digits"),
        rows,
    )
    yield (
        "Gradient left: the norm of the inner gradient at the end, relative to the first one, median of five seeds; "
        f"{_link('07')}."
    )


def _smoothness() -> Iterable[str]:
    yield "## Is the meta-objective smooth?"
    record = _record("comparison")
    lowest = {
        name: {m: [np.nanmin(np.array(record[name][m]["validation"], float)[..., k]) for k in (0, 1)] for m in METHODS}
        for name in (SINES, DIGITS)
    }
    gain = {m: pair[0] / pair[1] for m, pair in lowest[SINES].items()}
    most = [name for name, factor in gain.items() if factor > 2]
    _must(set(most) == {"MAML", "iMAML"})
    yield (
        "The curvature of the meta-objective grows with its gradient, so clip the meta-gradient, or let tuning decide "
        f"whether to. On sine curves this divided the lowest validation errors of {' and '.join(most)} by "
        f"{' and '.join(f'{gain[name]:.1f}' for name in most)}. On digits it hardly mattered."
    )
    yield _table(
        ("lowest validation error", "sines, not clipped", "sines, clipped", "digits, not clipped", "digits, clipped"),
        [(m, *(f"{value:.3f}" for name in (SINES, DIGITS) for value in lowest[name][m])) for m in METHODS],
    )
    yield f"{_link('07')}; why it is so is the subject of {_link('06')}."


def _few_shot() -> Iterable[str]:
    yield "## Are there classes with one or a few examples?"
    rows = _record("few_shot")["rows"]
    one = {name: {kind: found["test"]["1"] for kind, found in kinds.items()} for name, kinds in rows.items()}
    gain = {name: kinds["zeroing"]["mean"] - kinds["plain"]["mean"] for name, kinds in one.items() if "plain" in kinds}
    _must(gain["FO-MAML"] > 5 * gain["MAML"] > 0)
    yield (
        "The zeroing trick sets the last layer to zero before adapting, at training and at test. With it FO-MAML read "
        f"the new characters right in {100 * gain['FO-MAML']:.0f} more of 100 cases, and came close to MAML at less "
        "than half of the cost."
    )

    def cell(found):
        return (
            f"{100 * found['mean']:.1f} ± {100 * found['half_width']:.1f}\u00a0%".replace(" ± ", "\u00a0±\u00a0")
            if found
            else "–"
        )

    costs = {name: kinds["zeroing"].get("gradients") for name, kinds in rows.items()}
    yield _table(
        ("accuracy, one example a class", "gradients per step", "plain", "with the zeroing trick"),
        [(name, costs[name] or "–", cell(k.get("plain")), cell(k.get("zeroing"))) for name, k in one.items()],
    )
    yield f"Five new characters, three seeds; {_link('12')}."


def _support_batch() -> Iterable[str]:
    yield "## How large are support batches?"
    sizes, rates = (1, 4, 16), (1.0, 0.3, 0.1)
    yield (
        "In lesson 10 a plan for a bus adapts to each stop. With n noisy support examples, MAML ends at a distance "
        "proportional to 1/n from the optimum for exact adaptation. "
        "A memory of rate b divides it by (2 − b)/b. If a new task will have "
        "only n examples too, this is not a bias, and MAML is right."
    )
    yield _table(
        ("distance of the plan from the optimum", *(f"n = {n}" for n in sizes)),
        [
            ("MAML" if rate == 1 else f"MOML, b = {rate}", *(_number(lesson_10.floor(n, rate)) for n in sizes))
            for rate in rates
        ],
    )
    yield f"In minutes, by the formula that is derived and measured in {_link('10')}."


def _number_of_tasks() -> Iterable[str]:
    yield "## How many training tasks are there?"
    counts = (10, 100, 1_000)
    yield (
        "Trained on M tasks, joint training overfits to them: if it finds their average, its squared error is higher "
        "on new tasks than on the training tasks by 2/M of the floor, on average. Meta-trained initializations overfit "
        "to few tasks as well, for which this course has no formula."
    )
    yield _table(
        ("training tasks M", *(f"{m:,}" for m in counts)),
        [("gap as a share of the floor", *(f"{200 / m:g} %" for m in counts))],
    )
    yield f"By the formula of {_link('01')}."


@functools.cache
def _record(name: str) -> Any:
    """What a lesson's long runs found; it stands beside the lesson's module."""
    return json.loads(project.RECORD.with_name(f"{name}.json").read_text("utf-8"))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _number(value: Any) -> str:
    return plots.number(float(value))


def _link(number: str, text: str = "") -> str:
    """A lesson by its number; without a link where the course does not have it."""
    lesson = syllabus.find(number)
    return f"[{text or f'lesson {number}'}]({lesson.stem}.ipynb)" if lesson else text or f"lesson {number}"


def _must(holds: Any) -> None:
    """Stops the build where a sentence of the page is no longer what the records say."""
    if not holds:
        raise ValueError("a sentence of the decision guide does not agree with the records any more")
