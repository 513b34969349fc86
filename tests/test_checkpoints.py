"""A run with checkpoints ends with the same bits, however often it was stopped, and harms no other run's files."""

import gc
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalearn as ml
from metalearn.training import checkpoints, loop

START = {"slope": np.array([3.0, -2.0], np.float32), "offset": np.ones((40, 40), np.float32)}
KEY = jax.random.key(7)


def loss(params, batch):
    return jnp.mean((params["slope"] - batch) ** 2) + jnp.mean(params["offset"] ** 2)


def draw(key, num_tasks, spread=1.0):
    points = spread * jax.random.normal(key, (num_tasks, 6, 2))
    return ml.Task(points[:, :3], points[:, 3:])


def built(inner=None, outer=None, method=ml.maml, loss=loss):
    return ml.meta_learner(method(loss, inner or optax.sgd(0.1), 2), outer or optax.adam(0.01))


learner = built()


def fit(num_steps, directory=None, *, learner=learner, params=START, sampler=draw, key=KEY, meta_batch_size=4):
    return ml.fit(learner, params, sampler, num_steps, meta_batch_size, key, progress=False, checkpoint_dir=directory)


@pytest.fixture(scope="module")
def never_stopped():
    return fit(300)


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    """A directory with a run of three steps, that no test may change."""
    directory = tmp_path_factory.mktemp("three")
    fit(3, directory)
    return directory


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_SAVES", 0.0)


def assert_same_bits(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def contents(directory):
    return {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


def test_a_run_in_three_parts_is_the_run_in_one(never_stopped, tmp_path):
    fit(110, tmp_path)
    fit(200, tmp_path)
    assert_same_bits(fit(300, tmp_path), never_stopped)
    assert_same_bits(fit(300, tmp_path), never_stopped)  # nothing is left to do


@pytest.mark.slow
def test_checkpoints_do_not_pile_up(save_always, tmp_path):
    fit(5, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5"]


def test_an_interrupted_run_goes_on(never_stopped, tmp_path, monkeypatch):
    run, calls = loop.sampled_steps, []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(loop, "sampled_steps", interrupt)
    reached = fit(300, tmp_path)
    assert reached.state.step == len(reached.history.query_loss) == 114
    assert_same_bits(fit(300, tmp_path), never_stopped)


@pytest.mark.slow
def test_a_diverged_run_keeps_the_checkpoint_before(save_always, tmp_path):
    def poisoned(key, num_tasks):
        tasks = draw(key, num_tasks)
        return tasks._replace(query=jnp.where(jnp.sum(tasks.query) > 8, jnp.nan, tasks.query))

    def poisoned_fit(num_steps):
        return ml.fit(learner, START, poisoned, num_steps, 4, KEY, False, tmp_path)

    with pytest.raises(ml.DivergedError):
        poisoned_fit(300)
    kept = max(int(path.name) for path in tmp_path.iterdir())
    assert 0 < kept < 300
    assert np.isfinite(poisoned_fit(kept).history.query_loss).all()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"key": jax.random.key(8)}, "key is"),
        ({"meta_batch_size": 5}, "meta_batch_size is 4, and here it is 5"),
        ({"params": {**START, "slope": jnp.ones(3)}}, "state is"),
        ({"params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), START)}, "state is"),
        ({"params": {"slope": START["slope"]}}, "state is"),
        ({"learner": built(outer=optax.sgd(0.01))}, "state is"),
        ({"params": {**START, "slope": jnp.array([3.0, -2.000001])}}, "initial parameters have"),
        ({"params": learner.init(START)._replace(step=jnp.array(1))}, "initial state has"),
        ({"sampler": lambda key, number: draw(key, number, spread=2.0)}, "sampler draws"),
        ({"sampler": [draw(KEY, 4)], "key": None, "meta_batch_size": None}, "sampler draws"),
        ({"learner": built(optax.sgd(0.01))}, "learner computes"),
        ({"learner": built(outer=optax.adam(0.011))}, "learner computes"),
        ({"learner": built(outer=optax.adam(optax.linear_schedule(0.01, 0.0, 99)))}, "state is"),
        ({"learner": built(method=ml.fo_maml)}, "learner computes"),
        ({"learner": built(loss=lambda params, batch: 2 * loss(params, batch))}, "learner computes"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_and_kept(change, names, three_steps):
    """A sweep over learning rates, or anything else, in one directory: nothing is mixed, and nothing is lost."""
    before = contents(three_steps)
    with pytest.raises(ml.CheckpointError, match=f"another run: its {names}"):
        fit(6, three_steps, **change)
    assert contents(three_steps) == before


def test_fewer_steps_than_there_are_is_an_error(tmp_path):
    fit(3, tmp_path)
    with pytest.raises(ValueError, match="a run of 3 steps"):
        fit(2, tmp_path)


@pytest.fixture
def abandoned_reads_end_here():
    """A failed restore abandons Orbax's other reads, each of which warns when it is collected: not in another test."""
    yield
    gc.collect()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("abandoned_reads_end_here")
@pytest.mark.parametrize("damage", ["empty", "half", "flip"])
def test_damage_to_any_file_is_refused_or_harmless(damage, tmp_path):
    """Each file of a checkpoint in turn: an error, or the very same numbers; never wrong ones."""
    whole = fit(3, tmp_path)
    errors = 0
    for path, data in contents(tmp_path).items():
        middle = len(data) // 2
        broken = {
            "empty": b"",
            "half": data[:middle],
            "flip": data[:middle] + bytes(255 - byte for byte in data[middle : middle + 1]) + data[middle + 1 :],
        }[damage]
        path.write_bytes(broken)
        before = contents(tmp_path)
        try:
            assert_same_bits(fit(3, tmp_path), whole)
        except ml.CheckpointError as error:
            assert str(tmp_path / "3") in str(error)
            errors += 1
        assert contents(tmp_path) == before
        path.write_bytes(data)
    assert errors >= 3
    assert_same_bits(fit(3, tmp_path), whole)


@pytest.mark.parametrize("holds", ["nothing", "a folder run"])
def test_a_folder_of_another_program_is_refused_without_a_word_of_orbax(holds, tmp_path, capfd):
    foreign = tmp_path / "7" / ("" if holds == "nothing" else "run")
    foreign.mkdir(parents=True)
    with pytest.raises(ml.CheckpointError, match=r"7 is damaged, or no checkpoint of fit. .* choose another"):
        fit(3, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert foreign.is_dir()
    assert not (tmp_path / "lock").exists()


def test_an_older_checkpoint_that_a_killed_run_had_begun_to_drop_stops_nobody(tmp_path):
    whole = fit(3, tmp_path)
    (tmp_path / "1" / "state").mkdir(parents=True)
    assert_same_bits(fit(3, tmp_path), whole)


def test_a_damaged_checkpoint_is_refused_without_a_word_of_orbax(tmp_path, capfd):
    fit(3, tmp_path)
    largest = max((tmp_path / "3" / "state").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(largest.read_bytes()[:-9])
    capfd.readouterr()
    with pytest.raises(ml.CheckpointError, match="is damaged"):
        fit(3, tmp_path)
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_a_run_killed_before_its_checksums_were_written_goes_on(never_stopped, tmp_path):
    fit(110, tmp_path)
    (tmp_path / "110" / "SHA256SUMS").unlink()
    assert_same_bits(fit(300, tmp_path), never_stopped)


@pytest.mark.parametrize(
    ("directory", "error"),
    [("", ValueError), (" ", ValueError), (3, TypeError), (b"x", TypeError), ("gs://x", ValueError)],
)
def test_what_is_no_path_is_refused(directory, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match="checkpoint_dir must be"):
        fit(3, directory)
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(3, "~/run")
    assert (tmp_path / "run" / "3").is_dir()


OTHER = """
import os, sys
sys.path.insert(0, {tests!r})
import jax
jax.config.update("jax_disable_most_optimizations", True)
import metalearn as ml
import test_checkpoints
try:
    test_checkpoints.fit(3, sys.argv[1])
except ml.CheckpointError as error:
    print(error)
else:
    print("used")
"""


@pytest.mark.slow
def test_another_process(tmp_path):
    """It is refused while this one uses the directory; then it finds its own run again, program and all."""
    command = [sys.executable, "-c", OTHER.format(tests=os.path.dirname(__file__)), tmp_path]
    said = []

    def meanwhile(step, state, history):
        if step == 1:
            with pytest.raises(ml.CheckpointError, match=f"in use by process {os.getpid()} on "):
                fit(3, tmp_path)
            said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    ml.fit(learner, START, draw, 3, 4, KEY, False, tmp_path, callback=meanwhile)
    assert f"in use by process {os.getpid()} on " in said[0]
    assert {path.name for path in tmp_path.iterdir()} - {"1", "2"} == {"3"}  # and no lock is left
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == "used\n"


def test_ctrl_c_twice_ends_calmly(never_stopped, tmp_path, monkeypatch):
    """The first one ends the run, the second one meets the checkpoint that is being written."""
    save, run, calls = checkpoints.Checkpoints.save, loop.sampled_steps, []

    def interrupted_save(*args):
        signal.raise_signal(signal.SIGINT)
        save(*args)

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 20:
            signal.raise_signal(signal.SIGINT)
        return run(*args)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", interrupted_save)
    monkeypatch.setattr(loop, "sampled_steps", interrupt)
    assert fit(300, tmp_path).state.step == 114
    monkeypatch.undo()
    assert_same_bits(fit(300, tmp_path), never_stopped)


# Batches from outside.


def batches(num_steps, seed=0):
    """Always the same ones, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    for _ in range(num_steps):
        points = rng.normal(size=(4, 6, 2))
        yield ml.Task(points[:, :3], points[:, 3:])


def fit_batches(num_steps, directory=None, tasks=None, **options):
    tasks = batches(num_steps) if tasks is None else tasks
    return ml.fit(learner, START, tasks, num_steps, progress=False, checkpoint_dir=directory, **options)


@pytest.fixture(scope="module")
def never_stopped_batches():
    return fit_batches(30)


@pytest.mark.slow
def test_a_run_on_an_iterable_goes_on_where_it_was(never_stopped_batches, tmp_path):
    fit_batches(11, tmp_path)
    assert_same_bits(fit_batches(30, tmp_path), never_stopped_batches)


@pytest.mark.slow
def test_an_exception_in_the_callback_or_the_iterable_loses_nothing(never_stopped_batches, tmp_path):
    def fail(step, state, history):
        if step == 5:
            raise ZeroDivisionError

    def failing():
        yield from batches(9)
        raise EOFError

    with pytest.raises(ZeroDivisionError):
        fit_batches(30, tmp_path, callback=fail)
    assert (tmp_path / "5").is_dir()
    with pytest.raises(EOFError):
        fit_batches(30, tmp_path, failing())
    assert (tmp_path / "9").is_dir()
    with pytest.raises(ml.TasksEndedError, match="ended after 12 batches") as caught:
        fit_batches(30, tmp_path, batches(12))
    assert caught.value.result.state.step == 12
    assert_same_bits(fit_batches(30, tmp_path), never_stopped_batches)


def test_other_batches_are_refused(tmp_path):
    fit_batches(5, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ml.CheckpointError, match="the first 5 batches of tasks are not those"):
        fit_batches(9, tmp_path, batches(9, seed=1))
    with pytest.raises(ml.CheckpointError, match="gives fewer batches"):
        fit_batches(9, tmp_path, batches(4))
    assert contents(tmp_path) == before


def test_a_folder_that_is_no_checkpoint_is_refused_and_kept(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "thesis.txt").write_text("do not lose this")
    with pytest.raises(ml.CheckpointError, match="Nothing was changed"):
        fit(3, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["7", "thesis.txt"]


def test_a_file_in_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ml.CheckpointError, match="cannot be used"):
        fit(3, tmp_path / "file")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("abandoned_reads_end_here")
@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the size of files stands for a full disk")
def test_a_full_disk_keeps_the_checkpoint_before_and_the_result(never_stopped, tmp_path):
    fit(3, tmp_path)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(ml.CheckpointError, match="could not be written") as caught:
            fit(300, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same_bits(caught.value.result, never_stopped)
    assert {path: data for path, data in contents(tmp_path).items() if path in before} == before
    time.sleep(1)  # until the storage layer's own threads have given up
    assert_same_bits(fit(300, tmp_path), never_stopped)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import jax
jax.config.update("jax_disable_most_optimizations", True)
from metalearn.training import checkpoints, loop
import test_checkpoints
checkpoints.SECONDS_BETWEEN_SAVES = 0.0
print("ready", flush=True)
test_checkpoints.{fit}(300, sys.argv[1])
"""


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.0005)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("run", [fit, fit_batches], ids=["sampler", "iterable"])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(run, tmp_path):
    """Twice at a random moment, twice while a checkpoint is being written, and once when it has just appeared."""
    rng = np.random.default_rng(0)
    script = KILLED.format(tests=os.path.dirname(__file__), fit=run.__name__)
    directory = tmp_path / "run"

    def steps():
        return {path.name for path in directory.glob("*") if path.name.isdigit()}

    for moment in ("random", "writing", "written", "writing", "random"):
        process = subprocess.Popen([sys.executable, "-c", script, directory], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        known = steps()
        wait_for(lambda known=known: steps() - known, process)  # it has saved something of its own
        if moment == "random":
            time.sleep(rng.uniform(0, 0.3))
        elif moment == "writing":
            wait_for(lambda: any("tmp" in path.name for path in directory.glob("*")), process)
        else:
            known = steps()
            wait_for(lambda known=known: steps() - known, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert max(map(int, steps())) < 300
    assert_same_bits(run(300, directory), run(300))
