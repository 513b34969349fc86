"""The programs behind lesson 15: what is measured for its record, and the runs that it starts as other processes.

    python -m metalearn.course.lessons.scale record            measures every method, minutes of a core
    python -m metalearn.course.lessons.scale train DIRECTORY   trains with checkpoints, and says after each call how far
    python -m metalearn.course.lessons.scale share             trains on all devices that JAX finds

The lesson starts the last two by `started`, with as many simulated devices as it likes, and kills one of them.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import metalearn as ml
from metalearn.course.process import bar, setup
from metalearn.task import Loss, MetaGradient, Params, Task
from metalearn.training import checkpoints
from metalearn.training.fit import FitResult

RECORD = Path(__file__).with_name("scale.json")
SGD = optax.sgd(0.01)
CG_STEPS = 5


# --- what is measured --------------------------------------------------------------------------------------------


class Method(NamedTuple):
    """A meta-gradient, and what `theory.cost` must know of it.

    Attributes:
      build: (loss, K) -> the meta-gradient.
      name: of the method, as `theory.cost` takes it.
      options: of `theory.cost`, likewise.
    """

    build: Callable[[Loss, int], MetaGradient]
    name: str
    options: dict[str, Any]


METHODS = {
    "MAML": Method(lambda loss, k: ml.maml(loss, SGD, k), "maml", {}),
    "MAML, remat": Method(lambda loss, k: ml.maml(loss, SGD, k, remat=True), "maml with remat", {}),
    "FO-MAML": Method(lambda loss, k: ml.fo_maml(loss, SGD, k), "fo_maml", {}),
    "Reptile": Method(lambda loss, k: ml.reptile(loss, SGD, k), "reptile", {}),
    "HF-MAML": Method(lambda loss, k: ml.hf_maml(loss, SGD, k, 0.01), "hf_maml", {}),
    "iMAML": Method(lambda loss, k: ml.imaml(loss, SGD, k, 1.0, CG_STEPS), "imaml", {"cg_steps": CG_STEPS}),
    "FO-B-MAML forward": Method(
        lambda loss, k: ml.fo_b_maml(loss, SGD, k, 1.0, 0.05, "forward"), "fo_b_maml", {"estimator": "forward"}
    ),
    "FO-B-MAML symmetric": Method(
        lambda loss, k: ml.fo_b_maml(loss, SGD, k, 1.0, 0.05, "symmetric"), "fo_b_maml", {"estimator": "symmetric"}
    ),
    "FO-MuML": Method(lambda loss, k: ml.fo_muml(loss, 0.01, k), "fo_muml", {}),
    "A-MAML": Method(lambda loss, k: ml.a_maml(loss, 0.01 * k, k), "a_maml", {}),
}
NETWORKS = {  # widths, examples: where layer outputs weigh more, where parameters do, and in between
    "outputs": ((1, 64, 64, 64, 1), 1000),
    "both": ((1, 128, 128, 1), 400),
    "parameters": ((1, 512, 512, 1), 10),
}
STEPS = (4, 16, 64)


class Sizes(NamedTuple):
    """What the cost depends on besides the method, by the names of `theory.cost`."""

    num_params: int
    num_outputs: int
    num_examples: int


def problem(widths: Sequence[int], num_examples: int) -> tuple[Loss, Params, Task, Sizes]:
    """(Loss, parameters, a task, their sizes) of a dense network on sine curves."""
    params, apply = ml.models.functional(ml.models.MLP(tuple(widths), rngs=nnx.Rngs(0)))
    tasks = ml.tasks.Sinusoid(num_examples, num_examples)(jax.random.key(0), 1)
    sizes = Sizes(sum(leaf.size for leaf in jax.tree.leaves(params)), sum(widths[1:]), num_examples)
    return ml.losses.mean_squared_error(apply), params, jax.tree.map(lambda leaf: leaf[0], tasks), sizes


def predicted(method: Method, num_steps: int, sizes: Sizes) -> ml.theory.Cost:
    """The cost on paper."""
    return ml.theory.cost(method.name, num_steps=num_steps, **sizes._asdict(), **method.options)


def memory(program: Any) -> int:
    """Bytes of temporary arrays on one device, which the compiler knows before the program has run."""
    return program.memory_analysis().temp_size_in_bytes


def inner_steps(loss: Loss, num_steps: int, params: Params, task: Task) -> Any:
    """A compiled loop of gradient steps on the support set: the unit of time is one of them."""

    def loop(params, task):
        return ml.inner.descend(lambda phi: loss(phi, task.support), SGD, num_steps, params)

    return jax.jit(loop).lower(params, task).compile()


def seconds(program: Callable, *arguments: Any) -> float:
    """Processor time that one call takes; what is over soon is repeated."""
    calls, begin = 0, time.process_time()
    while not calls or time.process_time() < begin + 0.02:
        jax.block_until_ready(program(*arguments))
        calls += 1
    return (time.process_time() - begin) / calls


def measure_all(rounds: int = 7) -> dict[str, Any]:
    """Predicted and measured costs: "memory" in bytes for every network, "time" in gradients for one of them."""
    cases = [(network, name) for network in NETWORKS for name in METHODS]
    found: dict[str, Any] = {"memory": [], "time": []}
    for network, name in bar(cases, "measuring"):
        loss, params, task, sizes = problem(*NETWORKS[network])
        for num_steps in STEPS:
            if name == "A-MAML" and num_steps > 16:
                continue  # hundreds of gradients a step
            program = jax.jit(METHODS[name].build(loss, num_steps)).lower(params, task).compile()
            cost = predicted(METHODS[name], num_steps, sizes)
            row = {"network": network, "method": name, "K": num_steps}
            found["memory"].append(row | {"predicted": round(cost.memory), "measured": memory(program)})
            if network != "both":
                continue
            steps = inner_steps(loss, num_steps, params, task)
            turns = [seconds(program, params, task) / seconds(steps, params, task) for _ in range(rounds)]
            gradients = float(np.median(turns)) * num_steps
            found["time"].append(row | {"predicted": round(cost.gradients, 2), "measured": round(gradients, 2)})
    return found


# --- a run, for a process of its own -----------------------------------------------------------------------------

NUM_STEPS, NUM_TASKS = 200, 16


def training_parts() -> tuple[ml.MetaLearner, Params, ml.tasks.Sinusoid]:
    """(Learner, first parameters, sampler) of a small run on sine curves, the same in every process."""
    params, apply = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
    meta_gradient = ml.fo_maml(ml.losses.mean_squared_error(apply), SGD, num_steps=2)
    return ml.meta_learner(meta_gradient, optax.adam(1e-3)), params, ml.tasks.Sinusoid(10, 10)


def train(directory=None, mesh=None, callback=None, progress=False):
    """All runs of the lesson are this one."""
    learner, params, sinusoids = training_parts()
    return ml.fit(
        learner,
        params,
        sinusoids,
        num_steps=NUM_STEPS,
        meta_batch_size=NUM_TASKS,
        key=jax.random.key(0),
        progress=progress,
        checkpoint_dir=directory,
        mesh=mesh,
        callback=callback,
    )


def bits(result: FitResult) -> str:
    """A fingerprint of everything that a run has made: parameters, optimizer state and history, to the last bit."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((result.params, result.state, result.history)):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def flat(params: Params) -> list[float]:
    """All numbers of the parameters."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]).tolist()


def _train(directory: str) -> None:
    """Prints the number of steps after each compiled call, and at last what came out."""
    checkpoints.SECONDS_BETWEEN_SAVES = 0.2  # so that a run of seconds has several

    def tell(step, state, history):
        _say(step=step)
        time.sleep(0.05)  # so that somebody can follow, and kill it

    _say(step=NUM_STEPS, bits=bits(train(directory, callback=tell)))


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _share() -> None:
    """Prints what came out of a run on all devices, and what a step needs there."""
    mesh = Mesh(np.array(jax.devices()), ("tasks",))
    result = train(mesh=mesh, callback=lambda step, state, history: _say(step=step))
    learner, params, sinusoids = training_parts()
    tasks = jax.device_put(sinusoids(jax.random.key(0), NUM_TASKS), NamedSharding(mesh, PartitionSpec("tasks")))
    state = jax.device_put(learner.init(params), NamedSharding(mesh, PartitionSpec()))
    program = jax.jit(learner.step).lower(state, tasks).compile()
    _say(
        devices=jax.device_count(),
        params=flat(result.params),
        bits=bits(result),
        memory=memory(program),
        exchanged=exchanged(program.as_text() or ""),
    )


def exchanged(text: str) -> int:
    """How many numbers a compiled program adds up over its devices, if no task fails."""
    found = re.findall(r"= (.*?) all-reduce(?:-start)?\(", text.partition("\nENTRY ")[2])
    shapes = [shape for result in found for shape in re.findall(r"f32\[([\d,]*)\]", result)]
    return sum(int(np.prod([int(size) for size in shape.split(",") if size], initial=1)) for shape in shapes)


class Child:
    """A Python process that runs this module, and what it says."""

    def __init__(self, process: subprocess.Popen[str], errors: Any, seconds: float):
        """Kills it after so many seconds, in case it hangs."""
        self._process, self._errors, self._seconds, self._late = process, errors, seconds, False
        self._timer = threading.Timer(seconds, self._too_late)
        self._timer.daemon = True
        self._timer.start()

    def next(self) -> dict[str, Any]:
        """What it says next.

        Raises:
          RuntimeError: if it has ended without another word.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        why = f"was not done after {self._seconds:.0f} s" if self._late else f"ended with {self._process.returncode}"
        raise RuntimeError(
            f"The other process {why}. On a busy machine or with little memory this can happen: run the cell again. "
            f"The last thing it wrote: {self._errors.read()[-600:].strip() or 'nothing'}"
        )

    def kill(self) -> int:
        """Ends it at once, by SIGKILL where there is such a signal: it cannot save anything. Returns its exit code."""
        self._timer.cancel()
        self._process.kill()
        return self._process.wait()

    def _too_late(self) -> None:
        self._late = True
        self._process.kill()


@contextlib.contextmanager
def started(*arguments: str, devices: int = 1, seconds: float = 240) -> Iterator[Child]:
    """Runs this module in a process of its own, with simulated devices if there are to be several.

    Args:
      *arguments: of its command line.
      devices: how many parts the processor is to pretend to be.
      seconds: after which it is taken to hang.
    """
    root = str(Path(ml.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if devices > 1:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment |= {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", __spec__.name, *arguments]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
        ) as process,
    ):
        child = Child(process, errors, seconds)
        try:
            yield child
        finally:
            child.kill()  # whatever is left of it, also if the cell is interrupted


def _lines(found: Any) -> str:
    """JSON with a line for each row of a list."""
    if not isinstance(found, list):
        return json.dumps(found)
    return "[\n" + ",\n".join(map(json.dumps, found)) + "\n]"


def main() -> None:
    """Runs a part of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record")
    commands.add_parser("share")
    commands.add_parser("train").add_argument("directory")
    options = parser.parse_args()
    setup()
    if options.command == "train":
        _train(options.directory)
    elif options.command == "share":
        _share()
    else:
        begin = time.perf_counter()
        record = measure_all()
        record["minutes"] = round((time.perf_counter() - begin) / 60, 1)
        rows = ",\n".join(f"{json.dumps(kind)}: {_lines(found)}" for kind, found in record.items())
        RECORD.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
