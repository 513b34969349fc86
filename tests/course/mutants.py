"""Solutions read from the lessons' sources, and small mechanical mistakes made in them."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from metalearn.course.exercises import grading
from metalearn.course.exercises.exercise import Exercise
from metalearn.course.exercises.grading import grade

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SOURCES = Path(__file__).parents[2] / "solutions"


@dataclass(frozen=True)
class Solution:
    """The cell of an exercise as its author solved it.

    Attributes:
      name: the function that the lesson hands to `check`.
      cell: source of the cell, with the markers around the part that a learner writes.
      given: source of the cells that the lesson imports in, and of the lesson's own functions that the cell uses.
    """

    name: str
    cell: str
    given: str

    def function(self) -> Callable[..., Any]:
        return self.define(compile(self.cell, "<solution>", "exec"))

    def define(self, code: Any) -> Callable[..., Any]:
        """The function, from the compiled cell or a mutant of it."""
        names: dict[str, Any] = {}
        exec(self.given, names)
        exec(code, names)
        return names[self.name]

    def written_lines(self) -> range:
        """Numbers of the lines between the markers."""
        lines = [line.strip() for line in self.cell.splitlines()]
        return range(lines.index(BEGIN) + 2, lines.index(END) + 1)


def read_solutions(source: str) -> dict[str, Solution]:
    """The solutions in a lesson's py:percent source, by exercise id."""
    cells = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)[1:]
    cells = [(head, body) for head, body in zip(cells[::2], cells[1::2], strict=True) if "[markdown]" not in head]
    imports = "\n".join(body for head, body in cells if '"imports"' in head)
    helpers = {
        node.name: ast.unparse(node)
        for head, body in cells
        if "exercise=" not in head
        for node in ast.parse(body).body
        if isinstance(node, ast.FunctionDef)
    }
    solutions = {}
    for head, body in cells:
        if match := re.search(r'exercise="(.+?)"', head):
            checked = re.findall(rf'check\(\s*"{re.escape(match[1])}",\s*(\w+)', source)
            assert checked, f"no check of {match[1]}"
            used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
            given = "\n".join([imports, *(definition for function, definition in helpers.items() if function in used)])
            solutions[match[1]] = Solution(checked[-1], body, given)  # a lesson may ask the check before
    return solutions


def all_solutions() -> dict[str, Solution]:
    """The solutions of every lesson, by exercise id."""
    return {
        id: solution
        for path in sorted(SOURCES.glob("[0-9][0-9]_*.py"))
        for id, solution in read_solutions(path.read_text(encoding="utf-8")).items()
    }


def mutants(solution: Solution) -> Iterator[tuple[str, Any]]:
    """Every variant of a solution with one small mistake: the changed expression in words, and the compiled cell."""
    tree = ast.parse(solution.cell)
    written = solution.written_lines()
    for parent in ast.walk(tree):
        for container, key, child in _slots(parent):
            if getattr(child, "lineno", 0) not in written:
                continue
            for variant in _variants(child):
                container[key] = ast.copy_location(variant, child)
                description = f"line {child.lineno}: {ast.unparse(child)}  ->  {ast.unparse(variant)}"
                yield description, compile(ast.fix_missing_locations(tree), "<mutant>", "exec")
                container[key] = child


def _slots(parent: ast.AST) -> Iterator[tuple[Any, Any, ast.AST]]:
    """The places of the children of a node, each as a container and a key to assign to."""
    for field, value in ast.iter_fields(parent):
        if isinstance(value, list):
            yield from ((value, number, child) for number, child in enumerate(value) if isinstance(child, ast.AST))
        elif isinstance(value, ast.AST):
            yield vars(parent), field, value


OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
}
COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """What a slip of the hand makes of one expression."""
    match node:
        case ast.BinOp(left, op, right):
            yield from (ast.BinOp(left, other(), right) for other in OPERATORS.get(type(op), ()))
            yield left
            if not isinstance(op, ast.Div | ast.Pow):
                yield right
        case ast.UnaryOp(ast.USub(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield from (ast.Constant(other) for other in {value + 1, value - 1, 0} - {value})
        case ast.Compare(left, [op], right):
            yield from (ast.Compare(left, [other()], right) for other in COMPARISONS.get(type(op), ()))
        case ast.Slice(lower, upper, step):
            if lower or upper:
                yield ast.Slice(None, None, step)
        case ast.Call(function, arguments, keywords):
            if isinstance(function, ast.Name) and function.id == "range":
                for number, bound in enumerate(arguments):
                    for op in (ast.Add(), ast.Sub()):
                        other = ast.BinOp(bound, op, ast.Constant(1))
                        yield ast.Call(function, _with(arguments, number, other), keywords)
            for number in range(len(arguments)):
                yield ast.Call(function, _with(arguments, number), keywords)
            for first, second in zip(range(len(arguments)), range(1, len(arguments)), strict=False):
                swapped = _with(_with(arguments, first, arguments[second]), second, arguments[first])
                yield ast.Call(function, swapped, keywords)
            for number in range(len(keywords)):
                yield ast.Call(function, arguments, _with(keywords, number))


def _with(items: list, number: int, *replacement: Any) -> list:
    """A copy of a list with one item replaced, or dropped if there is no replacement."""
    return [*items[:number], *replacement, *items[number + 1 :]]


@dataclass(frozen=True)
class Score:
    """How many mistakes a check finds.

    Attributes:
      rejected: mutants that the check rejects, because of what they return, with every seed.
      escaped: descriptions of mutants that it accepts with its ordinary seed, although other seeds show that they are
        wrong.
      unseen: descriptions of mutants that it rejects with its ordinary seed and accepts with another one, which is
        named: the instances of that seed are blind.
      harmless: number of mutants that give the same results on all seeds; they do not count.
      broken: number of mutants that raise at once; any check would find them, so they do not count.
    """

    rejected: int = 0
    escaped: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    harmless: int = 0
    broken: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(*(getattr(self, field) + getattr(other, field) for field in self.__dataclass_fields__))

    @property
    def counted(self) -> int:
        return self.rejected + len(self.escaped) + len(self.unseen)

    @property
    def fraction(self) -> float:
        return self.rejected / self.counted if self.counted else 1.0

    def __str__(self) -> str:
        return (
            f"{self.rejected} of {self.counted} mutants rejected ({self.fraction:.1%}), "
            f"{self.harmless} harmless and {self.broken} that raise not counted"
            + "".join(f"\n  escaped: {description}" for description in self.escaped)
            + "".join(f"\n  unseen: {description}" for description in self.unseen)
        )


def mutation_score(
    exercise: Exercise, solution: Solution, seeds: Iterable[int], telling_seeds: Iterable[int] = range(1000, 1006)
) -> Score:
    """Judge the check of an exercise by the mutants of its solution.

    Args:
      exercise: the check.
      solution: what the mutants are made from.
      seeds: each must reject what the ordinary seed, 0, rejects.
      telling_seeds: draw the instances that tell a harmless mutant from an escaped one.
    """
    score = Score()
    for description, code in mutants(solution):
        name = f"{exercise.id} {description}"
        try:
            function = solution.define(code)
        except Exception:  # the mistake is in a decorator or a default
            score += Score(broken=1)
            continue
        found = grade(exercise, _until_it_differs(exercise, function, 0), timeout=LIMIT, explain=False)
        if "raised an error on instance 1 of" in found.message and _Differs.__name__ not in found.message:
            score += Score(broken=1)
        elif "did not finish" in found.message:  # it would not with another seed
            score += Score(rejected=1)
        elif found.status != "passed":
            blind = [seed for seed in seeds if _accepts(exercise, function, seed)]
            score += Score(unseen=(f"{name} (seeds {blind})",)) if blind else Score(rejected=1)
        elif not all(_accepts(exercise, function, seed) for seed in telling_seeds):
            score += Score(escaped=(name,))
        else:
            score += Score(harmless=1)
    return score


LIMIT = 3.0  # seconds for an instance


def _accepts(exercise: Exercise, function: Callable[..., Any], seed: int) -> bool:
    watched = _until_it_differs(exercise, function, seed)
    return grade(exercise, watched, seed, timeout=LIMIT, explain=False).status == "passed"


class _Differs(Exception):
    """A result is wrong, so that the other instances need not be computed."""


def _until_it_differs(exercise: Exercise, function: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """The function, but it raises at the first instance with another result than the reference."""
    if exercise.judge:
        return function
    targets = iter(right_results(exercise, seed)[0])  # computed here: the time limit is the mutant's alone

    def watched(*arguments: Any) -> Any:
        result = function(*arguments)
        given, target = grading._call(lambda: result, ()), next(targets)
        if not grading._same(exercise, target, grading._without_names(target, given)):
            raise _Differs
        return result

    return watched


def right_results(exercise: Exercise, seed: int) -> tuple[list[Any], list[tuple]]:
    """What the reference returns on each instance, and the instances."""
    with jax.enable_x64(True):
        instances = grading._instances(exercise, seed)
        return [grading._answer(exercise, seed, exercise.reference, n) for n in range(len(instances))], instances
