"""MOML and LocalMOML against their equations in numpy, MAML, and closed forms; what the memory may and may not do."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import CONTAINERS, assert_clear_error, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory
from metalearn.tasks import ClientData, Clients, IndexedTasks, Population

pytestmark = pytest.mark.filterwarnings("error")

STEP_SIZE, RATE, NUM_TASKS = 0.3, 0.2, 5
INNER, OUTER = optax.sgd(STEP_SIZE), optax.sgd(RATE)
KEY = jax.random.key(0)
family = ml.tasks.Quadratic(dim=3)
x64 = pytest.mark.usefixtures("x64")


@functools.cache
def fixed():
    """Five tasks, as NumPy arrays in float64."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():  # the first caller may be a program being traced
        return jax.tree.map(np.asarray, drawn(family, NUM_TASKS, jax.random.key(1)))


def unchanging(key, i):
    """Every draw of a task is the same."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float)[i], fixed())


def noisy(key, i):
    """Every draw of a task has other minima."""
    task = unchanging(key, i)
    return Task(
        *(
            batch._replace(minimum=batch.minimum + jax.random.normal(part, (3,)))
            for batch, part in zip(task, jax.random.split(key), strict=True)
        )
    )


def drawn(sample_tasks, num_tasks, key=KEY):
    """A batch from a compiled sampler, which is quicker here than one operation after another."""
    return jax.jit(sample_tasks, static_argnums=1)(key, num_tasks)


def tanh_batch(ids, seeds):
    tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(tanh_problem(seed)[1] for seed in seeds))
    return IndexedTasks(jnp.array(ids), tasks)


def tanh_learner(memory_rate=0.3, outer=OUTER):
    return ml.moml(tanh_loss, INNER, outer, NUM_TASKS, memory_rate)


@pytest.fixture(scope="module")
def compiled():
    """(init, compiled step) of MOML on the tanh network."""
    learner = tanh_learner()
    return ml.MetaLearner(learner.init, jax.jit(learner.step))


@pytest.fixture
def visited_once(compiled):
    """A state in which every task has been met."""
    return compiled.step(compiled.init(tanh_problem()[0]), tanh_batch(range(5), range(5)))[0]


def spoiled(batch, which, part):
    inputs, targets = getattr(batch.tasks, part)
    return batch._replace(tasks=batch.tasks._replace(**{part: (inputs, targets.at[which].set(jnp.nan))}))


def numpy_step(w, u, rate, task):
    """The equations for one task: the new memory, the loss there and the gradient."""
    (H, m), (A, q) = task
    u = (1 - rate) * u + rate * (w - STEP_SIZE * H @ (w - m))
    return u, (u - q) @ A @ (u - q) / 2, (np.eye(3) - STEP_SIZE * H) @ A @ (u - q)


# The equations


@pytest.mark.slow
@x64
def test_moml_is_its_equations_step_by_step():
    population, memory_rate = Population(NUM_TASKS, noisy), 0.3
    learner = ml.moml(family.loss, INNER, OUTER, NUM_TASKS, memory_rate)
    state, step = learner.init(jnp.ones(3)), jax.jit(learner.step)
    w, memory, visited = np.ones(3), np.ones((NUM_TASKS, 3)), set()
    for t in range(10):
        batch = drawn(population, 2, jax.random.key(t))
        state, info = step(state, batch)
        losses, gradients = [], []
        for k, i in enumerate(np.asarray(batch.ids)):
            task = jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), batch.tasks)
            memory[i], value, gradient = numpy_step(w, memory[i], memory_rate if i in visited else 1.0, task)
            visited.add(i)
            losses.append(value)
            gradients.append(gradient)
        w = w - RATE * np.mean(gradients, axis=0)
        np.testing.assert_allclose(state.params, w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.memory, memory, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(state.visited, [i in visited for i in range(NUM_TASKS)])
        np.testing.assert_allclose(info.query_loss, losses, rtol=1e-12)
        np.testing.assert_allclose(info.grad_norm, np.linalg.norm(np.mean(gradients, axis=0)), rtol=1e-12)
        assert state.step == t + 1
    assert len(visited) == NUM_TASKS, "a task that never came again would not test the memory"


@pytest.mark.slow
@x64
def test_off_quadratics_the_hessian_is_taken_at_theta_and_the_gradient_at_the_memory(compiled, visited_once):
    """Against the dense Hessian, and against finite differences of slope . adapted(w)."""
    task, batch = tanh_problem(7)[1], tanh_batch([2], [7])
    start, unravel = ravel_pytree(visited_once.params)
    support, query = (lambda w, part=part: tanh_loss(unravel(w), part) for part in task)
    gradient, hessian, slope = map(jax.jit, (jax.grad(support), jax.hessian(support), jax.grad(query)))

    state, _ = compiled.step(visited_once, batch)
    old, memory = (flat(jax.tree.map(lambda leaf: leaf[2], end.memory)) for end in (visited_once, state))
    np.testing.assert_allclose(memory, 0.7 * old + 0.3 * (start - STEP_SIZE * gradient(start)), rtol=0, atol=1e-13)

    actual = (flat(visited_once.params) - flat(state.params)) / RATE
    dense, elsewhere = (slope(memory) - STEP_SIZE * hessian(w) @ slope(memory) for w in (start, memory))
    np.testing.assert_allclose(actual, dense, rtol=0, atol=1e-12)
    assert np.linalg.norm(elsewhere - dense) > 1e-2, "the Hessian at the memory is another vector"
    seen = central_differences(lambda w: slope(memory) @ (w - STEP_SIZE * gradient(w)), start)
    np.testing.assert_allclose(actual, seen, rtol=0, atol=1e-8)


@pytest.mark.slow
@x64
def test_without_memory_moml_is_maml():
    params, _ = tanh_problem()
    learner, outer = tanh_learner(memory_rate=1.0, outer=optax.adam(0.02)), optax.adam(0.02)
    maml = ml.meta_learner(ml.maml(tanh_loss, INNER, 1), outer)
    state, expected = learner.init(params), maml.init(params)
    step, maml_step = jax.jit(learner.step), jax.jit(maml.step)
    for t in range(4):
        batch = tanh_batch([t, t + 1], [2 * t, 2 * t + 1])
        state, info = step(state, batch)
        expected, expected_info = maml_step(expected, batch.tasks)
        chex.assert_trees_all_close(info, expected_info, rtol=1e-12)
        chex.assert_trees_all_close(state[:3], tuple(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@x64
def test_without_memory_a_step_descends_the_loss_after_adaptation():
    """Against finite differences of the meta-objective."""
    params, _ = tanh_problem()
    batch = tanh_batch([3, 0], [4, 5])
    learner = tanh_learner(memory_rate=1.0)
    state, _ = jax.jit(learner.step)(learner.init(params), batch)

    def objective(params):
        def one(task):
            slope = jax.grad(tanh_loss)(params, task.support)
            return tanh_loss(optax.tree.add_scale(params, -STEP_SIZE, slope), task.query)

        return jax.vmap(one)(batch.tasks).mean()

    expected = flat(params) - RATE * central_differences(objective, params)
    np.testing.assert_allclose(flat(state.params), expected, rtol=0, atol=1e-9)


# What the memory is for


def last_states(loss, outer, params, sample_tasks, num_steps, meta_batch_size, memory_rates):
    """Where MOML ends with each of those memory rates, side by side."""

    def run(memory_rate):
        learner = ml.moml(loss, INNER, outer, sample_tasks.num_all_tasks, memory_rate)

        def one_step(state, key):
            return learner.step(state, sample_tasks(key, meta_batch_size))[0], None

        return jax.lax.scan(one_step, learner.init(params), jax.random.split(KEY, num_steps))[0]

    return jax.jit(jax.vmap(run))(jnp.array(memory_rates))


@pytest.mark.slow
def test_the_noise_of_the_memory_is_b_over_2_minus_b():
    """The stationary variance of an exponential average, here of 3,000 coordinates around a start that stays."""
    population = Population(2, lambda key, i: Task(jax.random.normal(key, (3000,)), jnp.zeros(3000)))
    rates = np.array([1.0, 0.5, 0.1, 0.02])
    state = last_states(lambda w, noise: w @ noise, optax.set_to_zero(), jnp.ones(3000), population, 400, 1, rates)
    variance = np.mean((state.memory - 1.0) ** 2, axis=(1, 2)) / STEP_SIZE**2
    np.testing.assert_allclose(variance, rates / (2 - rates), rtol=0.1)


@pytest.mark.slow
@x64
def test_with_all_tasks_moml_ends_at_the_stationary_point():
    population, exact = Population(NUM_TASKS, unchanging), theory.unrolled(fixed(), STEP_SIZE, 1)
    state = last_states(family.loss, OUTER, jnp.ones(3), population, 1000, NUM_TASKS, [0.1, 0.5, 1.0])
    solution = exact.stationary_point()
    np.testing.assert_allclose(state.params, np.tile(solution, (3, 1)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(state.memory, np.tile(exact.adapted(solution), (3, 1, 1)), rtol=0, atol=1e-10)
    assert np.linalg.norm(1 - solution) > 0.5


@pytest.mark.slow
@x64
def test_with_one_task_a_step_moml_approaches_the_stationary_point():
    """A step size like 1 / t brings the distance of plain descent down like 1 / sqrt(t)."""
    learner = ml.moml(family.loss, INNER, optax.sgd(lambda t: 5 / (t + 25)), NUM_TASKS, 0.3)
    result = ml.fit(learner, jnp.ones(3), Population(NUM_TASKS, unchanging), 20_000, 1, KEY, progress=False)
    solution = theory.unrolled(fixed(), STEP_SIZE, 1).stationary_point()
    assert np.linalg.norm(result.params - solution) < 0.02 * np.linalg.norm(1 - solution)
    assert result.history.num_failed.sum() == 0


# What the memory must not do


@pytest.mark.slow
def test_only_the_memory_of_the_tasks_of_the_batch_moves(compiled, visited_once):
    state, _ = compiled.step(visited_once, tanh_batch([4, 1], [6, 7]))
    same = jax.vmap(lambda new, old: jnp.all(flat_equal(new, old)))(state.memory, visited_once.memory)
    np.testing.assert_array_equal(same, [True, False, True, True, False])


def flat_equal(a, b):
    return jnp.array([jnp.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)])


def test_before_the_first_visit_the_memory_is_the_initialization(compiled):
    params, _ = tanh_problem()
    state = compiled.init(params)
    for i in range(NUM_TASKS):
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, i=i: leaf[i], state.memory), params)
    assert not state.visited.any()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["support", "query"])
@pytest.mark.parametrize("visited", [False, True])
def test_a_failed_task_keeps_its_memory_and_changes_nothing_for_the_others(compiled, visited_once, part, visited):
    before = visited_once if visited else compiled.init(tanh_problem()[0])
    expected, _ = compiled.step(before, tanh_batch([1, 3], [5, 7]))
    state, info = compiled.step(before, spoiled(tanh_batch([1, 2, 3], [5, 6, 7]), 1, part))
    np.testing.assert_array_equal(info.finite, [True, False, True])
    chex.assert_trees_all_close(state, expected, rtol=1e-5, atol=1e-7)
    assert state.visited[2] == visited
    assert np.isfinite(flat(state.memory)).all()


def test_when_every_task_fails_only_the_count_changes(compiled, visited_once):
    state, info = compiled.step(visited_once, spoiled(tanh_batch([1, 3], [5, 7]), slice(None), "query"))
    assert not info.finite.any()
    assert info.grad_norm == 0
    chex.assert_trees_all_equal(state._replace(step=visited_once.step), visited_once)
    assert state.step == visited_once.step + 1


@pytest.mark.parametrize("ids", [[1, NUM_TASKS, 3], [1, -1, 3], [1, 2**31 - 1, 3]], ids=str)
def test_an_unknown_id_in_a_compiled_step_counts_as_a_failed_task(compiled, visited_once, ids):
    expected, _ = compiled.step(visited_once, tanh_batch([1, 3], [5, 7]))
    state, info = compiled.step(visited_once, tanh_batch(ids, [5, 6, 7]))
    np.testing.assert_array_equal(info.finite, [True, False, True])
    chex.assert_trees_all_close(state, expected, rtol=1e-5, atol=1e-7)


def test_ids_of_a_small_type_reach_every_memory():
    """300 does not fit into a uint8, and must not become 44."""
    learner = ml.moml(lambda w, batch: jnp.sum(w * batch), INNER, OUTER, 300, 0.3)
    batch = IndexedTasks(jnp.array([44, 3], jnp.uint8), Task(jnp.array([[jnp.nan], [1.0]]), jnp.ones((2, 1))))
    state, info = jax.jit(learner.step)(learner.init(jnp.zeros(1)), batch)
    np.testing.assert_array_equal(info.finite, [False, True])
    np.testing.assert_array_equal(np.flatnonzero(state.memory), [3])


def test_equal_ids_take_up_the_old_memory_and_leave_the_mean(compiled, visited_once):
    alone = [compiled.step(visited_once, tanh_batch([2, 1], [seed, 0]))[0].memory for seed in (5, 6)]
    expected = jax.tree.map(lambda a, b: (a[2] + b[2]) / 2, *alone)
    for ids, seeds in (([2, 2, 4], [5, 6, 7]), ([4, 2, 2], [7, 6, 5])):
        state, info = compiled.step(visited_once, tanh_batch(ids, seeds))
        assert info.finite.all()
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[2], state.memory), expected, rtol=1e-5, atol=1e-6)
    failed, _ = compiled.step(visited_once, spoiled(tanh_batch([2, 2, 4], [5, 6, 7]), 1, "query"))
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[2], failed.memory),
        jax.tree.map(lambda leaf: leaf[2], alone[0]),
        rtol=1e-5,
        atol=1e-6,
    )


# LocalMOML


def constant_clients(num_local_steps, num_first=1):
    return Clients(Population(NUM_TASKS, unchanging), num_local_steps, num_first)


@x64
def test_local_moml_is_its_equations_round_by_round():
    memory_rate, clients = 0.4, Clients(Population(NUM_TASKS, noisy), num_local_steps=3, num_first=2)
    learner = ml.local_moml(family.loss, INNER, OUTER, memory_rate)
    state, step = learner.init(jnp.ones(3)), jax.jit(learner.step)
    w = np.ones(3)
    for t in range(3):
        data = jax.tree.map(np.asarray, drawn(clients, 2, jax.random.key(t)))
        state, info = step(state, data)
        ends, losses, gradients = [], [], []
        for k in range(2):
            H, m = (leaf[k] for leaf in data.first)
            u = np.mean([w - STEP_SIZE * H[j] @ (w - m[j]) for j in range(2)], axis=0)
            w_k = w
            for h in range(3):
                task = jax.tree.map(lambda leaf, k=k, h=h: leaf[k, h], data.local)
                u, value, gradient = numpy_step(w_k, u, memory_rate, task)
                w_k = w_k - RATE * gradient
                losses.append(value)
                gradients.append(gradient)
            ends.append(w_k)
        w = np.mean(ends, axis=0)
        np.testing.assert_allclose(state.params, w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(info.query_loss, np.mean(np.reshape(losses, (2, 3)), axis=1), rtol=1e-12)
        np.testing.assert_allclose(info.grad_norm, np.linalg.norm(np.mean(gradients, axis=0)), rtol=1e-12)
        assert state.step == t + 1


@pytest.mark.slow
@x64
def test_a_round_of_one_step_without_memory_is_a_step_of_maml():
    params, _ = tanh_problem()
    tasks = tanh_batch([0, 1], [3, 4]).tasks
    data = ClientData(
        jax.tree.map(lambda leaf: 100 * leaf[:, None], tasks.support), jax.tree.map(lambda leaf: leaf[:, None], tasks)
    )
    maml = ml.meta_learner(ml.maml(tanh_loss, INNER, 1), OUTER)
    expected, expected_info = jax.jit(maml.step)(maml.init(params), tasks)
    learner = ml.local_moml(tanh_loss, INNER, OUTER, 1.0)
    state, info = jax.jit(learner.step)(learner.init(params), data)
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-12, atol=1e-12)
    chex.assert_trees_all_close(info, expected_info, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moml", "local_moml"])
def test_the_outer_optimizer_is_given_the_query_loss(name):
    seen = []

    def record(updates, state, params=None, *, value, **_):
        jax.debug.callback(lambda value: seen.append(np.asarray(value)), value)
        return updates, state

    outer = optax.chain(OUTER, optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), record))
    tasks = tanh_batch([0, 1], [3, 4])
    learner, batch = tanh_learner(outer=outer), tasks
    if name == "local_moml":
        learner = ml.local_moml(tanh_loss, INNER, outer, 0.3)
        batch = ClientData(*jax.tree.map(lambda leaf: leaf[:, None], (tasks.tasks.support, tasks.tasks)))
    _, info = learner.step(learner.init(tanh_problem()[0]), batch)
    jax.effects_barrier()
    np.testing.assert_allclose(np.mean(seen), info.query_loss.mean(), rtol=1e-6)


DRIFT_RATES = np.array([0.02, 0.04, 0.08])


@functools.cache
def paths(num_local_steps):
    """Every round's params from (1, 1, 1) at each of the rates, [rate, round, dim]: all tasks take part, no noise."""
    data = drawn(constant_clients(num_local_steps), NUM_TASKS)

    def path(rate):
        learner = ml.local_moml(family.loss, INNER, optax.sgd(rate), 0.5)

        def one_round(state, _):
            state, _ = learner.step(state, data)
            return state, state.params

        return jax.lax.scan(one_round, learner.init(jnp.ones(3)), length=4000)[1]

    return np.asarray(jax.jit(jax.vmap(path))(DRIFT_RATES))


@pytest.mark.slow
@x64
def test_five_local_steps_save_four_of_five_rounds():
    exact = theory.unrolled(fixed(), STEP_SIZE, 1)
    target = 0.1 * np.linalg.norm(exact.meta_gradient(np.ones(3)))
    one, five = (
        np.argmax([np.linalg.norm(exact.meta_gradient(w)) < target for w in paths(num_local_steps)[0]])
        for num_local_steps in (1, 5)
    )
    assert one > 100
    assert one / five == pytest.approx(5, rel=0.1)


@pytest.mark.slow
@x64
def test_clients_drift_apart_in_proportion_to_the_step_size():
    """With one local step a round, the end is the stationary point; with five it is off by O(e)."""
    solution = theory.unrolled(fixed(), STEP_SIZE, 1).stationary_point()
    one, five = (np.linalg.norm(paths(num_local_steps)[:, -1] - solution, axis=1) for num_local_steps in (1, 5))
    assert one.max() < 1e-10
    assert np.polyfit(np.log(DRIFT_RATES), np.log(five), 1)[0] == pytest.approx(1, abs=0.1)


def test_a_failed_client_is_left_out():
    """Its data is infinite in the first adaptation, or in the second local step only."""
    learner = ml.local_moml(lambda w, batch: jnp.sum((w - batch) ** 2), INNER, OUTER, 0.5)
    state, step = learner.init(jnp.zeros(1)), jax.jit(learner.step)
    data = np.random.default_rng(0).normal(size=(3, 6, 1)).astype(np.float32)

    def round_of(data):
        return step(state, ClientData(data[:, :2], Task(data[:, 2:4], data[:, 4:])))

    alone = [round_of(data[[i, i, i]])[0].params for i in range(3)]
    np.testing.assert_allclose(round_of(data)[0].params, np.mean(alone, axis=0), rtol=1e-5)
    for where in ((1, 0), (1, 3), (1, 5)):
        spoiled = data.copy()
        spoiled[where] = np.inf
        after, info = round_of(spoiled)
        np.testing.assert_array_equal(info.finite, [True, False, True])
        np.testing.assert_allclose(after.params, (alone[0] + alone[2]) / 2, rtol=1e-5)
    after, info = round_of(data * np.nan)
    assert not info.finite.any()
    assert info.grad_norm == 0
    chex.assert_trees_all_equal(after._replace(step=state.step), state)


# Both, as learners

regression_tasks = ml.tasks.Sinusoid(num_support=4, num_query=4, x_range=(-1.0, 1.0))
sines = Population(NUM_TASKS, lambda key, i: regression_tasks.task(key, 1.0 + i, 0.0))
LEARNERS = {
    "moml": (lambda loss, outer=OUTER: ml.moml(loss, INNER, outer, NUM_TASKS, 0.5), sines),
    "local_moml": (lambda loss, outer=OUTER: ml.local_moml(loss, INNER, outer, 0.5), Clients(sines, 3, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "container"), [("moml", "linen"), ("moml", "tuple"), ("local_moml", "linen"), ("local_moml", "tuple")]
)
def test_any_pytree_is_moved_as_one_array_is(name, container):
    make, sample = LEARNERS[name]
    params, apply = CONTAINERS[container]()
    loss, batch = ml.losses.mean_squared_error(apply), drawn(sample, 2)
    vector, unravel = ravel_pytree(params)
    learner, flat_learner = make(loss), make(lambda x, batch: loss(unravel(x), batch))
    state, info = jax.jit(lambda params: learner.step(learner.init(params), batch))(params)
    expected, expected_info = jax.jit(lambda x: flat_learner.step(flat_learner.init(x), batch))(vector)
    chex.assert_trees_all_equal_structs(state, learner.init(params))
    np.testing.assert_allclose(flat(state.params), expected.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(info, expected_info, rtol=1e-4)
    assert np.linalg.norm(expected.params - vector) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_fit_trains_an_nnx_state(name):
    make, sample = LEARNERS[name]
    params, apply = CONTAINERS["nnx"]()
    result = ml.fit(
        make(ml.losses.mean_squared_error(apply), optax.sgd(0.02)), params, sample, 300, 2, KEY, progress=False
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(result.params, params)
    assert result.state.step == 300
    assert result.history.query_loss[-50:].mean() < 0.5 * result.history.query_loss[:10].mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")], ids=str)
def test_dtypes_are_those_of_params(name, dtypes):
    make, sample = LEARNERS[name]
    with jax.enable_x64("float64" in dtypes):
        params = {"slope": jnp.ones((1, 1), dtypes[0]), "offset": jnp.ones(1, dtypes[1])}
        learner = make(lambda w, batch: jnp.mean((batch[0] @ w["slope"] + w["offset"] - batch[1]) ** 2))
        traces = []

        def counted(state, batch):
            traces.append(1)
            return learner.step(state, batch)

        state, step, sample = learner.init(params), jax.jit(counted), jax.jit(sample, static_argnums=1)
        for seed in range(3):
            before, (state, _) = state, step(state, sample(jax.random.key(seed), 2))
            chex.assert_trees_all_equal_shapes_and_dtypes(state, before)
        assert len(traces) == 1
        assert (flat(state.params) != flat(params)).all()


# The samplers


def identity_task(key, i):
    """A task whose support says its id, and whose query is noise."""
    return Task(i * jnp.ones(2), jax.random.normal(key, (2,)))


@pytest.mark.slow
def test_a_population_gives_different_tasks_with_fresh_examples():
    population = Population(7, identity_task)
    ids, tasks = jax.jit(jax.vmap(lambda key: population(key, 3)))(jax.random.split(KEY, 300))
    assert all(len(set(batch)) == 3 for batch in ids.tolist())
    np.testing.assert_array_equal(tasks.support, np.broadcast_to(ids[..., None], (300, 3, 2)))
    assert np.unique(tasks.query).size == tasks.query.size
    counts = np.bincount(ids.ravel(), minlength=7)
    assert counts.sum() == 900
    assert np.sum((counts - 900 / 7) ** 2 / (900 / 7)) < 16.8, "the 99 % point of chi squared with 6 degrees of freedom"
    chex.assert_trees_all_equal(drawn(population, 3), drawn(population, 3))


def test_every_draw_of_a_client_is_of_its_own_task():
    data = drawn(Clients(Population(7, identity_task), num_local_steps=3, num_first=2), 4)
    assert data.first.shape == (4, 2, 2)
    assert data.local.query.shape == (4, 3, 2)
    ids = data.first[:, 0, 0]
    assert np.unique(ids).size == 4
    np.testing.assert_array_equal(data.first, np.broadcast_to(ids[:, None, None], (4, 2, 2)))
    np.testing.assert_array_equal(data.local.support, np.broadcast_to(ids[:, None, None], (4, 3, 2)))
    assert np.unique(data.local.query).size == data.local.query.size


# Bad input


def moml(loss=family.loss, inner=INNER, outer=OUTER, num_all_tasks=NUM_TASKS, memory_rate=0.5):
    return ml.moml(loss, inner, outer, num_all_tasks, memory_rate)


def local_moml(loss=family.loss, inner=INNER, outer=OUTER, memory_rate=0.5):
    return ml.local_moml(loss, inner, outer, memory_rate)


def step(learner, batch):
    return learner.step(learner.init(jnp.ones(3)), batch)


def with_ids(ids):
    return step(moml(), IndexedTasks(ids, client_data((2,), (2,)).local))


def client_data(first, local):
    """Arrays of ones with those leading axes."""
    batch = ml.tasks.QuadraticBatch(np.ones((*first, 3, 3)), np.ones((*first, 3)))
    steps = ml.tasks.QuadraticBatch(np.ones((*local, 3, 3)), np.ones((*local, 3)))
    return ClientData(batch, Task(steps, steps))


WHOLE, BELOW_ONE = "must be a whole number of at least 1", "memory_rate must be above 0 and at most 1"
SGD, RAGGED = r"must be an optax.GradientTransformation such as optax.sgd\(0.01\)", "leading axis counts {} and must be"
CASES = {
    "moml: no loss": (lambda: moml(loss=None), TypeError, "loss must be a function.*NoneType"),
    "moml: inner is a rate": (lambda: moml(inner=0.1), TypeError, f"inner {SGD}.*float"),
    "moml: outer is a rate": (lambda: moml(outer=0.1), TypeError, f"outer {SGD}.*float"),
    "moml: no tasks": (lambda: moml(num_all_tasks=0), ValueError, f"num_all_tasks {WHOLE}.*0"),
    "moml: tasks as a float": (lambda: moml(num_all_tasks=25.0), ValueError, f"num_all_tasks {WHOLE}.*25.0"),
    "moml: rate 0": (lambda: moml(memory_rate=0.0), ValueError, f"{BELOW_ONE}.*0.0"),
    "moml: rate above 1": (lambda: moml(memory_rate=1.1), ValueError, f"{BELOW_ONE}.*1.1"),
    "moml: rate is NaN": (lambda: moml(memory_rate=np.nan), ValueError, f"{BELOW_ONE}.*nan"),
    "moml: rate as text": (lambda: moml(memory_rate="0.5"), ValueError, f"{BELOW_ONE}.*'0.5'"),
    "moml: rate as a bool": (lambda: moml(memory_rate=True), ValueError, f"{BELOW_ONE}.*True"),
    "moml: rate as an array": (lambda: moml(memory_rate=jnp.ones(2)), ValueError, BELOW_ONE),
    "moml: loss per example": (
        lambda: step(
            moml(loss=lambda w, batch: w * batch.minimum), IndexedTasks(jnp.arange(2), client_data((2,), (2,)).local)
        ),
        ValueError,
        "loss must return a scalar",
    ),
    "moml: whole-number params": (lambda: moml().init(jnp.array([1, 2])), TypeError, "params must be a floating-point"),
    "moml: tasks without ids": (
        lambda: step(moml(), client_data((2,), (2,)).local),
        TypeError,
        r"tasks must be a tasks.IndexedTasks\(ids, tasks\), as drawn by tasks.Population, but it is a Task",
    ),
    "moml: ids of no tasks": (
        lambda: step(moml(), IndexedTasks(jnp.arange(2), (1, 2))),
        TypeError,
        r"tasks must be a metalearn.Task\(support, query\)",
    ),
    "moml: too few ids": (lambda: with_ids(jnp.array([1])), ValueError, "ids must be 2 whole numbers.*int32.1"),
    "moml: one id": (lambda: with_ids(jnp.array(1)), ValueError, "ids must be 2 whole numbers"),
    "moml: ids as floats": (lambda: with_ids(jnp.ones(2)), ValueError, "ids must be 2 whole numbers.*float32"),
    "moml: ids as bools": (lambda: with_ids(jnp.ones(2, bool)), ValueError, "ids must be 2 whole numbers.*bool"),
    "moml: id too large": (lambda: with_ids(np.array([0, 5])), ValueError, "ids must be .* below num_all_tasks, 5"),
    "moml: negative id": (lambda: with_ids(jnp.array([-1, 0])), ValueError, "ids must be at least 0"),
    "local_moml: no loss": (lambda: local_moml(loss=1), TypeError, "loss must be a function.*int"),
    "local_moml: inner is a rate": (lambda: local_moml(inner=0.1), TypeError, f"inner {SGD}"),
    "local_moml: outer is a rate": (lambda: local_moml(outer=0.1), TypeError, f"outer {SGD}"),
    "local_moml: rate": (lambda: local_moml(memory_rate=0), ValueError, BELOW_ONE),
    "local_moml: loss per example": (
        lambda: step(local_moml(loss=lambda w, batch: w * batch.minimum), client_data((2, 1), (2, 3))),
        ValueError,
        "loss must return a scalar",
    ),
    "local_moml: params": (lambda: local_moml().init({}), TypeError, "params holds no array"),
    "local_moml: a plain batch": (
        lambda: step(local_moml(), client_data((2,), (2,)).local),
        TypeError,
        r"tasks must be a tasks.ClientData\(first, local\), as drawn by tasks.Clients, but it is a Task",
    ),
    "local_moml: no task": (
        lambda: step(local_moml(), ClientData(jnp.ones((2, 1)), jnp.ones((2, 1)))),
        TypeError,
        r"tasks must be a metalearn.Task\(support, query\)",
    ),
    "local_moml: no clients": (
        lambda: step(local_moml(), client_data((0, 1), (0, 3))),
        ValueError,
        "tasks must hold at least one task",
    ),
    "local_moml: clients disagree": (
        lambda: step(local_moml(), client_data((2, 1), (3, 3))),
        ValueError,
        RAGGED.format("clients"),
    ),
    "local_moml: no local steps": (
        lambda: step(local_moml(), client_data((2, 1), (2, 0))),
        ValueError,
        "number of local steps must be at least 1",
    ),
    "local_moml: no first support": (
        lambda: step(local_moml(), client_data((2, 0), (2, 3))),
        ValueError,
        "number of support sets must be at least 1",
    ),
    "local_moml: local steps disagree": (
        lambda: step(
            local_moml(),
            client_data((2, 1), (2, 3))._replace(
                local=Task(client_data((2, 1), (2, 3)).local[0], client_data((2, 1), (2, 4)).local[1])
            ),
        ),
        ValueError,
        RAGGED.format("local steps"),
    ),
    "population: no tasks": (lambda: Population(0, unchanging), ValueError, f"num_all_tasks {WHOLE}"),
    "population: draw": (lambda: Population(5, fixed()), TypeError, "draw must be a function.*Task"),
    "population: batch too large": (
        lambda: Population(5, unchanging)(KEY, 6),
        ValueError,
        r"num_tasks must be at most num_all_tasks \(5\), but it is 6",
    ),
    "population: empty batch": (lambda: Population(5, unchanging)(KEY, 0), ValueError, f"num_tasks {WHOLE}"),
    "clients: population": (lambda: Clients(family, 3), TypeError, "population must be a tasks.Population.*Quadratic"),
    "clients: no local steps": (lambda: constant_clients(0), ValueError, f"num_local_steps {WHOLE}"),
    "clients: nothing first": (lambda: constant_clients(3, 0), ValueError, f"num_first {WHOLE}"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_a_clear_error(case):
    assert_clear_error(*CASES[case])
