"""How long one waits for the first step, and for the second run of a lesson."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import conv4
import jax
import numpy as np
import optax
from measure import Row, seconds
from methods import METHODS, mlp

import metalearn as ml

NUM_STEPS = 5
FIRST_BATCH = """
import time, jax, metalearn as ml
begin = time.perf_counter()
jax.block_until_ready(ml.tasks.Glyphs()(jax.random.key(0), 4))
print(time.perf_counter() - begin)
"""
FIRST_STEP_OF_EPISODES = """
import sys, time, jax, numpy as np, optax, metalearn as ml
from flax import nnx
images = np.zeros((int(sys.argv[1]), 28 * 28), np.float32)
labels = np.arange(len(images)) % 50
params, apply = ml.models.functional(ml.models.MLP((28 * 28, 32, 5), rngs=nnx.Rngs(0)))
learner = ml.meta_learner(ml.fo_maml(ml.losses.cross_entropy(apply), optax.sgd(0.1), 5), optax.adam(1e-3))
begin = time.perf_counter()
tasks = ml.tasks.Episodes(images, labels, 5, 1, 5)
jax.block_until_ready(ml.fit(learner, params, tasks, 1, 4, jax.random.key(0), progress=False).params)
print(time.perf_counter() - begin)
"""
LESSON = Path(__file__).parents[2] / "solutions" / "02_maml.py"
TIMED_LESSON = """
import runpy, sys, jax
seconds = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: seconds.append(duration) if event.endswith("backend_compile_duration") else None
)
runpy.run_path(sys.argv[1])
print(sum(seconds), file=sys.stderr)
"""


def rows(rounds: int) -> list[Row]:
    """The slowest method on each network, then a lesson run twice in processes of their own."""
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    result = [
        slowest_first_step("1-40-40-1", mlp((1, 40, 40, 1), 25, 10), 3, rounds),
        slowest_first_step("Conv4-32", conv4.problem(), 7, rounds),
    ]
    jax.config.update("jax_enable_compilation_cache", cached)

    result.append(first_batch_of_glyphs(rounds))
    result.append(first_step_with_400_megabytes(rounds))
    with tempfile.TemporaryDirectory() as cache:
        first, second = (compile_seconds_of_lesson(cache) for _ in range(2))
    return [
        *result,
        Row(
            "compiling in the second run of lesson 02",
            seconds(second),
            f"in the first: {seconds(first)}",
            second / first,
            ("at most", 0.1),
        ),
    ]


def slowest_first_step(network, problem, limit, rounds):
    """The row of the method whose first step takes longest, everything compiled anew; one round finds it."""
    once = {name: first_step(method, *problem) for name, method in METHODS.items()}
    for name, taken in once.items():
        print(f"  first step of {name}, {network}: {seconds(taken)}", flush=True)
    slowest = max(once, key=once.__getitem__)
    times = [first_step(METHODS[slowest], *problem) for _ in range(rounds)]
    what = f"first step, {network}, slowest of {len(METHODS)}: `{slowest}`"
    return Row(what, seconds(times), f"{limit} s", float(np.median(times)) / limit, ("at most", 1))


def first_step(method, loss, params, tasks):
    """Seconds until the first outer step is done, compiling included."""
    jax.clear_caches()
    learner = ml.meta_learner(method.build(loss, NUM_STEPS), optax.adam(1e-3))
    state = learner.init(params)
    begin = time.perf_counter()
    jax.block_until_ready(jax.jit(learner.step)(state, tasks))
    return time.perf_counter() - begin


def first_batch_of_glyphs(rounds):
    """The row of the first four tasks of `tasks.Glyphs` in processes of their own, with nothing cached."""
    times = [seconds_of_program(FIRST_BATCH) for _ in range(rounds)]
    what = "first batch of `tasks.Glyphs`, after the imports, nothing cached"
    return Row(what, seconds(times), "2 s", float(np.median(times)) / 2, ("at most", 1))


def first_step_with_400_megabytes(rounds):
    """The row of what 400 MB of pictures add to the first step on `tasks.Episodes`, in processes of their own."""
    small, large = 320, 128_000  # pictures: 1 MB and 400 MB
    times = {size: [] for size in (small, large)}
    for _ in range(rounds):
        for size in times:
            times[size].append(seconds_of_program(FIRST_STEP_OF_EPISODES, size))
    longer = float(np.median(np.subtract(times[large], times[small])))
    what = f"first step on `tasks.Episodes` of 400 MB ({seconds(times[large])}): longer than on 1 MB"
    return Row(what, seconds(longer), "2 s", longer / 2, ("at most", 1))


def seconds_of_program(text, *arguments):
    """What a program in a process of its own, with nothing cached, says that it took."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def compile_seconds_of_lesson(cache):
    """Seconds in the compiler, or in reading what it made before, during one run of a lesson in a new process."""
    environment = os.environ | {
        "XDG_CACHE_HOME": cache,
        "METALEARN_PROGRESS": str(Path(cache, "progress.json")),
        "MPLBACKEND": "agg",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    run = subprocess.run(
        [sys.executable, "-c", TIMED_LESSON, str(LESSON)], env=environment, capture_output=True, text=True, check=True
    )
    return float(run.stderr.splitlines()[-1])
