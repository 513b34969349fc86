"""The teaching layer: what the cells of a lesson call besides the library itself.

setup()                                    in the first cell: compile for a lesson's many small programs
check("02.meta_gradient", my_function)     is it right, and if not, what is it?
hint("02.meta_gradient")                   one more hint at each call
predict("02.nudge", "How much is left?")   commit before the result is shown; then .reveal(truth)
explore(draw, "what is seen", nu=(0, 1, 0.1))
playground("adapt_a_sine")                 goes on in the browser, without the kernel
quiz("02"), progress()
for rate in bar(rates, "tuning", seconds=12): ...      a wait that can be seen
"""

import importlib
from typing import TYPE_CHECKING, Any

from metalearn.course.records import record as record  # which fixes the place of the progress file at this import

if TYPE_CHECKING:
    from metalearn.course.exercises.checking import check, hint
    from metalearn.course.process import bar, setup
    from metalearn.course.records.overview import export_progress, import_progress, progress
    from metalearn.course.widgets.explorer import explore
    from metalearn.course.widgets.forms import Prediction, predict, quiz
    from metalearn.course.widgets.playgrounds import playground

__all__ = [
    "Prediction",
    "bar",
    "check",
    "explore",
    "export_progress",
    "hint",
    "import_progress",
    "playground",
    "predict",
    "progress",
    "quiz",
    "setup",
]

# Each is imported when it is asked for: the command line and the exercises themselves need neither widgets nor Jupyter.
_MODULES = {
    "exercises.checking": ("check", "hint"),
    "process": ("bar", "setup"),
    "records.overview": ("export_progress", "import_progress", "progress"),
    "widgets.explorer": ("explore",),
    "widgets.forms": ("Prediction", "predict", "quiz"),
    "widgets.playgrounds": ("playground",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            try:
                return getattr(importlib.import_module(f"{__name__}.{module}"), name)
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(_what_to_install(error), name=error.name) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _what_to_install(error: ModuleNotFoundError) -> str:
    """In words, for a module that cannot be found; an error that already says it has no name."""
    if error.name is None:
        return str(error)
    return (
        f"{error.name.partition('.')[0]} is not installed. It comes with the extra `course`: "
        'pip install "metalearn-course[course]", or in a copy of the repository pip install -e ".[course]".'
    )
