"""What a method costs, attached to the method: read by its docstring, by `theory.cost` and by the documentation."""

import math
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Factory = TypeVar("Factory", bound=Callable[..., Any])

COSTS: dict[str, "MethodCost"] = {}
"""The cost of every method that is counted in gradients, by the name of the method or of its variant."""

SENTENCES: dict[str, str] = {}
"""What is said of the cost of every method, by the same names: in its docstring and on the page of systems."""


class MethodCost(NamedTuple):
    """What one task costs. Formulas are Python expressions in K, the number of inner steps, and a method's own symbols.

    Attributes:
      gradients: gradients of the loss on one set of examples.
      products: Hessian-vector products, each of which costs about two gradients.
      losses: values of the loss, each of which costs about a third of a gradient.
      copies: copies of the parameters that are in memory at once.
      outputs: how often the outputs of all layers for one set of examples are in memory at once.
      where: what the method's own symbols mean, if it has any.
    """

    gradients: str
    products: str
    losses: int
    copies: str
    outputs: str
    where: str

    def sentence(self, subject: str = "A task") -> str:
        """The cost in words."""
        parts = [f"{_readable(self.gradients)} gradients"]
        if self.products == "1":
            parts.append("a Hessian-vector product")
        elif self.products != "0":
            parts.append(f"{_readable(self.products)} Hessian-vector products")
        if self.losses:
            parts.append("a value of the loss")
        text = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
        where = f", where {self.where}" if self.where else ""
        return (
            f"{subject} costs {text}, and the memory of {_copies(self.copies)} of the parameters and of "
            f"{_copies(self.outputs)} of the outputs of the layers{where}."
        )

    def evaluate(self, **symbols: float) -> tuple[float, float, float]:
        """(Cost in gradients, copies of the parameters, copies of the outputs) for K and the method's own symbols."""

        def value(formula: str) -> float:
            return eval(formula, {"__builtins__": {}, "sqrt": math.sqrt}, symbols)

        return (
            value(self.gradients) + 2 * value(self.products) + self.losses / 3,
            value(self.copies),
            value(self.outputs),
        )


def costs(
    gradients: str,
    products: str = "0",
    losses: int = 0,
    *,
    copies: str,
    outputs: str,
    where: str = "",
    variant: str = "",
) -> Callable[[Factory], Factory]:
    """Attaches a cost to the factory of a method, and writes it into its docstring before the arguments.

    Args:
      gradients: as in MethodCost, and likewise the others.
      products: Hessian-vector products.
      losses: values of the loss.
      copies: copies of the parameters.
      outputs: copies of the outputs of the layers.
      where: meaning of the symbols other than K.
      variant: for instance "with remat"; its cost is known as "maml with remat", beside that of "maml".
    """
    cost = MethodCost(gradients, products, losses, copies, outputs, where)
    sentence = cost.sentence(f"With `{variant.removeprefix('with ')}` a task" if variant else "A task")

    def attach(factory: Factory) -> Factory:
        name = f"{factory.__name__} {variant}".strip()
        COSTS[name] = cost
        return _say(factory, name, sentence)

    return attach


def costs_in_words(sentence: str) -> Callable[[Factory], Factory]:
    """Attaches to a method a cost that is not counted in gradients of one task, as a whole sentence."""
    return lambda factory: _say(factory, factory.__name__, sentence)


def _say(factory: Factory, name: str, sentence: str) -> Factory:
    SENTENCES[name] = sentence
    begin, args, rest = (factory.__doc__ or "").partition("\n\n    Args:")
    lines = textwrap.wrap(sentence, 116, break_on_hyphens=False)
    factory.__doc__ = "\n    ".join([f"{begin}\n", *lines]) + args + rest
    return factory


def _copies(formula: str) -> str:
    return "a copy" if formula == "1" else f"{_readable(formula)} copies"


def _readable(formula: str) -> str:
    return formula.replace("*", " ").replace("sqrt(K)", "√K")
