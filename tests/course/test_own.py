"""A learner's own task distribution: any valid one is accepted, and what is wrong with another is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metalearn as ml
from metalearn.course.lessons import lesson_01, lesson_03, lesson_05, own


def task_of(curve, inputs=None, query_inputs=None):
    """A task distribution from a curve (key, x) -> y, with given inputs or random ones."""

    def my_task(key):
        curve_key, *keys = jax.random.split(key, 3)
        sets = [
            jax.random.uniform(k, (8, 1), minval=-3.0, maxval=3.0) if given is None else given
            for k, given in zip(keys, (inputs, query_inputs), strict=True)
        ]
        return ml.Task(*((x, curve(curve_key, x)) for x in sets))

    return my_task


def sine(key, x):
    amplitude, phase = jax.random.uniform(key, (2,), minval=0.1)
    return 5 * amplitude * jnp.sin(x - jnp.pi * phase)


def cooling(key, x):
    return 20 * jnp.exp(-jax.random.uniform(key, minval=0.1, maxval=0.4) * (x + 3))


def offsets(key, x):
    return jax.random.normal(key) + 0 * x


def noisy(key, x):
    slope_key, noise_key = jax.random.split(key)
    return jax.random.normal(slope_key) * x + 0.3 * jax.random.normal(noise_key, x.shape)


GRID = jnp.linspace(-2.0, 2.0, 8)[:, None]
VALID = {
    "lines": own.lines,
    "sines": ml.tasks.Sinusoid(num_support=5, num_query=5),
    "own sines": task_of(sine),
    "cooling": task_of(cooling),
    "offsets": task_of(offsets),
    "noisy": task_of(noisy),
    "on a grid": task_of(sine, GRID, GRID + 0.1),
    "tiny numbers": task_of(lambda key, x: 1e-4 * sine(key, x)),
    "pairs of pairs": lambda key: tuple(map(tuple, own.lines(key))),
}
VALID["sines"] = lambda key, draw=VALID["sines"]: jax.tree.map(lambda leaf: leaf[0], draw(key, 1))


@pytest.fixture
def cards(monkeypatch):
    """What is told: pairs of status and message."""
    shown = []
    monkeypatch.setattr(own, "show_card", lambda kind, text: shown.append((kind, text)))
    return shown


@pytest.mark.parametrize("name", VALID)
def test_a_valid_distribution_is_accepted(name):
    drawn = own.tasks(VALID[name])
    assert all(array.shape[0] == 2_000 and array.dtype == np.float64 for half in drawn for array in half)


def always_the_same(key):
    return own.lines(jax.random.key(3))


def numpy_random(key):
    x = np.random.default_rng().normal(size=(20, 1))
    return ml.Task((x[:10], x[:10]), (x[10:], x[10:]))


MISTAKES = {
    "seems to ignore its key": always_the_same,
    "is called only once": numpy_random,
    "The query set of your tasks is their support set": task_of(sine, GRID, GRID),
    "are not finite": task_of(lambda key, x: jnp.log(x)),
    "one and the same number": task_of(lambda key, x: 2.0 + 0 * x),
    "are the same curve": task_of(lambda key, x: jnp.sin(x)),
    "must be a function of a key": own.lines(jax.random.key(0)),
    "cannot be mapped over many keys": lambda key: own.lines(key) if float(jax.random.uniform(key)) > 0.5 else None,
    "raised ZeroDivisionError": lambda key: 1 / 0,
    "raised NotImplementedError": lambda key: (_ for _ in ()).throw(NotImplementedError),
    "must return": lambda key: own.lines(key).support,
    "have the shapes": lambda key: jax.tree.map(lambda leaf: leaf[:, 0], own.lines(key)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_named(message):
    with pytest.raises(own.Unusable, match=message):
        own.tasks(MISTAKES[message])


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("lines", 34 / 9),
        ("offsets", 1.0),
        ("noisy", 3.09),
        ("sines", 3.01),
        ("tiny numbers", None),
        ("on a grid", None),
    ],
)
def test_the_floor_is_measured(name, floor):
    found = own.floor(own.tasks(VALID[name], 4_000))
    if floor is not None:
        assert abs(found.floor - floor) < max(0.03 * floor, 4 * found.uncertainty)
    assert 0 < found.floor <= found.constant * (1 + 1e-9) <= found.square * (1 + 1e-6)


def test_the_floor_on_a_grid_is_the_exact_one():
    drawn = own.tasks(VALID["on a grid"])
    y = np.concatenate([half[1][..., 0] for half in drawn], axis=1)
    assert np.isclose(own.floor(drawn).floor, y.var(axis=0).mean())


class TestFloor:
    @pytest.mark.parametrize("name", VALID)
    def test_the_right_number_passes_and_a_wrong_one_does_not(self, name, cards):
        floor = own.floor(own.tasks(VALID[name], 1_500)).floor
        assert lesson_01.own_floor(VALID[name], floor) == "passed"
        assert lesson_01.own_floor(VALID[name], 2 * floor) == "failed"
        assert lesson_01.own_floor(VALID[name], None) == "not yet"

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (34 / 9, "still the lines that we gave you"),
            (25 / 3 * 4 / 3 + 1, "the zero function"),
            (25 / 3 * 4 / 3 + 0.9, "the zero function"),
            ((34 / 9) ** 0.5, "square root"),
            (5.0, "too high"),
            (-1.0, "too low"),
            (np.nan, "finite"),
            (np.ones(3), "one number"),
        ],
    )
    def test_what_a_number_equals_is_said(self, answer, message, cards):
        lesson_01.own_floor(own.lines, answer)
        assert message in cards[-1][1]

    def test_the_best_constant_is_told_from_the_zero_function(self, cards):
        my_task = task_of(lambda key, x: sine(key, x) + 3 * x + 5)
        lesson_01.own_floor(my_task, own.floor(own.tasks(my_task)).constant)
        assert "best *constant*" in cards[-1][1]

    def test_a_distribution_of_ones_own_is_not_called_ours(self, cards):
        lesson_01.own_floor(VALID["offsets"], 1.0)
        assert cards[-1][0] == "passed" and "we gave you" not in cards[-1][1]

    def test_what_cannot_be_used_is_said_and_not_raised(self, cards):
        assert lesson_01.own_floor(always_the_same, 1.0) == "failed"
        assert "ignore its key" in cards[-1][1]


@pytest.mark.parametrize("name", VALID)
def test_a_line_on_a_task_has_the_loss_of_its_quadratic(name):
    drawn = own.scaled(own.tasks(VALID[name], 200))
    both = np.concatenate([np.concatenate(half, axis=-1).reshape(-1, 2) for half in drawn])
    assert np.allclose((both**2).mean(axis=0), 1)
    quadratic = own.as_quadratic(drawn)
    for half, (x, y) in zip(quadratic, drawn, strict=True):
        for i in range(3):
            batch = ml.tasks.QuadraticBatch(half.hessian[i], half.minimum[i])
            losses = [np.mean((phi[0] + phi[1] * x[i] - y[i]) ** 2) for phi in np.eye(2)]
            expected = [ml.tasks.Quadratic.loss(phi, batch) for phi in np.eye(2)]
            assert np.isclose(losses[0] - losses[1], expected[0] - expected[1], atol=1e-4)


class TestWay:
    @pytest.mark.parametrize("name", [name for name in VALID if name != "on a grid"])
    def test_for_a_small_learning_rate_the_theory_holds_whatever_the_tasks(self, name):
        points = lesson_03.own_points(VALID[name], lesson_03.OWN_RATES[0])
        parts = [
            lesson_03.part_of_the_way(points[method], points["joint"], points["MAML"])
            for method in ("joint", "FO-MAML", "Reptile", "MAML")
        ]
        assert np.allclose(parts, [0, 1 / 2, 1 / 6, 1], atol=0.01)

    def test_the_measurement_passes(self, cards):
        def way(point, joint, maml):
            along = (maml - joint) / np.linalg.norm(maml - joint)
            return np.dot(along, point - joint) / np.linalg.norm(maml - joint)

        assert lesson_03.own_way(VALID["noisy"], way) == "passed"

    def test_tasks_of_one_curvature_pass_and_are_told_so(self, cards):
        assert lesson_03.own_way(VALID["on a grid"], lesson_03.part_of_the_way) == "passed"
        assert "the same curvature" in cards[-1][1]

    @pytest.mark.parametrize(("wrong", "message"), lesson_03._WRONG_PARTS)
    def test_what_a_wrong_measurement_equals_is_said(self, wrong, message, cards):
        assert lesson_03.own_way(own.lines, wrong) == "failed" and message in cards[-1][1]

    @pytest.mark.parametrize(
        ("way", "status", "message"),
        [
            (lambda point, joint, maml: None, "not yet", "Now let `way`"),
            (lambda point, joint, maml: (point - joint) / (maml - joint), "failed", "returned an array"),
            (lambda point, joint, maml: 0.5, "failed", "not yet the fraction"),
            (lambda point, joint: 0.5, "failed", "raised TypeError"),
        ],
    )
    def test_every_other_answer_is_answered(self, way, status, message, cards):
        assert lesson_03.own_way(own.lines, way) == status and message in cards[-1][1]

    def test_what_cannot_be_used_is_said(self, cards):
        assert lesson_03.own_way(always_the_same, lesson_03.part_of_the_way) == "failed"
        assert "ignore its key" in cards[-1][1]


def network_loss(params, batch):
    """That of lesson 05."""
    x, y = batch
    weight, bias, readout = params.reshape(3, -1)
    return jnp.mean((jnp.tanh(x * weight + bias) @ readout - y[:, 0]) ** 2)


class TestPerturbation:
    @pytest.fixture(autouse=True)
    def float64(self):
        with jax.enable_x64(True):
            self.theta = jax.random.normal(jax.random.key(0), (30,)) / 2
            yield

    @pytest.mark.parametrize("name", ["lines", "sines", "cooling", "offsets", "noisy", "on a grid"])
    def test_the_formula_finds_a_good_one_whatever_the_tasks(self, name):
        C, R, delta = lesson_05.own_constants(VALID[name], network_loss, self.theta)
        errors = lesson_05.own_errors(VALID[name], network_loss, self.theta)
        nu = (R * delta / (2 * C)) ** (1 / 3)
        assert np.exp(np.interp(np.log(nu), np.log(lesson_05.OWN_PERTURBATIONS), np.log(errors))) < 2.5 * errors.min()
        assert errors[0] > 20 * errors.min() and errors[-1] > 20 * errors.min()

    @pytest.mark.parametrize(
        ("answer", "status", "message"),
        [
            (0.005, "passed", "times the smallest one"),
            (0.25, "failed", "truncation"),
            (2e-5, "failed", "rounding"),
            (1e-9, "failed", "outside"),
            (-0.01, "failed", "positive"),
            (None, "not yet", "Choose"),
        ],
    )
    def test_an_answer_is_answered(self, answer, status, message, cards, monkeypatch):
        monkeypatch.setattr(lesson_05.plots, "show", lambda *args: None)
        assert lesson_05.own_perturbation(own.lines, network_loss, self.theta, answer) == status
        assert message in cards[-1][1]

    def test_what_cannot_be_used_is_said(self, cards):
        assert lesson_05.own_perturbation(always_the_same, network_loss, self.theta, 0.01) == "failed"
        assert np.isnan(lesson_05.own_constants(always_the_same, network_loss, self.theta)).all()
        assert all("ignore its key" in text for _, text in cards)
