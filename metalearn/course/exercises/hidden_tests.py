"""The hidden test of a classroom: what nbgrader's kernel runs below an exercise's `check`.

nbgrader shows hidden tests in the feedback (its issue 1363), so their cells hold no secret: a call of
`hidden_test`, and nothing else. The instances are drawn from a secret that the grader's side puts into the
environment; the `nbgrader_config.py` of a release does. What a function prints meanwhile is not shown.
"""

import contextlib
import hmac
import os
import sys
from collections.abc import Iterator
from typing import Any

from metalearn.course.exercises import exercise as exercises
from metalearn.course.exercises.grading import grade

VARIABLE = "METALEARN_HIDDEN_SEED"
STATUS = {"not yet": "nothing to judge yet", "failed": "not right on the hidden instances"}


def hidden_test(exercise_id: str, function: Any) -> None:
    """Judge a function on instances that the learner has not seen.

    Args:
      exercise_id: such as "02.meta_gradient".
      function: the learner's.

    Raises:
      AssertionError: if it is not right. The message gives the status, and names the misconception if one fits and
        the arguments that the function changes; it tells nothing about the instances.
      RuntimeError: if the environment holds no secret.
    """
    complaint = _complaint(exercise_id, function)
    if complaint:  # the only local value: IPython can be told to print those of every frame
        raise AssertionError(complaint)


def hidden_seed(secret: str, exercise_id: str) -> int:
    """The seed of an exercise's hidden instances. Who knows one of them knows nothing of the others."""
    return int.from_bytes(hmac.digest(secret.encode(), exercise_id.encode(), "sha256")[:8])


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What a function prints, displays or writes to the process's outputs goes nowhere: it may print its arguments."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
            if "IPython" in sys.modules:  # `display` is IPython's
                from IPython.utils.capture import capture_output

                stack.enter_context(capture_output(stdout=False, stderr=False))
            yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _complaint(exercise_id: str, function: Any) -> str | None:
    exercise, secret = exercises.find(exercise_id), os.environ.get(VARIABLE)
    if not secret:
        raise RuntimeError(
            f"the environment variable {VARIABLE} is not set, so there are no hidden instances. Run nbgrader in the "
            "folder of the release: its nbgrader_config.py sets it."
        )
    with _unheard():
        verdict = grade(exercise, function, hidden_seed(secret, exercise_id), explain=False)
    if verdict.status == "passed":
        return None
    status = "not accepted" if verdict.message == verdict.changed else STATUS[verdict.status]
    diagnosis = verdict.message if verdict.misconception else verdict.changed
    return f"{exercise_id}: {status}." + (f" {diagnosis}" if diagnosis else "")
