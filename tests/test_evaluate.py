"""Meta-test: the curve is the explicit loop, and the interval covers the truth as often as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import quadratic_tasks

import metalearn as ml
from metalearn import evaluate

pytestmark = pytest.mark.filterwarnings("error")

family = ml.tasks.Quadratic(dim=2)
TASKS = quadratic_tasks(512)
START = jnp.array([1.0, -2.0])
loss, gradient = jax.jit(family.loss), jax.jit(jax.grad(family.loss))


def first(num_tasks):
    return jax.tree.map(lambda leaf: leaf[:num_tasks], TASKS)


def one(tasks, i):
    return jax.tree.map(lambda leaf: leaf[i], tasks)


@pytest.mark.parametrize("num_tasks", [1, 512])
def test_the_curve_is_the_loop(num_tasks):
    """Before adaptation and after each step, for every task, more than fit side by side included."""
    tasks = first(num_tasks)
    curve = evaluate.adaptation_curve(family.loss, optax.sgd(0.3), START, tasks, num_steps=3)
    assert curve.shape == (4, num_tasks)
    for i in {0, num_tasks // 2, num_tasks - 1}:
        task, phi = one(tasks, i), START
        for k in range(4):
            np.testing.assert_allclose(curve[k, i], loss(phi, task.query), rtol=1e-4)
            phi = phi - 0.3 * gradient(phi, task.support)


def test_the_curve_is_the_closed_form_for_every_task():
    tasks = first(300)
    curve = evaluate.adaptation_curve(family.loss, optax.sgd(0.3), START, tasks, num_steps=3)
    for k, losses in enumerate(curve):
        expected = ml.theory.unrolled(tasks, 0.3, k).query_losses(START)
        np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-5)


def test_optimizers_with_memory_keep_it_between_steps():
    tasks, rule = first(1), optax.sgd(0.1, momentum=0.9)
    curve = evaluate.adaptation_curve(family.loss, rule, START, tasks, num_steps=4)
    task = one(tasks, 0)
    phi, memory = START, rule.init(START)
    for _ in range(4):
        updates, memory = rule.update(gradient(phi, task.support), memory, phi)
        phi = optax.apply_updates(phi, updates)
    np.testing.assert_allclose(curve[-1, 0], loss(phi, task.query), rtol=1e-4)


def test_no_steps_give_the_loss_at_the_initialization():
    tasks = first(3)
    curve = evaluate.adaptation_curve(family.loss, optax.sgd(0.3), START, tasks, num_steps=0)
    np.testing.assert_allclose(curve, [[loss(START, one(tasks, i).query) for i in range(3)]], rtol=1e-5)


def test_divergence_is_said_and_counted():
    """Two of three tasks have a curvature that the step is too long for."""
    minima = jnp.zeros((3, 1))
    batch = ml.tasks.QuadraticBatch(jnp.array([1.0, 1e20, 1e20]).reshape(3, 1, 1), minima)
    with pytest.warns(UserWarning, match="2 of 3 tasks .* lower the learning rate of `inner`"):
        curve = evaluate.adaptation_curve(family.loss, optax.sgd(1.0), jnp.ones(1), ml.Task(batch, batch), num_steps=4)
    np.testing.assert_array_equal(np.isfinite(curve[-1]), [True, False, False])


@pytest.mark.parametrize("value", [0.5, 1])
def test_a_diverged_task_has_no_score_whatever_the_metric(value):
    """Accuracy, for instance, finds that NaN logits say class 0, which is right for one of three."""
    arguments = jnp.ones(2), jax.tree.map(lambda leaf: leaf[:2], TASKS), 9, lambda params, batch: jnp.array(value)
    with pytest.warns(UserWarning, match="2 of 2 tasks ended in infinity or NaN"):
        assert np.isnan(evaluate.meta_test(family.loss, optax.sgd(1e25), *arguments).mean)
    assert evaluate.meta_test(family.loss, optax.sgd(0.1), *arguments)[:2] == (value, 0)


def test_a_proximal_term_holds_the_task_near_the_initialization():
    """The converged loop is the closed form of the proximal problem; without a proximal strength it is not."""
    tasks = first(30)
    expected = ml.theory.proximal(tasks, 2.0).query_losses(START)
    curve = evaluate.adaptation_curve(family.loss, optax.sgd(0.2), START, tasks, 60, proximal_strength=2.0)
    np.testing.assert_allclose(curve[-1], expected, rtol=1e-3, atol=1e-5)
    assert np.abs(evaluate.adaptation_curve(family.loss, optax.sgd(0.2), START, tasks, 60)[-1] - expected).max() > 0.1


@pytest.mark.slow
def test_convergence_is_what_is_left_of_the_inner_gradient_and_of_the_linear_system():
    """On a quadratic, K steps leave (1 - α (curvature + λ))^K in each direction; two CG steps solve two unknowns."""
    batch = ml.tasks.QuadraticBatch(jnp.diag(jnp.array([1.0, 3.0]))[None], jnp.zeros((1, 2)))
    left = evaluate.convergence(family.loss, optax.sgd(0.1), START, ml.Task(batch, batch), 2, 1.0, cg_steps=1)
    slopes = np.array([1.0, 3.0]) * START
    expected = np.linalg.norm(slopes * (1 - 0.1 * np.array([2.0, 4.0])) ** 2) / np.linalg.norm(slopes)
    np.testing.assert_allclose(left.inner_gradient, [expected], rtol=1e-5)
    assert left.linear_system[0] > 0.05
    solved = evaluate.convergence(family.loss, optax.sgd(0.1), START, ml.Task(batch, batch), 2, 1.0, cg_steps=2)
    assert solved.linear_system[0] < 1e-5


def test_meta_test_scores_the_last_row():
    tasks = first(300)
    curve = evaluate.adaptation_curve(family.loss, optax.sgd(0.3), START, tasks, num_steps=3)
    assert evaluate.meta_test(family.loss, optax.sgd(0.3), START, tasks, num_steps=3) == pytest.approx(
        evaluate.score(curve[-1]), rel=1e-6
    )


def test_meta_test_adapts_by_the_loss_and_measures_the_metric():
    """A threshold on the line: descent on cross-entropy, judged by accuracy, which has no gradient."""

    def apply(params, x):
        return jnp.stack([jnp.zeros_like(x), params * x], axis=-1)

    x = jnp.linspace(-1.0, 1.0, 20)
    labels = (x > 0).astype(int)
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), ml.Task((x, labels), (x, labels)))
    arguments = (ml.losses.cross_entropy(apply), optax.sgd(10.0), jnp.array(-1.0), tasks)
    before = evaluate.meta_test(*arguments, num_steps=0, metric=ml.losses.accuracy(apply))
    after = evaluate.meta_test(*arguments, num_steps=5, metric=ml.losses.accuracy(apply))
    assert (before.mean, after.mean) == (0.0, 1.0)


# The confidence interval.


def test_score_is_the_textbook_formula():
    """Values 1, 2, 3, 4: mean 2.5, sample variance 5/3, standard error sqrt(5/12)."""
    score = evaluate.score(np.array([1, 2, 3, 4]))
    assert score == pytest.approx((2.5, 1.96 * (5 / 12) ** 0.5, 4))
    assert isinstance(score.mean, float)
    assert str(score) == "2.5 ± 1.3 (95 % CI, 4 tasks)"


@pytest.mark.parametrize(
    ("mean", "half_width", "shown"),
    [
        (0.06181, 0.0371, "0.062 ± 0.037"),
        (3.0, 0.0996, "3.000 ± 0.100"),
        (312.4, 25.1, "312 ± 25"),
        (1.0, 0.0, "1.000 ± 0.000"),
        (np.nan, np.nan, "nan ± nan"),
    ],
)
def test_a_score_shows_as_many_decimals_as_its_interval_warrants(mean, half_width, shown):
    assert str(evaluate.Score(mean, half_width, 30)) == f"{shown} (95 % CI, 30 tasks)"


@pytest.mark.slow
def test_the_interval_covers_the_mean_in_95_per_cent_of_experiments():
    """20,000 experiments of 100 tasks with gamma-distributed losses; their mean is 2."""
    values = np.random.default_rng(0).gamma(shape=2.0, size=(20_000, 100))
    covered = [abs(score.mean - 2.0) <= score.half_width for score in map(evaluate.score, values)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_more_tasks_make_the_interval_narrower_by_the_root():
    values = np.random.default_rng(0).normal(size=40_000)
    wide, narrow = evaluate.score(values[:400]), evaluate.score(values)
    assert wide.half_width / narrow.half_width == pytest.approx(10, rel=0.1)


def test_a_diverged_task_is_not_averaged_away():
    for value in (np.nan, np.inf):
        assert np.isnan(evaluate.score(np.array([1.0, value, 2.0]))[:2]).all()
