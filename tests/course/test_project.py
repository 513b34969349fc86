"""The project of lesson 16: what is wrong with tasks, a plan or a claim is said, and nothing else is."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metalearn as ml
from metalearn.course.lessons import lesson_16, own, project


@pytest.fixture
def cards(monkeypatch):
    """What is told: pairs of status and message."""
    shown = []
    for module in (own, lesson_16):
        monkeypatch.setattr(module, "show_card", lambda kind, text: shown.append((kind, text)))
    return shown


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch):
    monkeypatch.setattr(project, "PARTS", {"train": 800, "validation": 100, "test": 100})


def ignores_its_key(key, part):
    return project.springs(jax.random.key(3), part)


def from_a_short_list(key, part):
    """Twenty springs at fixed instants, for all parts."""
    chosen = jax.random.randint(key, (), 0, 20)
    t = jnp.linspace(0.0, 6.0, 20)[:, None]
    y = jnp.cos((1 + chosen / 10) * t)
    return ml.Task((t[::2], y[::2]), (t[1::2], y[1::2]))


def same_characters(key, part):
    return project.characters(key, "train")


def fixed_labels(key, part):
    """A task in which a label always means the same."""
    which = jax.random.randint(key, (12,), 0, 3)
    x = 3.0 * jax.nn.one_hot(which, 4) + 0.1 * jax.random.normal(key, (12, 4))
    return ml.Task((x[:6], which[:6]), (x[6:], which[6:]))


def query_is_support(key, part):
    task = project.characters(key, part)
    return ml.Task(task.support, task.support)


def wrong_labels(key, part):
    (x, labels), query = project.characters(key, part)
    return ml.Task((x, labels[:, None]), query)


def counts(key, part):
    """Whole numbers that are no labels."""
    x = jax.random.uniform(key, (12, 1))
    y = jax.random.poisson(key, 5 * x)
    return ml.Task((x[:6], y[:6]), (x[6:], y[6:]))


def float_labels(key, part):
    (x, labels), query = project.characters(key, part)
    return ml.Task((x, labels.astype(float)), (query[0], query[1].astype(float)))


def thresholds(key, part):
    """Above or below a threshold: one feature, of which different tasks have equal values by chance."""
    one, two = jax.random.split(key)
    x = jax.random.normal(two, (20, 1))
    labels = (x[:, 0] > jax.random.normal(one)).astype(int)
    return ml.Task((x[:8], labels[:8]), (x[8:], labels[8:]))


def halves_of_a_grid(key, part):
    """The same 25 inputs in every task, which a random line divides."""
    one, two = jax.random.split(key)
    x = jax.random.permutation(one, jnp.stack(jnp.meshgrid(*2 * [jnp.arange(5.0)]), axis=-1).reshape(25, 2))
    labels = ((x - 2) @ jax.random.normal(two, (2,)) > 0).astype(int)
    return ml.Task((x[:12], labels[:12]), (x[12:], labels[12:]))


@pytest.mark.parametrize("template", project.TEMPLATES, ids=lambda each: each.__name__)
def test_a_template_is_a_problem_and_is_told_to_be_one(template, cards, capsys):
    posed = lesson_16.look(template)
    assert 0.2 < posed.floor < 0.9
    assert posed.classes == (template is project.characters)
    ((kind, told),) = cards
    assert kind == "passed" and "which we gave you" in told


@pytest.mark.parametrize(
    ("my_task", "message"),
    [
        (ignores_its_key, "seems to ignore its key"),
        (from_a_short_list, "are also among your training tasks"),
        (same_characters, "contain an example that occurs in your training tasks too"),
        (query_is_support, "are among their support examples"),
        (wrong_labels, "Where labels are asked for"),
        (lambda key: None, "must take a key and a part"),
        (counts, "give them as floats"),
        (float_labels, "give them as whole numbers"),
        (lambda key, part: 3, "must return"),
        (project.springs(jax.random.key(0), "train"), "must be a function"),
    ],
)
def test_a_mistake_in_tasks_is_named(my_task, message, cards, capsys):
    assert lesson_16.look(my_task) is None
    ((kind, told),) = cards
    assert kind == "failed" and message in told


@pytest.mark.parametrize("my_task", [thresholds, halves_of_a_grid])
def test_tasks_that_differ_in_their_labels_may_share_inputs(my_task, cards, capsys):
    assert lesson_16.look(my_task).classes
    assert cards[0][0] == "passed"


def test_shared_keys_are_named():
    with pytest.raises(own.Unusable, match="training tasks share keys with your test tasks"):
        project.problem(project.springs, {"train": 0, "validation": 1, "test": 0})


def test_labels_in_a_fixed_order_are_told(cards, capsys):
    posed = lesson_16.look(fixed_labels)
    assert posed.labels_have_meaning and posed.floor < 0.1
    assert "the floor is only an upper bound" in cards[0][1]


def test_a_template_that_was_changed_is_the_learners_own(cards, capsys):
    def mine(key, part):
        (x, y), query = project.springs(key, part)
        return ml.Task((x, y + x), (query[0], query[1] + query[0]))

    lesson_16.look(mine)
    assert "which we gave you" not in cards[0][1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task seeds": {"train": 0, "validation": 2, "test": 2}}, "Your validation tasks share keys with your test"),
        ({"outer steps": {"A": 800, "B": 400}}, "A spends 2 times the budget. So A has 2 times the gradients of B"),
        ({"outer steps": {"A": 400, "B": 100}}, "B spends 25\u00a0% of it. So A has 4 times the gradients of B"),
        ({"clipping": {"A": (None, 1.0), "B": (None,)}}, "Clipping is not tuned for B: the meta-gradient is never"),
        ({"clipping": {"A": (None, 1.0), "B": (None, 0.0)}}, "must be positive"),
        ({"clipping": {"A": (None, 1.0), "B": (None, 5.0)}}, "choose from different norms"),
        ({"outer rates": {"A": (1e-3, 1e-2), "B": (1e-3,)}}, "different outer learning rates"),
        ({"seeds": (1, 2, 3, 4)}, "only 4 seeds"),
        ({"seeds": (1, 2, 3, 4, 100)}, "tuning seed is one of the reported"),
        ({"seeds": (1, 2, 3, 4, 5, 5)}, "occurs twice"),
        ({"outer steps": {"A": 400}}, "one entry for each method: A and B"),
        ({"seeds": 5}, "cannot be read"),
    ],
)
def test_a_fault_of_a_plan_is_named_with_its_numbers(changed, message):
    cost = {"A": 10, "B": 10}
    numbers, told = lesson_16.judge_plan(lambda cost, budget: project.default_plan(cost, budget) | changed, cost, 4_000)
    assert not (numbers == 1).all() and message in told


def fake_study(errors, methods=("MAML", "FO-MAML")):
    posed = project.Problem(project.springs, {}, False, 0.5, None, None)
    cost = {"MAML": 16, "FO-MAML": 6}
    plan = project.default_plan(cost, project.BUDGET)
    point = [project.comparison.Configuration(1e-2, 0.1, norm) for norm in (np.inf, 1.0)]
    validation = np.array([[0.3, 0.2], [0.2, np.inf]])
    return project.Study(
        posed, plan, methods, cost, plan["outer steps"], dict.fromkeys(methods, point), validation,
        {"MAML": 1, "FO-MAML": 0}, errors,
    )  # fmt: skip


@pytest.fixture
def errors():
    rng = np.random.default_rng(0)
    shared = rng.exponential(0.2, (1, 8, 60))
    return shared + np.array([0.1, 0.0])[:, None, None] + 0.01 * rng.normal(size=(2, 8, 60))


class TestClaims:
    def judge(self, study, claims, audit=lesson_16.audit):
        return lesson_16.judge(study, claims, audit)

    def test_a_claim_that_the_interval_carries_passes(self, errors, cards):
        assert self.judge(fake_study(errors), [("FO-MAML", "MAML"), ("MAML", "floor")]) == "passed"
        assert (
            "✓ FO-MAML has a lower error than MAML" in cards[0][1]
            and "Your audit comes to the same result" in cards[0][1]
        )

    def test_the_opposite_is_said_to_be_the_opposite(self, errors, cards):
        assert self.judge(fake_study(errors), [("MAML", "FO-MAML")]) == "failed"
        assert "the intervals say the opposite" in cards[0][1]

    def test_an_interval_with_zero_carries_nothing(self, errors, cards):
        rng = np.random.default_rng(1)
        assert self.judge(fake_study(errors + rng.normal(size=(2, 8, 1))), [("FO-MAML", "MAML")]) == "failed"
        assert "contains zero, and the claim is not carried" in cards[0][1]

    def test_a_diverged_run_carries_nothing(self, errors, cards, capsys):
        errors[0, 3, 5] = np.inf
        study = fake_study(errors)
        assert self.judge(study, [("FO-MAML", "MAML")]) == "failed"
        assert "a run diverged" in cards[0][1]
        lesson_16.report(study)
        assert "a run diverged" in capsys.readouterr().out

    def test_a_task_that_decides_all_is_told(self, errors, cards):
        errors[0, :, 7] += 1_000.0
        assert self.judge(fake_study(errors), [("FO-MAML", "MAML")]) == "failed"
        assert "A few test tasks with very large errors" in cards[0][1]

    @pytest.mark.parametrize(("shape", "whence"), [((8, 1), "the seeds"), ((1, 60), "the tasks")])
    def test_what_makes_an_interval_wide_is_told(self, errors, cards, shape, whence):
        errors[0] += 5 + 3 * (-1.0) ** np.arange(max(shape)).reshape(shape)
        errors[1] += 5
        assert self.judge(fake_study(errors), [("FO-MAML", "MAML")]) == "failed"
        assert f"Nearly all of its width comes from {whence}" in cards[0][1]

    def test_nothing_claimed_is_not_yet(self, errors, cards):
        assert self.judge(fake_study(errors), []) == self.judge(None, [("A", "B")]) == "not yet"

    @pytest.mark.parametrize("claims", [[("MAML", "MAML")], [("MAML", "iMAML")], ["MAML"], [("MAML",)]])
    def test_what_is_no_claim_is_said(self, errors, cards, claims):
        assert self.judge(fake_study(errors), claims) == "failed"
        assert "A claim must be a pair" in cards[0][1]

    def test_an_audit_that_is_not_written_is_told(self, errors, cards):
        def audit(report):
            raise NotImplementedError

        self.judge(fake_study(errors), [("FO-MAML", "MAML")], audit)
        assert "Your audit is not written yet." in cards[0][1]

    def test_an_audit_that_differs_is_told(self, errors, cards):
        self.judge(fake_study(errors), [("FO-MAML", "MAML")], lambda report: np.ones(6))
        assert "Your audit comes to another result" in cards[0][1]


@pytest.mark.parametrize("plan", [lambda cost, budget: None, lambda cost, budget: {}])
def test_nothing_is_trained_with_a_plan_that_breaks_a_rule(plan, cards):
    posed = project.Problem(project.springs, {}, False, 0.5, None, None)
    assert lesson_16.study(posed, ("MAML", "FO-MAML"), plan) is None
    assert "Nothing is trained" in cards[0][1]


@pytest.mark.parametrize("methods", [("MAML",), ("MAML", "MAML"), ("MAML", "SGD")])
def test_methods_must_be_known_and_different(methods, cards):
    posed = project.Problem(project.springs, {}, False, 0.5, None, None)
    assert lesson_16.study(posed, methods, project.default_plan) is None
    assert "`methods` must be" in cards[0][1]


def test_the_record_holds_what_the_lesson_says():
    found = project.recorded()
    assert {np.array(errors).shape for errors in found["errors"].values()} == {(project.SEEDS, project.KEPT_TASKS)}
    assert found["budget"] == project.BUDGET
    assert set(found["templates"]) == {template.__name__ for template in project.TEMPLATES}


@pytest.mark.slow
def test_a_study_runs_from_tasks_to_report(monkeypatch, cards, capsys):
    monkeypatch.setattr(project, "BUDGET", 400)
    posed = project.problem(project.springs)
    found = lesson_16.study(posed, ("FO-MAML", "Reptile"), functools.partial(project.default_plan))
    assert found.errors.shape == (2, 8, 100) and np.isfinite(found.errors).all()
    assert (found.errors.mean(axis=(1, 2)) < 1).all()
    lesson_16.report(found)
    assert Path(project.RECORD).is_file()
