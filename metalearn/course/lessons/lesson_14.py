"""Exercises, predictions, quiz and figures of lesson 14, image and text: MAMF."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.exercises.grading import grade
from metalearn.course.lessons import image_text
from metalearn.course.lessons.image_text import NUM_FACES, SETTINGS, SIZE
from metalearn.course.process import bar
from metalearn.course.widgets import diagrams

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

_Array = Float[np.ndarray, "..."]
RATE = SETTINGS.rates[1]  # of the figures, and of what the lesson runs

# 14.contrastive -----------------------------------------------------------------------------------------------------


def _rows_to_norm_one(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _probabilities(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _of_any_copy(probabilities, same):
    return -np.log((same * probabilities).sum(axis=1))


def _of_one(choose):
    """The loss where one entry alone is right in each row."""

    def judged(probabilities, same):
        return -np.log((choose(same) * probabilities).sum(axis=1))

    return judged


def _contrastive(
    unit=_rows_to_norm_one,
    scaled=lambda cosines, s: np.exp(s) * cosines,
    judged=_of_any_copy,
    per_example=np.mean,
    join=lambda by_image, by_caption: (by_image + by_caption) / 2,
):
    """Variants of the contrastive loss."""

    def contrastive_loss(images, captions, logit_scale, letters):
        logits, same = scaled(unit(images) @ unit(captions).T, logit_scale), letters[:, None] == letters
        return join(*(per_example(judged(_probabilities(each), same)) for each in (logits, logits.T)))

    return contrastive_loss


def _one_after_another(images, captions, logit_scale, letters):
    """An alternative: one picture and one caption after another."""
    total, number = 0.0, len(letters)
    logits = math.e**logit_scale * np.array(
        [[a @ b / math.sqrt((a @ a) * (b @ b)) for b in np.asarray(captions)] for a in np.asarray(images)]
    )
    for i in range(number):
        copies = [j for j in range(number) if letters[j] == letters[i]]
        for row in (logits[i], logits[:, i]):
            total += np.log(np.exp(row).sum()) - np.log(np.exp(row[copies]).sum())
    return total / (2 * number)


def _by_logsumexp(images, captions, logit_scale, letters):
    """An alternative: logarithms of sums, with minus infinity where a pair is wrong."""
    images, captions = (each / jnp.linalg.norm(each, axis=1)[:, None] for each in (images, captions))
    logits = jnp.exp(logit_scale) * images @ captions.T
    right = jnp.where(letters[:, None] == letters[None], logits, -jnp.inf)
    return sum(jnp.mean(jax.nn.logsumexp(logits, k) - jax.nn.logsumexp(right, k)) for k in (0, 1)) / 2


def _batch(rng, letters, width, logit_scale):
    """Outputs of two towers whose norms differ, the captions of one letter being alike."""
    letters = np.array(letters)
    of_letters = rng.normal(size=(letters.max() + 1, width)) * rng.uniform(0.3, 3, (letters.max() + 1, 1))
    images = 0.7 * of_letters[letters] + rng.normal(size=(len(letters), width))
    return images * rng.uniform(0.3, 3, (len(letters), 1)), of_letters[letters], logit_scale, letters


CONTRASTIVE = Exercise(
    id="14.contrastive",
    title="The contrastive loss of a batch",
    difficulty=2,
    minutes=14,
    reference=_contrastive(),
    instances=lambda rng: [
        _batch(rng, [0, 1, 2, 3], 3, float(rng.uniform(0.5, 1.0))),
        _batch(rng, [0, 1, 1, 2, 1], 4, float(rng.uniform(1.2, 2.0))),
        _batch(rng, [2, 0, 2, 1, 0, 3, 2], 5, float(rng.uniform(-0.8, -0.3))),
        _batch(rng, [1, 0], 2, 0.0),
        _batch(rng, [1, 1, 0, 1], 3, float(rng.uniform(0.6, 1.2))),
    ],
    misconceptions=(
        Misconception(
            "images only",
            _contrastive(join=lambda by_image, by_caption: by_image),
            "Your result is the cross-entropy of each image over the captions. The other direction is missing: each "
            "caption also has to find its images.",
        ),
        Misconception(
            "captions only",
            _contrastive(join=lambda by_image, by_caption: by_caption),
            "Your result is the cross-entropy of each caption over the images. The other direction is missing.",
        ),
        Misconception(
            "directions added",
            _contrastive(join=lambda by_image, by_caption: by_image + by_caption),
            "Your result is the sum of the two directions, twice the target. The loss is their mean.",
        ),
        Misconception(
            "summed over the batch",
            _contrastive(per_example=np.sum),
            "Your result is the target times the number of pairs. A sum over the batch grows with its size.",
        ),
        Misconception(
            "not normalized",
            _contrastive(unit=lambda vectors: vectors),
            "Your logits seem to be inner products of the outputs as they are. A cosine needs both vectors scaled to "
            "norm 1, or a long vector wins whatever its direction is.",
        ),
        Misconception(
            "one tower normalized",
            lambda images, captions, logit_scale, letters: _contrastive(unit=lambda vectors: vectors)(
                _rows_to_norm_one(images), captions, logit_scale, letters
            ),
            "Your result is what you get if only the images are scaled to norm 1. The captions need it as well.",
        ),
        Misconception(
            "normalized by features",
            _contrastive(unit=lambda vectors: vectors / np.linalg.norm(vectors, axis=0, keepdims=True)),
            "Your result is what you get if each *feature* is scaled to norm 1 over the batch. It is each image, and "
            "each caption, whose norm should be 1. Along which axis is that?",
        ),
        Misconception(
            "no logit scale",
            _contrastive(scaled=lambda cosines, s: cosines),
            "Your logits seem to be the cosines themselves, without the logit scale.",
        ),
        Misconception(
            "scale not exponentiated",
            _contrastive(scaled=lambda cosines, s: s * cosines),
            "Your cosines seem to be multiplied by $s$. The factor is $e^s$, which is positive for every $s$.",
        ),
        Misconception(
            "divided by the scale",
            _contrastive(scaled=lambda cosines, s: np.exp(-s) * cosines),
            "Your cosines seem to be divided by $e^s$. The *temperature* would divide, and it is $e^{-s}$.",
        ),
        Misconception(
            "copies count as wrong",
            _contrastive(judged=_of_one(lambda same: np.eye(len(same)))),
            "Right where every letter occurs once. With copies your result is what you get if only the caption in the "
            "same row is right, so that an equal caption in another row counts as wrong. (Averaging the logarithms "
            "over the copies gives this value too.)",
        ),
        Misconception(
            "mean of the copies",
            _contrastive(judged=lambda p, same: -np.log((same * p).sum(axis=1) / same.sum(axis=1))),
            "Right where every letter occurs once. With copies your loss seems to contain the *mean* of their "
            "probabilities. Then it could not fall to zero even if all the probability went to right captions.",
        ),
        Misconception(
            "logarithms added",
            _contrastive(judged=lambda p, same: -(same * np.log(p)).sum(axis=1)),
            "Right where every letter occurs once. With copies your logarithms seem to be added. It is the "
            "probabilities of the copies that are added, and the logarithm is taken of the sum.",
        ),
        Misconception(
            "first copy",
            _contrastive(judged=_of_one(lambda same: np.eye(len(same))[same.argmax(axis=1)])),
            "Right where every letter occurs once. With copies your result is what you get if only the first pair of a "
            "letter is right, and the later ones count as wrong.",
        ),
    ),
    relatives=(
        (
            "what a common norm of all images, and one of all captions, gives",
            _contrastive(unit=lambda vectors: vectors / np.linalg.norm(vectors)),
        ),
    ),
    alternatives=(_one_after_another, _by_logsumexp),
    hints=(
        "Begin with the matrix of logits: scale the rows of both arrays to norm 1, multiply, and multiply by $e^s$. "
        "Row $i$ holds image $i$ with every caption, and column $j$ caption $j$ with every image.",
        "`letters[:, None] == letters` says which pairs show the same letter. Multiply the matrix of probabilities by "
        "it, and a sum over each row is the probability of a right caption.",
        "`jax.nn.softmax(logits, axis=1)` are the probabilities of the captions for each image. For the other "
        "direction the softmax runs over the other axis, and so does the sum.",
    ),
    expected="A number. With five different letters and a factor $e^s$ of nearly zero it is $\\log 5$.",
)

# 14.cover -----------------------------------------------------------------------------------------------------------


def _needed(
    given=lambda d, n: d,
    some=lambda d, n: d / n,
    missed=lambda ways, labels: math.log1p(-ways / labels),
    whole=math.ceil,
    order=lambda given, some: (given, some),
):
    """Variants of the smallest numbers of sub-tasks."""

    def cover(num_ways, num_labels, miss_probability):
        if num_ways == num_labels:
            return 1, 1
        log_missed = missed(num_ways, num_labels)
        numbers = (max(1, whole(math.log(bound(miss_probability, num_labels)) / log_missed)) for bound in (given, some))
        return order(*numbers)

    return cover


def _one_more_until_it_holds(num_ways, num_labels, miss_probability):
    """An alternative: a loop."""
    found = []
    for factor in (1, num_labels):
        number, chance = 1, 1 - num_ways / num_labels
        while factor * chance > miss_probability:
            number, chance = number + 1, chance * (1 - num_ways / num_labels)
        found.append(number)
    return tuple(found)


def _by_a_table(num_ways, num_labels, miss_probability):
    """An alternative: the chances for all numbers at once."""
    chances = (1 - num_ways / num_labels) ** np.arange(1, 2_000)
    return tuple(1 + int(np.argmax(factor * chances <= miss_probability)) for factor in (1, num_labels))


def _far_from_whole(rng, num_ways, num_labels, low, high, rounds_down=None):
    """Settings whose two numbers are far from whole ones before they are rounded up.

    The nearest whole number of one of them, given by its place, lies below it.
    """
    while True:
        d = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        parts = [math.log(each) / math.log1p(-num_ways / num_labels) % 1 for each in (d, d / num_labels)]
        below = rounds_down is None or parts[rounds_down] < 0.5
        if below and all(0.1 < part < 0.45 or 0.55 < part < 0.9 for part in parts):
            return num_ways, num_labels, d


COVER = Exercise(
    id="14.cover",
    title="How many sub-tasks cover all labels",
    difficulty=2,
    minutes=10,
    reference=_needed(),
    instances=lambda rng: [
        _far_from_whole(rng, 5, 30, 1e-3, 1e-2),
        _far_from_whole(rng, 2, 12, 1e-3, 0.1, rounds_down=0),
        _far_from_whole(rng, 7, 10, 1e-5, 1e-2, rounds_down=1),
        _far_from_whole(rng, 3, 20, 0.2, 0.4),
        (6, 6, 0.05),
    ],
    misconceptions=(
        Misconception(
            "rounded down",
            _needed(whole=math.floor),
            "Your numbers are rounded down, so that the probability is still above the bound. One sub-task more is "
            "needed.",
        ),
        Misconception(
            "rounded",
            _needed(whole=round),
            "Your numbers are rounded to the nearest whole number. The paper does so too, but where that is down, the "
            "probability stays above the bound.",
        ),
        Misconception(
            "union bound turned round",
            _needed(some=lambda d, n: min(d * n, 1.0)),
            "Your first number is right. For the second you seem to allow each label a probability of $N d$. By the "
            "union bound the probabilities of the $N$ labels *add up*, so what may each of them contribute?",
        ),
        Misconception(
            "a given label twice",
            _needed(some=lambda d, n: d),
            "Your second number is that for a given label. That *some* label is left out is up to $N$ times as likely.",
        ),
        Misconception(
            "some label twice",
            _needed(given=lambda d, n: d / n),
            "Your first number is that for some label. A label that is fixed beforehand needs fewer sub-tasks.",
        ),
        Misconception(
            "order",
            _needed(order=lambda given, some: (some, given)),
            "Your two numbers are right, in the opposite order.",
        ),
        Misconception(
            "with replacement",
            _needed(missed=lambda ways, labels: ways * math.log1p(-1 / labels)),
            "Your labels seem to be drawn one by one with replacement, so that a sub-task could hold a label twice. "
            "Its $n$ labels are different.",
        ),
        Misconception(
            "draws for sub-tasks",
            _needed(missed=lambda ways, labels: math.log1p(-1 / labels)),
            "Your numbers count single draws of a label. A sub-task has $n$ of them.",
        ),
        Misconception(
            "drawn for missed",
            _needed(missed=lambda ways, labels: math.log(ways / labels)),
            "Your numbers contain $n/N$, the probability that a sub-task *contains* a given label. Which probability "
            "is multiplied with itself here?",
        ),
        Misconception(
            "not whole",
            _needed(whole=lambda number: number),
            "Your numbers are not whole. How many sub-tasks are enough?",
        ),
    ),
    relatives=(
        (
            "one sub-task for each $n$ labels, rounded up",
            lambda num_ways, num_labels, miss_probability: (-(-num_labels // num_ways),) * 2,
        ),
        (
            "what $(1 - n/N)^n$ gives as the probability to miss a label",
            _needed(missed=lambda ways, labels: ways * math.log1p(-ways / labels)),
        ),
    ),
    alternatives=(_one_more_until_it_holds, _by_a_table),
    hints=(
        "What is the probability that one sub-task leaves a given label out? The sub-tasks are drawn independently of "
        "one another, so what is it for $J$ of them?",
        "Solve $q^J \\le d$ for $J$. The logarithm of $q$ is negative, so the inequality turns round. `math.ceil` "
        "rounds up.",
        "For the second number ask each label to be missed with a probability so small that $N$ of them add up to no "
        "more than $d$. If a sub-task holds all labels, the logarithm does not exist, but the answer is plain.",
    ),
    expected="Two whole numbers, the second at least as large as the first.",
)

# 14.owned -----------------------------------------------------------------------------------------------------------


def _owned(
    shrunk=lambda a, rate, steps: (1 - rate * a) ** steps,
    kept=lambda rho, eta: 1 - eta * (1 - rho),
    later=lambda k: np.append(np.cumprod(k[::-1])[::-1], 1.0),
    own=lambda k: 1 - k,
    initial=lambda weight: weight,
):
    """Variants of the weights of the initialization and of every task's minimum."""

    def weights(curvatures, step_size, num_steps, outer_rate):
        k = kept(shrunk(curvatures, step_size, num_steps), outer_rate)
        left = later(k)
        return np.append(initial(left[0]), left[1:] * own(k))

    return weights


def _by_linearity(curvatures, step_size, num_steps, outer_rate):
    """An alternative: the run itself, once for the initialization and once for each minimum."""
    found = []
    for row in np.eye(len(curvatures) + 1):
        theta = row[0]
        for curvature, minimum in zip(curvatures, row[1:], strict=True):
            phi = theta
            for _ in range(num_steps):
                phi = phi - step_size * curvature * (phi - minimum)
            theta = theta + outer_rate * (phi - theta)
        found.append(theta)
    return np.array(found)


def _by_recursion(curvatures, step_size, num_steps, outer_rate):
    """An alternative: each task shrinks all weights so far, and takes the rest."""
    weights = np.array([1.0])
    for curvature in curvatures:
        share = outer_rate * (1 - (1 - step_size * curvature) ** num_steps)
        weights = np.append((1 - share) * weights, share)
    return weights


OWNED = Exercise(
    id="14.owned",
    title="Your line of the derivation: what each sub-task owns",
    difficulty=3,
    minutes=15,
    reference=_owned(),
    instances=lambda rng: [
        (rng.uniform(0.3, 2.0, 4), 0.2, 3, 1.0),
        (rng.uniform(0.3, 2.0, 5), 0.15, 2, float(rng.uniform(0.2, 0.6))),
        (rng.uniform(1.5, 1.9, 3), 1.0, 3, 1.0),
        (rng.uniform(0.5, 1.5, 1), 0.3, 4, 0.7),
        (rng.uniform(0.3, 2.0, 6), 0.3, 1, float(rng.uniform(1.2, 1.6))),
    ],
    misconceptions=(
        Misconception(
            "outer learning rate ignored",
            lambda curvatures, step_size, num_steps, outer_rate: _owned()(curvatures, step_size, num_steps, 1.0),
            "Right for $\\eta = 1$, and for other values yours is still the result for $\\eta = 1$. In line 2 $\\eta$ "
            "stands in both terms.",
        ),
        Misconception(
            "one inner step",
            lambda curvatures, step_size, num_steps, outer_rate: _owned()(curvatures, step_size, 1, outer_rate),
            "Your result is that of a single inner step. Each of the $K$ steps shrinks the distance to the minimum.",
        ),
        Misconception(
            "steps times rate",
            _owned(shrunk=lambda a, rate, steps: 1 - steps * rate * a),
            "Your factor seems to be $1 - K \\alpha a$. Each step begins where the last one ended, so $K$ factors are "
            "multiplied.",
        ),
        Misconception(
            "first tasks last",
            _owned(later=lambda k: np.append(np.prod(k), np.append(1.0, np.cumprod(k)[:-1]))),
            "Your weights of the tasks are those of the opposite order: the product runs over the tasks *before* task "
            "$j$. Which tasks shrink what task $j$ has contributed?",
        ),
        Misconception(
            "own factor too",
            _owned(later=lambda k: np.append(np.prod(k), np.cumprod(k[::-1])[::-1])),
            "Your product for task $j$ seems to begin at task $j$ itself. Its own factor shrinks only what was there "
            "before.",
        ),
        Misconception(
            "no forgetting",
            _owned(later=lambda k: np.append(np.prod(k), np.ones(len(k)))),
            "Your weight of each task is what it gets at its own turn. The later tasks shrink it again.",
        ),
        Misconception(
            "whole distance kept",
            _owned(kept=lambda rho, eta: eta * rho),
            "Your factor for what is kept seems to be $\\eta \\rho_j$. Line 2 has $1 - \\eta (1 - \\rho_j)$, which is "
            "1 for $\\eta = 0$.",
        ),
        Misconception(
            "outer rate inside",
            _owned(kept=lambda rho, eta: (1 - eta) * rho),
            "Your factor for what is kept seems to be $(1 - \\eta) \\rho_j$. For $\\eta = 1$ nothing would be left of "
            "anything but the last task.",
        ),
        Misconception(
            "initialization forgotten",
            _owned(initial=lambda weight: 0.0),
            "Your weights of the tasks are right. That of $\\theta_0$ is not zero: what have the tasks left of it?",
        ),
        Misconception(
            "plain mean",
            lambda curvatures, step_size, num_steps, outer_rate: np.append(
                0.0, np.full(len(curvatures), 1 / len(curvatures))
            ),
            "Your result is the mean of the minima. That would not depend on the order of the tasks.",
        ),
        Misconception(
            "sum of steps",
            _owned(own=lambda k: k),
            "Your weights contain the factor $1 - \\eta(1 - \\rho_j)$ of task $j$ where its share "
            "$\\eta (1 - \\rho_j)$ belongs.",
        ),
    ),
    relatives=(
        (
            "what the mean curvature gives for every task",
            lambda curvatures, *rest: _owned()(np.full(len(curvatures), curvatures.mean()), *rest),
        ),
        (
            "the weights of a run in which $\\theta_0$ stands at the end",
            lambda *given: np.roll(_owned()(*given), -1),
        ),
    ),
    alternatives=(_by_linearity, _by_recursion),
    hints=(
        "Put line 2 for $\\theta_1$ into line 2 for $\\theta_2$. What has become of $c_1$, and of $\\theta_0$?",
        "Write $k_j = 1 - \\eta (1 - \\rho_j)$. Then $c_j$ enters with $1 - k_j$, and every later task multiplies it "
        "by its own $k$.",
        "`np.cumprod(k[::-1])[::-1]` holds the products from task $j$ to the last. Task $j$ needs the product from "
        "$j + 1$, which for the last task is an empty one, 1.",
    ),
    expected="An array of $J + 1$ numbers whose sum is 1.",
)

# 14.control ---------------------------------------------------------------------------------------------------------


def _shuffled_epochs(seed, num_images, number):
    rng = np.random.default_rng(seed)
    passes = -(-number // num_images)
    return np.concatenate([rng.permutation(num_images) for _ in range(max(passes, 1))])[:number]


def _control(
    steps=lambda labels, ways, tasks, epochs: tasks * epochs,
    batch=lambda labels, per_label, ways: ways * per_label,
    rows=_shuffled_epochs,
):
    """Variants of a run's rows: how many steps, of how many images, and which."""

    def control(seed, num_labels, per_label, num_ways, num_tasks, epochs):
        size = batch(num_labels, per_label, num_ways)
        number = steps(num_labels, num_ways, num_tasks, epochs)
        return rows(seed, num_labels * per_label, number * size).reshape(number, size)

    return control


def _by_sorting(seed, num_labels, per_label, num_ways, num_tasks, epochs):
    """An alternative: random numbers, sorted, give an order."""
    size, number = num_ways * per_label, num_tasks * epochs
    passes = math.ceil(number * num_ways / num_labels)
    order = np.random.default_rng(seed).random((passes, num_labels * per_label)).argsort(axis=1)
    return order.ravel()[: number * size].reshape(-1, size)


def _by_a_pool(seed, num_labels, per_label, num_ways, num_tasks, epochs):
    """An alternative: a pool of images that is filled up when it is empty."""
    rng, pool, steps = np.random.default_rng(seed), [], []
    for _ in range(num_tasks * epochs):
        if not pool:
            pool = list(rng.permutation(num_labels * per_label))
        steps.append([pool.pop() for _ in range(num_ways * per_label)])
    return jnp.array(steps)


def _of_sub_tasks(number=lambda labels, ways, tasks: tasks):
    """Batches that are random sub-tasks, each for all its epochs."""

    def control(seed, num_labels, per_label, num_ways, num_tasks, epochs):
        rng, steps = np.random.default_rng(seed), []
        for _ in range(number(num_labels, num_ways, num_tasks)):
            labels = rng.permutation(num_labels)[:num_ways]
            steps += [(labels[:, None] * per_label + np.arange(per_label)).ravel()] * epochs
        return np.array(steps)

    return control


def _each_batch_again(seed, num_labels, per_label, num_ways, num_tasks, epochs):
    """Every minibatch of all labels serves for as many steps as a sub-task does."""
    rows = _control()(seed, num_labels, per_label, num_ways, num_tasks, 1)
    return np.repeat(rows, epochs, axis=0)


def _one_order(seed, num_images, number):
    return np.resize(np.random.default_rng(seed).permutation(num_images), number)


# What a run's rows are, as numbers: the first demand that is not met. 0 is a control.
_RIGHT, _FORM, _USUAL, _ONE_EACH, _FEWER, _MORE, _ALL_IMAGES, _BATCH = range(8)
_SUB_TASKS, _TWICE, _UNEVEN, _AGAIN, _SAME_ORDER, _FEW_SUB_TASKS = range(8, 14)


def judge_control(control, seed, num_labels, per_label, num_ways, num_tasks, epochs):
    """What the check compares: which demand on a control is not met, 0 if all are."""
    made = control(seed, num_labels, per_label, num_ways, num_tasks, epochs)
    if made is None or made is Ellipsis:
        return made
    rows, num_images = np.asarray(made), num_labels * per_label
    here = f"MAMF has {num_tasks} sub-tasks of {num_ways} of {num_labels} labels, and {epochs} steps on each"

    def verdict(kind, text):
        return np.array([kind], float), f"{here}. {text}"

    if rows.ndim != 2 or rows.dtype.kind not in "iu" or rows.size == 0:
        return verdict(_FORM, "Your function must return an array of whole numbers, [steps, images].")
    if rows.min() < 0 or rows.max() >= num_images:
        return verdict(
            _FORM, f"Your rows run from {rows.min()} to {rows.max()}, but the images from 0 to {num_images - 1}."
        )
    steps, batch = rows.shape
    wanted, size = num_tasks * epochs, num_ways * per_label
    if batch != size:
        kind = _ALL_IMAGES if batch == num_images else _BATCH
        return verdict(kind, f"In your run a step sees {batch} images, and in MAMF {size}.")
    labels_of_steps = [len(set(step // per_label)) for step in rows]
    of_sub_tasks = np.mean(labels_of_steps) < num_ways + 0.5
    if steps != wanted:
        usual_steps = epochs * num_labels // num_ways
        known = {usual_steps: _FEW_SUB_TASKS if of_sub_tasks else _USUAL, num_tasks: _ONE_EACH}
        kind = known.get(steps, _FEWER if steps < wanted else _MORE)
        return verdict(kind, f"Your run has {steps} steps, and MAMF has {wanted}.")
    if of_sub_tasks:
        return verdict(_SUB_TASKS, f"In your run a step sees {np.mean(labels_of_steps):.1f} labels on average.")
    if (np.sort(rows, axis=1)[1:] == np.sort(rows, axis=1)[:-1]).all(axis=1).mean() > 0.2:
        return verdict(_AGAIN, "In your run many steps see the same images as the step before.")
    per_epoch = num_labels // num_ways
    first, second = (np.sort(each, axis=1) for each in (rows[:per_epoch], rows[per_epoch : 2 * per_epoch]))
    if first.shape == second.shape and (first == second).all():
        return verdict(_SAME_ORDER, "In your run every epoch has the same minibatches.")
    if any(len(set(step)) < batch for step in rows):
        return verdict(_TWICE, "In your run a step may see an image twice.")
    counts = np.bincount(rows.ravel(), minlength=num_images)
    if np.ptp(counts) > 1:
        return verdict(_UNEVEN, f"Your run sees some image {counts.min()} times and another {counts.max()} times.")
    return verdict(
        _RIGHT,
        f"Your run has as many steps, {steps}, of as many images, {batch}. A step mixes "
        f"{np.mean(labels_of_steps):.1f} labels on average, and every image is seen {counts.min()} or "
        f"{counts.max()} times.",
    )


CONTROL = Exercise(
    id="14.control",
    title="Design the control: the sub-tasks, or the steps?",
    difficulty=3,
    minutes=18,
    reference=_control(),
    judge=judge_control,
    instances=lambda rng: [
        (int(rng.integers(1_000)), labels, per_label, ways, tasks, epochs)
        for labels, per_label, ways, tasks, epochs in (
            (30, 6, 5, 38, 8),
            (12, 5, 3, 10, 5),
            (20, 3, 4, 7, 9),
            (8, 10, 2, 25, 3),
        )
    ],
    misconceptions=(
        Misconception(
            "the usual run",
            _control(steps=lambda labels, ways, tasks, epochs: epochs * labels // ways),
            "Your run is the usual classical fine-tuning, with as many *epochs* as MAMF has on each sub-task. It still "
            "differs from MAMF in two things, the sampling and the number of steps, so whatever comes out has two "
            "explanations. Which of the two can you make equal?",
        ),
        Misconception(
            "a step for each sub-task",
            _control(steps=lambda labels, ways, tasks, epochs: tasks),
            "Your run has a step for each sub-task. MAMF takes several steps on each of them, one for each epoch.",
        ),
        Misconception(
            "as many epochs as sub-tasks",
            _control(steps=lambda labels, ways, tasks, epochs: tasks * epochs * labels // ways),
            "Your run passes over *all* images for each epoch of each sub-task. That is more steps than MAMF takes, so "
            "the number of steps now favours the other side.",
        ),
        Misconception(
            "all images in a step",
            _control(batch=lambda labels, per_label, ways: labels * per_label),
            "A step of your run sees all images at once, and one of MAMF only those of a sub-task. With equal steps "
            "your run has seen many more images, and its gradients are less noisy: a new difference in the place of "
            "the old one.",
        ),
        Misconception(
            "one image of each label",
            _control(batch=lambda labels, per_label, ways: labels),
            "A step of your run sees as many images as there are *labels*. A step of MAMF sees all images of one "
            "sub-task. Make the two equal.",
        ),
        Misconception(
            "MAMF again",
            _of_sub_tasks(),
            "Every step of your run sees the labels of one sub-task. So your run samples sub-tasks as MAMF does, and "
            "cannot tell what their sampling contributes.",
        ),
        Misconception(
            "MAMF with the steps of the usual run",
            _of_sub_tasks(number=lambda labels, ways, tasks: labels // ways),
            "Your run takes sub-tasks, as MAMF does, in as many steps as the usual classical run. It separates the two "
            "as well, but so few random sub-tasks leave many labels out, which is a third difference. Take it the "
            "other way round: the steps of MAMF, and the minibatches of the classical run.",
        ),
        Misconception(
            "drawn with replacement",
            _control(
                rows=lambda seed, num_images, number: np.random.default_rng(seed).integers(num_images, size=number)
            ),
            "Your images seem to be drawn independently, so that a step may see one twice, and some images come more "
            "often than others. The usual classical run passes over all images in each epoch; your control should "
            "differ from it in the number of steps alone.",
        ),
        Misconception(
            "each step drawn anew",
            lambda seed, num_labels, per_label, num_ways, num_tasks, epochs: np.array(
                [
                    rng.permutation(num_labels * per_label)[: num_ways * per_label]
                    for rng in [np.random.default_rng(seed)]
                    for _ in range(num_tasks * epochs)
                ]
            ),
            "Your steps seem to be drawn independently of one another, so some images come more often than others. The "
            "usual classical run sees every image once in an epoch; your control should differ from it in the number "
            "of steps alone.",
        ),
        Misconception(
            "each batch again and again",
            _each_batch_again,
            "Your run takes several steps in a row on the same minibatch. MAMF does so on a sub-task, but the usual "
            "classical run does not, so this run differs from it in more than the number of steps.",
        ),
        Misconception(
            "one order for all epochs",
            _control(rows=_one_order),
            "Your epochs all have the same minibatches. The usual classical run shuffles the images in each epoch.",
        ),
        Misconception(
            "flat",
            lambda seed, num_labels, per_label, num_ways, num_tasks, epochs: _control()(
                seed, num_labels, per_label, num_ways, num_tasks, epochs
            ).ravel(),
            "Your function must return an array [steps, images], in which each row holds the images of one step.",
        ),
    ),
    alternatives=(_by_sorting, _by_a_pool),
    hints=(
        "Write down in what MAMF and the usual classical run differ: the labels of a step, and the number of steps. "
        "Your run should share one of these with MAMF and the other one with the classical run. There are two ways; "
        "take the one in which no label is left out.",
        "The number of images in a step is a third quantity, which both runs share already. How many images does your "
        "run need in all?",
        "`rng.permutation(num_images)` is one epoch. Join as many of them as you need with `np.concatenate`, cut the "
        "result off where the last step ends, and reshape it to `[steps, images]`.",
    ),
    expected="An array of whole numbers, `[steps, images]`.",
)

EXERCISES = (CONTRASTIVE, COVER, OWNED, CONTROL)

# Predictions and quiz -----------------------------------------------------------------------------------------------

PREDICTIONS = (
    Guess(
        "14.kept",
        "Neither the pictures nor the captions of a hundred Latin letters were in pre-training. We show the model one "
        "of them, with its own caption and those of four others. How often does it choose the right one?",
        ("about as often as by chance, 20 %", "in half of the cases", "in nine of ten cases"),
        why="The parts of these captions are known from other letters: the model has seen other letters with an ACUTE, "
        "and an E with other accents.",
        read="A classifier without new weights",
    ),
    Guess(
        "14.script",
        "On which of the four other scripts will the captions help most?",
        ("Greek", "Cyrillic", "Armenian", "Georgian"),
        why="Many Cyrillic letters look like Latin ones and share words of their names with them, down to WITH "
        "DIAERESIS and WITH BREVE.",
        read="A classifier without new weights",
    ),
    Guess(
        "14.some",
        "With this $J$ a given letter is left out by all sub-tasks with a probability of 0.1 %. How often is there "
        "*some* letter of the thirty that none of them contains?",
        ("in 0.1 % of the draws", "in about 3 %", "in about 30 %"),
        why="Each of the thirty letters adds its 0.1 %. That two are missed at once is so rare that the sum is nearly "
        "exact.",
        read="Exercise: how many sub-tasks",
    ),
    Guess(
        "14.control",
        "The control takes as many steps as MAMF, on minibatches of all thirty letters. How many query pictures will "
        "it misread, compared with the two others?",
        (
            "as many as the usual classical run",
            "fewer than that, more than MAMF",
            "about as many as MAMF",
            "fewer than MAMF",
        ),
        why="The usual run had not learned all that it could in so few steps. And a step of the control tells "
        "about twenty letters apart, a step of MAMF only five.",
        read="The comparison as it is usually made",
    ),
    Guess(
        "14.probe",
        "The linear probe ignores the captions and trains 960 numbers in place of both towers. It takes as many steps "
        "as the control. Where will it end?",
        (
            "behind the usual classical run",
            "between the usual classical run and the control",
            "ahead of the control",
        ),
        why="The frozen features of a picture are good already. The captions of an unknown script are not, and the "
        "other methods begin with them.",
        read="A classifier without new weights",
    ),
)

QUIZ = (
    Question(
        prompt="A model of images and captions is shown a picture of a Georgian letter and five Georgian captions, and "
        "is right about as often as by chance. Which of these is the likeliest reason?",
        options=(
            "Zero-shot classification needs a support set, and there was none.",
            "Neither these shapes nor the words of these captions occurred in pre-training.",
            "The logit scale was too large for five captions.",
        ),
        answer=1,
        feedback=(
            "It needs none: a caption for each class is enough, as on the hundred Latin letters that were kept.",
            "Yes. A caption helps as far as its parts are known. On the kept Latin letters they were.",
            "A common factor of all logits does not change which one is the largest.",
        ),
    ),
    Question(
        prompt="Method A makes half the errors of method B. It took six times as many steps, and it samples its "
        "batches in another way. What follows?",
        options=(
            "Its way of sampling halves the errors.",
            "Its steps halve the errors.",
            "Nothing about either, until a third run shares one of the two with each of them.",
        ),
        answer=2,
        feedback=(
            "The steps could have done it, as they did here.",
            "They did so here, but the two runs alone cannot show it.",
            "Yes. With two differences between two runs, every effect has two explanations.",
        ),
    ),
    Question(
        prompt="MAMF takes many inner steps on each sub-task, and every sub-task begins where the last one ended. What "
        "would Reptile do differently?",
        options=(
            "It would move only a part of the way to the end of the sub-task, so that older ones keep more weight.",
            "It would differentiate through the inner loop.",
            "It would need a query set for each sub-task.",
        ),
        answer=0,
        feedback=(
            "Yes. With an outer learning rate of 1 and one task in a step, Reptile is MAMF.",
            "That is MAML. Reptile uses nothing but where the inner loop ends.",
            "Neither Reptile nor MAMF needs one.",
        ),
    ),
)

# The record ---------------------------------------------------------------------------------------------------------


@functools.cache
def record() -> dict[str, Any]:
    """What `image_text` has measured."""
    return json.loads(image_text.RECORD.read_text("utf-8"))


def errors(way: str, rate: float = RATE, adapted: bool = True) -> _Array:
    """Per cent misread, [run, checkpoint]: after the steps at test, or before them."""
    return np.array(record()["errors"][way][f"{rate:g}"][0 if adapted else 1])


def steps() -> Int[np.ndarray, " n"]:
    """The numbers of gradient steps of the checkpoints."""
    return np.array(record()["steps"])


def interval(values: _Array) -> tuple[float, float]:
    """(mean, half width of its 95 % interval) over twenty runs, by Student's t."""
    return float(np.mean(values)), float(2.093 * np.std(values, ddof=1) / np.sqrt(len(values)))


def at_end(way: str, rate: float = RATE, adapted: bool = True) -> _Array:
    """Per cent misread by each run after all steps."""
    return errors(way, rate, adapted)[:, -1]


def at_start(adapted: bool = True) -> _Array:
    """Per cent misread by each run from a probe of zeros."""
    return errors("linear probe", SETTINGS.probe_rates[1], adapted)[:, 0]


def usual(rate: float = RATE) -> _Array:
    """Per cent misread by each run of classical fine-tuning after the usual number of epochs."""
    return errors("classical", rate)[:, list(steps()).index(SETTINGS.usual_steps)]


# Figures ------------------------------------------------------------------------------------------------------------

BLUE, ORANGE, MUTED, TEXT = (plots.PALETTE[name] for name in ("blue", "orange", "muted", "text"))


@functools.cache
def model() -> tuple[Any, Callable]:
    """(params, apply) of the pre-trained towers; apply is compiled."""
    params, apply = image_text.load()
    return params, jax.jit(apply)


def _picture(d: diagrams.Drawing, x: float, y: float, pixels: _Array, side: float = 42.0) -> None:
    """A letter, in the colour of the text."""
    size = side / SIZE
    for i, row in enumerate(np.asarray(pixels).reshape(SIZE, SIZE)):
        start = None
        for j, ink in enumerate([*row, 0.0]):
            if ink > 0.4 and start is None:
                start = j
            if ink <= 0.4 and start is not None:
                left, right = x + start * size, x + j * size
                top = y + i * size
                corners = [(left, top), (right, top), (right, top + size), (left, top + size)]
                d.path(corners, diagrams.TEXT, width=0, fill=diagrams.TEXT)
                start = None


_SHOWN_LETTERS = ("LATIN CAPITAL LETTER A", "LATIN SMALL LETTER E WITH ACUTE", "CYRILLIC CAPITAL LETTER ZHE")


def _known_picture(name: str) -> _Array:
    images, _, names = image_text.letters(name.split()[0])
    return images[names.index(name), 0]


def _towers(width: float, height: float) -> str:
    """Pictures go through one tower, captions through another, and both end in one space."""
    d = diagrams.Drawing(width, height)
    rows = [height * f for f in (0.14, 0.44, 0.74)]
    side = 40
    for name, y in zip(_SHOWN_LETTERS[:3], rows, strict=True):
        d.box(4, y - side / 2, side, side)
        _picture(d, 8, y - side / 2 + 4, _known_picture(name), side - 8)
    tower_x, tower_w = 0.17 * width, 62
    d.box(tower_x, rows[0] - 20, tower_w, rows[2] - rows[0] + 40, BLUE)
    d.text(tower_x + tower_w / 2, rows[1] - 4, "image", BLUE, bold=True)
    d.text(tower_x + tower_w / 2, rows[1] + 14, "tower", BLUE, bold=True)
    text_x = 0.66 * width - 8
    d.box(text_x, rows[0] - 20, tower_w, rows[2] - rows[0] + 40, ORANGE)
    d.text(text_x + tower_w / 2, rows[1] - 4, "text", ORANGE, bold=True)
    d.text(text_x + tower_w / 2, rows[1] + 14, "tower", ORANGE, bold=True)
    cx, radius = (tower_x + tower_w + text_x) / 2, 0.24 * height
    cy = rows[1]
    angles = np.linspace(0, 2 * np.pi, 60)
    d.path([(cx + radius * np.cos(a), cy + radius * np.sin(a)) for a in angles], MUTED, "3 4", 1.2)
    for angle, y, words in zip((-2.0, -0.6, 1.75), rows, ("A", "E WITH ACUTE", "ZHE"), strict=True):
        for shift, color, filled in ((-0.13, BLUE, True), (0.13, ORANGE, False)):
            at = (cx + radius * np.cos(angle + shift), cy + radius * np.sin(angle + shift))
            d.point(*at, color, filled)
        d.path([(side + 8, y), (tower_x - 2, y)], BLUE, width=1.2)
        d.path([(text_x + tower_w + 2, y), (text_x + tower_w + 12, y)], ORANGE, width=1.2)
        d.text(text_x + tower_w + 16, y + 4, words, TEXT, "start", size=12)
    d.arrow((tower_x + tower_w + 3, cy), (cx - radius - 8, cy), BLUE)
    d.arrow((text_x - 3, cy), (cx + radius + 12, cy), ORANGE)
    d.text(cx, height - 8, "vectors of norm 1", MUTED, size=13)
    return d.svg()


def towers_diagram() -> None:
    """Shows the two towers."""
    diagrams.show(
        _towers(640, 240),
        "On the left three pictures of letters go into an image tower, on the right their three captions into a text "
        "tower. Both towers end on one circle, the vectors of norm 1, on which each picture lies beside its caption.",
        title="Two towers, one space: a picture should lie beside its caption",
        caption="Filled: pictures. Open: captions. The captions are shortened; the third letter is Cyrillic.",
    )


def five_captions(images: _Array, names: list[str], probabilities: _Array) -> None:
    """Shows the probabilities of the captions for one picture of each letter.

    Args:
      images: of the letters, [num_letters, pixels].
      names: their captions.
      probabilities: [num_letters, num_letters].
    """
    d = diagrams.Drawing(640, 70 + 46 * len(names))
    left, wide, top = 66, 114, 62
    for j, name in enumerate(names):
        for line, words in enumerate(_wrapped(name)):
            d.text(left + (j + 0.5) * wide, 16 + 17 * line, words, MUTED, size=12)
    for i, image in enumerate(images):
        y = top + 46 * i
        d.box(14, y, 40, 40)
        _picture(d, 18, y + 4, image, 32)
        for j, share in enumerate(100 * np.asarray(probabilities)[i]):
            x = left + j * wide
            d.path([(x + 8, y + 33), (x + wide - 8, y + 33)], diagrams.LINE, width=4)
            if share >= 1:
                d.path([(x + 8, y + 33), (x + 8 + (wide - 16) * share / 100, y + 33)], BLUE, width=4)
            words = f"{share:.0f} %" if share >= 0.5 else "< 1 %"
            d.text(x + wide / 2, y + 23, words, BLUE if i == j else TEXT, bold=i == j)
    diagrams.show(
        d.svg(),
        "A table of probabilities. Each row is a picture of a letter that pre-training did not see, each column a "
        "caption; the captions of the pictures stand on the diagonal, and have the largest probability in each row.",
        title="Each picture is compared with five captions",
        caption="Probabilities of the captions for one picture of each letter; those of its own caption are bold. The "
        "captions are shown without LATIN and LETTER.",
    )


def _wrapped(name: str) -> list[str]:
    words, lines = name.removeprefix("LATIN ").replace("LETTER ", "").split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 12:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


SEEN_SCALE = (
    "Bars: the probabilities of five captions for one picture, computed from the same five cosines. With a logit scale "
    "near zero they are nearly equal; the larger it is, the more of the probability goes to the largest cosine."
)


FIVE = (
    "LATIN SMALL LETTER O WITH DIAERESIS",
    "LATIN SMALL LETTER O WITH CIRCUMFLEX",
    "LATIN SMALL LETTER A WITH ACUTE",
    "LATIN CAPITAL LETTER A WITH DIAERESIS",
    "LATIN CAPITAL LETTER N",
)
"""Captions of letters that were kept."""


@functools.cache
def _five_cosines() -> _Array:
    """Of one picture of the second letter with the five captions."""
    params, apply = model()
    images, captions, names = image_text.letters("LATIN")
    five = [names.index(name) for name in FIVE]
    return np.asarray(apply(params, images[five[1], 2:3], captions[five]))[0] / math.exp(params["logit_scale"][...])


def scaled(logit_scale: float) -> Figure:
    """The probabilities of five captions for one picture, for some logit scale."""
    cosines = _five_cosines()
    weights = np.exp(math.exp(logit_scale) * (cosines - cosines.max()))
    shares = 100 * weights / weights.sum()
    figure, (axes,) = plots.subplots(height=2.9)
    places = np.arange(len(shares))
    right = [i == 1 for i in places]
    axes.barh(places, shares, color=[BLUE if each else MUTED for each in right], height=0.6)
    for place, share, cosine in zip(places, shares, cosines, strict=True):
        axes.text(share + 1, place, f"{share:.0f} %, cosine {plots.number(cosine, 2)}", va="center", color=TEXT)
    named = [name.removeprefix("LATIN ") for name in FIVE]
    named[1] += " (right)"
    axes.set_yticks(places, named)
    axes.invert_yaxis()
    axes.set_xlim(0, 135)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel(f"probability in %; the cosines are multiplied by {math.exp(logit_scale):.3g}")
    axes.grid(visible=False)
    return figure


def plans_diagram() -> None:
    """Shows which letters the steps of classical fine-tuning and of MAMF see."""
    d = diagrams.Drawing(620, 226)
    rng = np.random.default_rng(3)
    wide, tall, left = 26, 17, 196
    names = "abcdefghijklmnopqrstuvwxyzäöüß"
    blocks = [np.sort(rng.permutation(30)[:5]) for _ in range(2)]
    rows = (("classical", "other letters in every step", 8), ("MAMF", "a sub-task for eight steps", 124))
    for name, words, top in rows:
        d.text(left - 14, top + 42, name, TEXT, "end", bold=True)
        d.text(left - 14, top + 62, words, MUTED, "end", size=12)
        for step in range(16):
            x = left + step * wide
            if name == "classical":
                d.band(x + 1, top, wide - 2, 5 * tall + 14, ORANGE)
            elif step % 8 == 0:
                d.band(x + 1, top, 8 * wide - 2, 5 * tall + 14, BLUE)
            chosen = blocks[step // 8] if name == "MAMF" else np.sort(rng.permutation(30)[:5])
            for i, letter in enumerate(chosen):
                d.text(x + wide / 2, top + 18 + i * tall, names[letter], TEXT, size=13)
    diagrams.show(
        d.svg(),
        "Sixteen steps of both methods, in each of which five letters are named. In classical fine-tuning they "
        "change from step to step. In MAMF they stay the same for eight steps, and then another sub-task begins.",
        title="Classical fine-tuning mixes the letters in every step, MAMF takes one sub-task after another",
        caption="The first 16 steps. The thirty letters are called a to z, ä, ö, ü and ß here; of those that a step of "
        "classical fine-tuning sees, five are shown.",
    )


def owned_weights(rates: tuple[float, ...] = (1.0, 0.3, 0.1), shrink: float = 0.2, number: int = 20) -> None:
    """Shows the weight of each sub-task's minimum in the result, for some outer learning rates."""
    j = np.arange(1, number + 1)
    curves = {
        "MAMF (η = 1)" if eta == 1 else f"η = {eta:g}": _owned(shrunk=lambda a, rate, steps: shrink + 0 * a)(
            np.ones(number), 0.1, 1, eta
        )[1:]
        for eta in rates
    }
    plots.show(
        plots.lines(j, curves, "sub-task", "weight of its minimum", ylim=(0, 0.85)),
        "Weight of each sub-task's minimum in the final parameters against the number of the sub-task. With an outer "
        "learning rate of 1 the last sub-task has the weight 0.8 and the one before it 0.16. With smaller rates the "
        "weights are spread over more sub-tasks.",
        title="With η = 1 the last sub-task owns most of the result",
        caption=f"Twenty sub-tasks of equal curvature, on each of which the distance shrinks to ρ = {shrink:g}.",
    )


def table_of(columns: dict[str, list[float]], steps: dict[str, Any], title: str, caption: str) -> None:
    """Shows the errors of some runs, one for each script, with their mean."""
    plots.table(
        {
            name: [steps[name], *(f"{each:.1f} %" for each in values), f"{np.mean(values):.1f} %"]
            for name, values in columns.items()
        },
        ["", "gradient steps", *(script.capitalize() for script in SETTINGS.scripts), "mean"],
        title=title,
        caption=caption,
    )


def zero_shot_table(accuracies: dict[str, float]) -> None:
    """Shows how often the right one of five captions is chosen."""
    sizes = {"kept Latin letters": SETTINGS.num_kept} | {
        script.capitalize(): len(image_text.letters(script)[2]) for script in SETTINGS.scripts
    }
    plots.table(
        {name: [sizes[name], f"{100 * value:.0f} %"] for name, value in accuracies.items()},
        ["", "letters", "right caption of five"],
        title="Captions help where letters and their names are familiar",
        caption="Zero-shot classification, 400 random choices of five letters; by chance it would be 20 %.",
    )


def probe_table() -> None:
    """Shows the linear probe beside the other ways to use the labelled pictures."""
    text = {"after": True, "before": False}
    rows: dict[str, tuple[int, dict[str, _Array]]] = {
        "no fine-tuning": (0, {k: errors("classical", adapted=a)[:, 0] for k, a in text.items()}),
        "classical, 8 epochs": (
            SETTINGS.usual_steps,
            {k: errors("classical", adapted=a)[:, list(steps()).index(SETTINGS.usual_steps)] for k, a in text.items()},
        ),
        "MAMF": (SETTINGS.num_steps, {k: at_end("MAMF", adapted=a) for k, a in text.items()}),
        "control": (SETTINGS.num_steps, {k: at_end("classical", adapted=a) for k, a in text.items()}),
        "linear probe, not trained": (0, {k: at_start(a) for k, a in text.items()}),
        "linear probe": (
            SETTINGS.num_steps,
            {k: at_end("linear probe", SETTINGS.probe_rates[1], a) for k, a in text.items()},
        ),
    }
    plots.table(
        {
            name: [number, "{:.1f} ± {:.1f} %".format(*interval(found["after"])), f"{found['before'].mean():.0f} %"]
            for name, (number, found) in rows.items()
        },
        ["", "gradient steps", "after 5 steps at test", "without them"],
        title="A linear classifier on frozen features is ahead of fine-tuning",
        caption=f"Per cent misread, mean of twenty runs with its 95 % interval; learning rate {RATE:g}, and "
        f"{SETTINGS.probe_rates[1]:g} for the probe. The last number of the first row is zero-shot classification.",
    )


def _usual_point(axes: Any, name: str) -> None:
    """Marks classical fine-tuning after the usual number of epochs."""
    at = (SETTINGS.usual_steps, usual().mean())
    axes.plot(*at, "o", color=TEXT, markerfacecolor=plots.PALETTE["card"], markersize=6)
    axes.text(4, at[1] - 2.1, name, color=TEXT, weight="bold")


def curves() -> None:
    """Shows the error of all methods against gradient steps, and the difference of two of them, with intervals."""
    figure, axes = plots.subplots(2, height=3.9)
    at = steps()
    names = ("classical", "MAMF", "FO-MAML")
    plots.lines(
        at,
        {name: errors(name).mean(axis=0) for name in names},
        "gradient steps",
        "% misread",
        title="mean of twenty runs",
        ylim=(0, 10.5),
        axes=axes[0],
    )
    _usual_point(axes[0], "8 epochs")
    gap = errors("MAMF") - errors("classical")
    mean, half = np.array([interval(each) for each in gap.T]).T
    plots.lines(
        at, {"difference": mean}, "gradient steps", "% misread more", title="MAMF minus classical", axes=axes[1]
    )
    axes[1].fill_between(at, mean - half, mean + half, color=BLUE, alpha=0.2, linewidth=0)
    axes[1].axhline(0, color=MUTED, linewidth=0.8)
    axes[1].set_ylim(-1, 5)
    plots.show(
        figure,
        "Left: per cent of query images misread against gradient steps. Classical fine-tuning falls fastest; MAMF and "
        "FO-MAML lie above it, close together. A point marks classical fine-tuning after eight epochs. Right: the "
        "difference of MAMF and classical fine-tuning with its 95 % interval, above zero from 48 steps on.",
        title="At equal numbers of steps, mixing all letters is ahead",
        caption=f"Learning rate {RATE:g}, after {SETTINGS.test_steps} steps at test. Band: 95 % interval over runs.",
    )


def rates_table() -> None:
    """Shows the errors of all methods after all steps, for each learning rate."""
    rows: dict[str, Sequence[Any]] = {}
    for rate in SETTINGS.rates:
        columns = [usual(rate), at_end("classical", rate), at_end("MAMF", rate), at_end("FO-MAML", rate)]
        gap, half = interval(columns[2] - columns[1])
        rows[f"{rate:g}"] = [f"{each.mean():.1f} %" for each in columns] + [f"{gap:.1f} ± {half:.1f}"]
    plots.table(
        rows,
        [
            "learning rate",
            f"classical, {SETTINGS.usual_steps} steps",
            f"classical, {SETTINGS.num_steps} steps",
            f"MAMF, {SETTINGS.num_steps} steps",
            f"FO-MAML, {SETTINGS.num_steps} steps",
            "MAMF − classical, equal steps",
        ],
        title="At each learning rate, classical fine-tuning with as many steps is ahead of MAMF",
        caption="Per cent misread, mean of twenty runs; the last column with its 95 % interval over runs.",
    )


def _signed(mean: float, half: float) -> str:
    return f"{'+' if mean > 0 else '−'}{abs(mean):.1f} ± {half:.1f}"


def why_table() -> None:
    """Shows the runs between classical fine-tuning and MAMF."""
    rows = {
        "classical: other letters in every step": "classical",
        "the same, Adam restarted every 8 steps": "classical, restarted",
        "another sub-task in every step": "fresh sub-tasks",
        "MAMF without restarts of Adam": "MAMF, not restarted",
        "MAMF": "MAMF",
    }
    plots.table(
        {
            name: [
                f"{at_end(way).mean():.1f} %",
                f"{at_end(way, adapted=False).mean():.0f} %",
                "" if way == "classical" else _signed(*interval(at_end(way) - at_end("classical"))),
            ]
            for name, way in rows.items()
        },
        ["", "after 5 steps at test", "without them", "difference to classical"],
        title="Between classical fine-tuning and MAMF",
        caption=f"Per cent misread after {SETTINGS.num_steps} gradient steps, learning rate {RATE:g}, twenty runs. The "
        "last column belongs to the first one, with its 95 % interval.",
    )


def control_rows(function: Callable) -> tuple[Int[np.ndarray, "num_steps batch"], str]:
    """The rows of the control for the thirty letters: the learner's where they pass the check, else the course's."""
    given = (0, SETTINGS.num_labels, NUM_FACES // 2, SETTINGS.num_ways, SETTINGS.num_tasks, SETTINGS.epochs)
    if grade(CONTROL, function).status == "passed":
        return np.asarray(function(*given)), "yours"
    return CONTROL.reference(*given), "the course's, because yours has not passed"


def measured_runs(apply: Callable, params: Any, seed: int = 0) -> tuple[list[image_text.Run], dict[str, list[float]]]:
    """A run on each script: its data, and the errors without fine-tuning, after the usual classical run, and MAMF."""
    runs = [image_text.draw_run(script, seed) for script in SETTINGS.scripts]
    found: dict[str, list[float]] = {"no fine-tuning": [], "classical, 8 epochs": [], "MAMF": []}
    work = [(name, run) for run in runs for name in found]
    for name, run in bar(work, "fine-tuning", seconds=6):
        tuned = params
        if name == "MAMF":
            tuned = image_text.fine_tuned(apply, params, run.captions, image_text.blocks(SETTINGS, run), RATE)
        elif name != "no fine-tuning":
            plan = jax.tree.map(lambda leaf: leaf[: SETTINGS.usual_steps], image_text.classical(SETTINGS, run))
            tuned = image_text.fine_tuned(apply, params, run.captions, plan, RATE)
        found[name].append(float(image_text.misread(apply, tuned, run)))
    return runs, found


def opening() -> tuple[str, str]:
    """The picture of the lesson: the towers, and what the usual comparison compares."""
    at = steps()
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    plots.lines(
        at,
        {"MAMF": errors("MAMF").mean(axis=0)},
        "gradient steps",
        "",
        ylim=(0, 11),
        axes=axes,
    )
    _usual_point(axes, "classical, 8 epochs")
    axes.axvline(SETTINGS.num_steps, color=MUTED, linewidth=1, linestyle=":")
    axes.text(SETTINGS.num_steps - 6, 0.7, "classical at as many steps: ?", color=ORANGE, ha="right", weight="bold")
    right = plots.svg(axes.figure)
    return diagrams.opening(
        _towers(470, 236),
        right,
        ("Pictures and captions meet in one space", "MAMF is better, after six times as many steps"),
        (
            "Each tower ends on the vectors of norm 1.",
            "Per cent misread in 5-way tasks, after five steps at test.",
        ),
        "Left: pictures of letters go into an image tower and captions into a text tower, and both end on one circle, "
        "each picture beside its caption. Right: the error of MAMF falls with gradient steps. Classical fine-tuning is "
        "a single point at 48 steps, higher than MAMF's end at 304. What classical fine-tuning reaches with as many "
        "steps is a question mark.",
    )
