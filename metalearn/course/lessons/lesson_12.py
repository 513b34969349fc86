"""Lesson 12, few-shot images: its exercises, predictions, quiz and figures."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import few_shot
from metalearn.course.widgets import diagrams, draw_five, playgrounds
from metalearn.task import Params, Task

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

_Array = Float[np.ndarray, "..."]

# 12.coefficients ----------------------------------------------------------------------------------------------------


def _one_hot(labels, p):
    return np.eye(p.shape[1])[np.asarray(labels)]


def _terms(combine):
    """The four terms of c_qs, [num_query, num_support] each, put together in some way."""

    def coefficients(p_support, labels_support, p_query, labels_query):
        e_support, e_query = _one_hot(labels_support, p_support), _one_hot(labels_query, p_query)
        return combine(
            p_query @ e_support.T,  # the probability that q gives to the class of s
            e_query @ p_support.T,  # the probability that s gives to the class of q
            p_query @ p_support.T,
            e_query @ e_support.T,  # same class
        )

    return coefficients


_coefficients = _terms(lambda a, b, inner, same: a + b - inner - same)


def _with_loops(p_support, labels_support, p_query, labels_query):
    """An alternative: term by term."""
    found = np.empty((len(p_query), len(p_support)))
    for q, (p_q, y_q) in enumerate(zip(p_query, labels_query, strict=True)):
        for s, (p_s, y_s) in enumerate(zip(p_support, labels_support, strict=True)):
            found[q, s] = p_q[y_s] + p_s[y_q] - np.dot(p_q, p_s) - (y_q == y_s)
    return found


def _as_errors(p_support, labels_support, p_query, labels_query):
    """An alternative: minus the inner product of two errors."""

    def error(p, labels):
        return jnp.asarray(p).at[jnp.arange(len(p)), labels].add(-1.0)

    return -jnp.einsum("qc,sc->qs", error(p_query, labels_query), error(p_support, labels_support))


def _one_side(p_support, labels_support, p_query, labels_query):
    return (p_query - _one_hot(labels_query, p_query)) @ p_support.T


def _probabilities(rng, number, num_classes):
    return rng.dirichlet(np.ones(num_classes), number)


def _predicted(rng, num_support, num_query, num_classes):
    labels = [rng.permutation(np.arange(n) % num_classes) for n in (num_support, num_query)]
    return (
        _probabilities(rng, num_support, num_classes),
        labels[0],
        _probabilities(rng, num_query, num_classes),
        labels[1],
    )


def _from_a_zero_head(rng):
    _, labels, p_query, labels_query = _predicted(rng, 5, 10, 5)
    return np.full((5, 5), 0.2), labels, p_query, labels_query


COEFFICIENTS = Exercise(
    id="12.coefficients",
    title="Your line of the derivation: who attracts whom",
    difficulty=2,
    minutes=12,
    reference=_coefficients,
    instances=lambda rng: [
        _predicted(rng, 5, 15, 5),
        _predicted(rng, 4, 4, 3),
        _predicted(rng, 7, 3, 6),
        _from_a_zero_head(rng),
        _predicted(rng, 1, 2, 2),
    ],
    misconceptions=(
        Misconception(
            "as with a zero head",
            _terms(lambda a, b, inner, same: a - same),
            "Your result equals $p_{y_s}(q) - 1[y_q = y_s]$. That is right where $p(s)$ is uniform, as it is with a "
            "zero head, and one instance has it so. For another head $p(s)$ enters as well.",
        ),
        Misconception(
            "opposite sign",
            _terms(lambda a, b, inner, same: same + inner - a - b),
            "Your result is the target with the opposite sign. In line 1 the error of a *support* example enters as "
            "$e_{y_s} - p(s)$, and in line 2 that of a query example as $p(q) - e_{y_q}$.",
        ),
        Misconception(
            "transposed",
            lambda *given: _coefficients(*given).T,
            "Your result is the transpose of the target. Rows belong to query examples, columns to support examples.",
        ),
        Misconception(
            "same class left out",
            _terms(lambda a, b, inner, same: a + b - inner),
            "Your result lacks the term $-1[y_q = y_s]$. What is $e_{y_q}^\\top e_{y_s}$?",
        ),
        Misconception(
            "inner product left out",
            _terms(lambda a, b, inner, same: a + b - same),
            "Your result lacks the term $-\\langle p(q), p(s) \\rangle$. Two differences, multiplied out, give four "
            "terms.",
        ),
        Misconception(
            "inner product added",
            _terms(lambda a, b, inner, same: a + b + inner - same),
            "Your result has $\\langle p(q), p(s) \\rangle$ with the opposite sign.",
        ),
        Misconception(
            "the support example's doubt left out",
            _terms(lambda a, b, inner, same: a - inner - same),
            "Your result lacks the term $p_{y_q}(s)$: the probability that the support example gives to the class of "
            "the query example.",
        ),
        Misconception(
            "the query example's doubt left out",
            _terms(lambda a, b, inner, same: b - inner - same),
            "Your result lacks the term $p_{y_s}(q)$: the probability that the query example gives to the class of the "
            "support example.",
        ),
        Misconception(
            "labels of the support set unused",
            _one_side,
            "Your result equals $\\langle p(q) - e_{y_q}, p(s) \\rangle$. The label of the support example does not "
            "enter it. By which vector is $\\psi(s)$ multiplied in line 1?",
        ),
        Misconception(
            "labels alone",
            _terms(lambda a, b, inner, same: -same),
            "Your result is $-1$ for a pair of one class and $0$ for all others. The probabilities are missing.",
        ),
        Misconception(
            "both probabilities of the own class",
            lambda p_support, labels_support, p_query, labels_query: (
                (p_query * _one_hot(labels_query, p_query)).sum(1)[:, None]
                + (p_support * _one_hot(labels_support, p_support)).sum(1)
                - p_query @ p_support.T
                - _one_hot(labels_query, p_query) @ _one_hot(labels_support, p_support).T
            ),
            "Your result contains $p_{y_q}(q)$ and $p_{y_s}(s)$, each example's probability of its *own* class. The "
            "products of line 3 pair the label of one example with the probabilities of the other.",
        ),
    ),
    relatives=(
        (
            "what p(q) gives in place of p(q) - e, without the label of the query example",
            _terms(lambda a, b, inner, same: a - inner),
        ),
        (
            "what + 1 gives for a pair of one class, where - 1 belongs",
            _terms(lambda a, b, inner, same: a + b - inner + same),
        ),
        (
            "what - 1 gives for a pair of different classes, where one of one class should have it",
            _terms(lambda a, b, inner, same: a + b - inner - (1 - same)),
        ),
        (
            "what p(q) gives at the class of q, where its value at the class of s belongs",
            lambda p_support, labels_support, p_query, labels_query: (
                (p_query * _one_hot(labels_query, p_query)).sum(1)[:, None]
                + _terms(lambda a, b, inner, same: b - inner - same)(p_support, labels_support, p_query, labels_query)
            ),
        ),
        (
            "what p(s) gives at the class of s, where its value at the class of q belongs",
            lambda p_support, labels_support, p_query, labels_query: (
                (p_support * _one_hot(labels_support, p_support)).sum(1)
                + _terms(lambda a, b, inner, same: a - inner - same)(p_support, labels_support, p_query, labels_query)
            ),
        ),
    ),
    alternatives=(_with_loops, _as_errors),
    hints=(
        "Put line 1 into $W_1\\, (p(q) - e_{y_q})$. Apart from $W$, what remains is a sum over $s$ of $\\psi(s)$ "
        "times a *number*. Which two vectors are multiplied in it?",
        "`np.eye(num_classes)[labels]` has the vectors $e_{y}$ as rows. All numbers together are one matrix product "
        "of two matrices of errors.",
    ),
    expected="An array of shape [num_query, num_support]. Pairs of one class are never positive in it.",
)

# 12.split -----------------------------------------------------------------------------------------------------------


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _split_of(
    combine=lambda error, head, step: (error @ head.T, error @ step.T),
    scale=lambda rate, number: rate / number,
    p_support=_softmax,
    before=False,
    sign=1,
):
    """The split from its parts, each of which can be wrong."""

    def split(psi_support, y_support, psi_query, y_query, head, learning_rate):
        error = _one_hot(y_support, head) - p_support(psi_support @ head)
        step = sign * scale(learning_rate, len(psi_support)) * psi_support.T @ error
        p_query = _softmax(psi_query @ (head if before else head + step))
        return combine(p_query - _one_hot(y_query, head), head, step)

    return split


def _by_theory(psi_support, y_support, psi_query, y_query, head, learning_rate):
    found = ml.theory.contrastive_split(psi_support, y_support, psi_query, y_query, head, learning_rate)
    return found.interference, found.contrastive


def _by_automatic_differentiation(psi_support, y_support, psi_query, y_query, head, learning_rate):
    """An alternative: the whole gradient by automatic differentiation, and the contrastive part as what is left."""

    def losses(features, weights, labels):
        return optax.softmax_cross_entropy_with_integer_labels(features @ weights, labels)

    gradient = jax.grad(lambda weights: losses(psi_support, weights, y_support).mean())(jnp.asarray(head))
    adapted = head - learning_rate * gradient
    whole = jax.grad(lambda features: losses(features, adapted, y_query).sum())(jnp.asarray(psi_query))
    errors = jax.nn.softmax(psi_query @ adapted) - jnp.eye(head.shape[1])[y_query]
    interference = errors @ head.T
    return interference, whole - interference


def _features(rng, num_support, num_query, num_features, num_classes, scale=1.0):
    labels = [rng.permutation(np.arange(n) % num_classes) for n in (num_support, num_query)]
    return (
        rng.normal(0.3, 1, (num_support, num_features)),
        labels[0],
        rng.normal(0.3, 1, (num_query, num_features)),
        labels[1],
        scale * rng.normal(0, 1, (num_features, num_classes)),
        rng.uniform(0.3, 1.5),
    )


SPLIT = Exercise(
    id="12.split",
    title="Split the encoder's gradient in two",
    difficulty=2,
    minutes=12,
    reference=_by_theory,
    instances=lambda rng: [
        _features(rng, 5, 15, 6, 5),
        _features(rng, 6, 4, 4, 3, 0.5),
        _features(rng, 3, 3, 3, 3),
        _features(rng, 5, 5, 8, 5, 0.0),
        _features(rng, 2, 1, 1, 2),
    ],
    misconceptions=(
        Misconception(
            "whole gradient as interference",
            _split_of(lambda error, head, step: (error @ (head + step).T, error @ step.T)),
            "Your contrastive part is right. Your interference equals the whole gradient, with the head *after* the "
            "step. The two parts must add up to it.",
        ),
        Misconception(
            "query probabilities before the step",
            _split_of(before=True),
            "Your result is the one in which $p(q)$ is computed with the head before the step. The query loss judges "
            "the adapted head.",
        ),
        Misconception(
            "sum over the support set",
            _split_of(scale=lambda rate, number: rate),
            "Your result is the one for a support loss that is the *sum* over examples. The inner loop descends their "
            "mean.",
        ),
        Misconception(
            "learning rate missing",
            _split_of(scale=lambda rate, number: 1 / number),
            "Your result is the one for $\\alpha = 1$. Where does the inner learning rate enter?",
        ),
        Misconception(
            "learning rate twice",
            _split_of(scale=lambda rate, number: rate**2 / number),
            "Your result is the one for a learning rate of $\\alpha^2$. Is a step multiplied by $\\alpha$ twice?",
        ),
        Misconception(
            "uphill",
            _split_of(sign=-1),
            "Your result is the one for an inner step that goes uphill: the head is changed by $+\\alpha$ times the "
            "gradient.",
        ),
        Misconception(
            "other order",
            lambda *given: _by_theory(*given)[::-1],
            "You return the two parts in the other order: interference comes first.",
        ),
        Misconception(
            "opposite sign",
            lambda *given: tuple(-part for part in _by_theory(*given)),
            "Both parts have the opposite sign. They are parts of a *gradient*; to descend, one subtracts it.",
        ),
        Misconception(
            "mean over queries",
            lambda *given: tuple(part / len(given[2]) for part in _by_theory(*given)),
            "Both parts are divided by the number of query examples. Each row belongs to the loss of a single one.",
        ),
        Misconception(
            "support probabilities uniform or left out",
            _split_of(p_support=lambda logits: np.full(logits.shape, 1 / logits.shape[1])),
            "Your result is the one in which every $p(s)$ is uniform, as it is with a zero head, or is left out, "
            "which gives the same: a number that is added to all logits changes no probability. Here the head is an "
            "argument, and $p(s)$ follows from it.",
        ),
        Misconception(
            "label of the query example missing",
            _split_of(
                lambda error, head, step: (  # the one negative entry of an error is that of the label
                    (error + (error == error.min(axis=1, keepdims=True))) @ head.T,
                    error @ step.T,
                )
            ),
            "Your contrastive part is right. Your interference equals $W\\, p(q)$, in which the label is missing: from "
            "$p(q)$ the vector $e_{y_q}$ has to be subtracted.",
        ),
    ),
    relatives=(
        (
            "what an inner step gives that is divided by the number of query examples",
            lambda *given: _split_of(scale=lambda rate, number: rate / len(given[2]))(*given),
        ),
        (
            "the right interference, with the whole gradient as the contrastive part",
            _split_of(lambda error, head, step: (error @ head.T, error @ (head + step).T)),
        ),
        (
            "the right contrastive part, with an interference whose p(q) is from before the step",
            lambda *given: (_split_of(before=True)(*given)[0], _split_of()(*given)[1]),
        ),
        (
            "what p(q) gives in place of p(q) - e, without the labels of the query examples",
            lambda psi_support, y_support, psi_query, y_query, head, learning_rate: _split_of(
                lambda error, head, step: tuple((error + _one_hot(y_query, head)) @ matrix.T for matrix in (head, step))
            )(psi_support, y_support, psi_query, y_query, head, learning_rate),
        ),
    ),
    alternatives=(_split_of(), _by_automatic_differentiation),
    hints=(
        "First the step of the head, then $p(q)$ with the head after it. `softmax` turns logits into probabilities.",
        "The head after the step is a sum of two matrices, and so is the gradient $W_1\\, (p(q) - e_{y_q})$. In code "
        "features are rows, so each part is a matrix of errors times the transpose of one of the two.",
    ),
    expected="A pair of arrays of shape [num_query, num_features]. With a zero head the first of them is zero.",
)

# 12.zeroing ---------------------------------------------------------------------------------------------------------


def _toy_gradient(params, batch):
    """Of half the squared distance between the sum of all sines and a number of the batch, in numpy."""
    inputs, labels = batch
    total = sum(np.sin(leaf).sum() for leaf in jax.tree.leaves(params))
    return jax.tree.map(lambda leaf: np.cos(leaf) * (total - inputs.mean() - labels[0]), params)


def _toy_adapt(params, support):
    """Two inner steps."""
    for _ in range(2):
        gradient = _toy_gradient(params, support)
        params = jax.tree.map(lambda leaf, change: leaf - 0.1 * change, params, gradient)
    return params


def _toy_meta_gradient(params, task):
    """FO-MAML's."""
    return _toy_gradient(_toy_adapt(params, task.support), task.query)


def _toy_params(rng, kind):
    draw = lambda *shape: rng.normal(0, 1, shape)  # noqa: E731
    if kind == "dict":
        return {
            "body": {"kernel": draw(3, 4), "bias": draw(4)},
            "head": {"kernel": draw(4, 3), "bias": draw(3)},
        }
    if kind == "tuple":
        return {"body": [draw(3, 5), draw(5, 2)], "head": (draw(2, 3), draw(3))}
    return {"body": draw(3, 3), "head": draw(3)}


def _toy_batch(rng, number):
    return rng.normal(0, 1, (number, 3)), rng.permutation(np.arange(number) % 3)


def _toy(rng, kind):
    return (
        _toy_meta_gradient,
        _toy_adapt,
        _toy_params(rng, kind),
        Task(_toy_batch(rng, 3), _toy_batch(rng, 6)),
        _toy_batch(rng, 3),
    )


def _zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def _zeroed(params):
    return {"body": params["body"], "head": _zeros(params["head"])}


def _same(params):
    return params


def _zeroing(train=_zeroed, masked=_zeroed, deploy=_zeroed, after=_same):
    """Training and test, each of which can be wrong."""

    def zeroing(meta_gradient, adapt, params, task, support):
        return masked(meta_gradient(train(params), task)), after(adapt(deploy(params), support))

    return zeroing


def _by_library(meta_gradient, adapt, params, task, support):
    def select(params):
        return params["head"]

    valued = ml.zeroing_trick(lambda params, task: (jnp.zeros(()), meta_gradient(params, task)), select)
    return valued(params, task)[1], adapt(ml.zero_head(params, select), support)


def _by_chain_rule(meta_gradient, adapt, params, task, support):
    """An alternative: multiply by Z, before and after."""

    def project(tree):
        return {
            part: jax.tree.map(lambda leaf, factor=factor: factor * leaf, tree[part])
            for part, factor in (("body", 1.0), ("head", 0.0))
        }

    return project(meta_gradient(project(params), task)), adapt(project(params), support)


def _first_leaf(params):
    leaves, structure = jax.tree.flatten(params["head"])
    return {"body": params["body"], "head": jax.tree.unflatten(structure, [_zeros(leaves[0]), *leaves[1:]])}


def _last_leaf(params):
    leaves, structure = jax.tree.flatten(params["head"])
    return {"body": params["body"], "head": jax.tree.unflatten(structure, [*leaves[:-1], _zeros(leaves[-1])])}


def _body_zeroed(params):
    return {"body": _zeros(params["body"]), "head": params["head"]}


ZEROING = Exercise(
    id="12.zeroing",
    title="The zeroing trick, at training and at test",
    difficulty=2,
    minutes=10,
    reference=_by_library,
    instances=lambda rng: [_toy(rng, "dict"), _toy(rng, "tuple"), _toy(rng, "array")],
    misconceptions=(
        Misconception(
            "training only",
            _zeroing(deploy=_same),
            "Your gradient is right. Your adapted parameters are those of a task that begins from the *stored* head. "
            "In training that head was never used and never changed, so it is as random as on the first day. What "
            "does a new task begin with?",
        ),
        Misconception(
            "test only",
            _zeroing(train=_same, masked=_same),
            "Your adapted parameters are right. Your gradient is that of plain training, where each task begins with "
            "the learned head. The body would be trained for another head than the one it meets at test.",
        ),
        Misconception(
            "not at all",
            _zeroing(_same, _same, _same),
            "Your result is that of training and adaptation without the zeroing trick.",
        ),
        Misconception(
            "gradient masked instead",
            _zeroing(train=_same),
            "The gradient of the head is zero in your result, and the gradient of the body is taken where the head is "
            "*not* zero. This freezes the head in training. The trick starts each task from a zero head.",
        ),
        Misconception(
            "gradient of the head kept",
            _zeroing(masked=_same),
            "Your adapted parameters are right, and so is the gradient of the body. The part for the head is the "
            "gradient at the zero head. But the loss is a function of $Z\\theta$, to which the head's value makes no "
            "difference: what is its derivative with respect to the head?",
        ),
        Misconception(
            "head set to zero after adaptation",
            _zeroing(deploy=_same, after=_zeroed),
            "Your gradient is right. At test you set the head to zero *after* adaptation, which throws away what it "
            "has learned: every class gets the same probability.",
        ),
        Misconception(
            "both before and after",
            _zeroing(after=_zeroed),
            "Your gradient is right. At test the head is zero before adaptation, as it should be, and zero again "
            "after it. Then every class gets the same probability.",
        ),
        Misconception(
            "first array of the head only",
            _zeroing(_first_leaf, _zeroed, _first_leaf),
            "Your result is right where the head is a single array. Where it has several, only the first of them "
            "seems to be zero when a task begins. Weights *and* bias know the old classes.",
        ),
        Misconception(
            "last array of the head only",
            _zeroing(_last_leaf, _zeroed, _last_leaf),
            "Your result is right where the head is a single array. Where it has several, only the last of them seems "
            "to be zero when a task begins. Weights *and* bias know the old classes.",
        ),
        Misconception(
            "body instead of head",
            _zeroing(_body_zeroed, _body_zeroed, _body_zeroed),
            "In your result the *body* is zero and the head is not.",
        ),
    ),
    relatives=(
        (
            "the right gradient, with the stored head put back after the adaptation",
            lambda meta_gradient, adapt, params, task, support: (
                _zeroing()(meta_gradient, adapt, params, task, support)[0],
                {"body": adapt(_zeroed(params), support)["body"], "head": params["head"]},
            ),
        ),
        (
            "the target, with the stored head in place of the gradient of the head",
            lambda meta_gradient, adapt, params, task, support: (
                {"body": meta_gradient(_zeroed(params), task)["body"], "head": params["head"]},
                adapt(_zeroed(params), support),
            ),
        ),
        ("what a zero body and a zero head give", _zeroing(_zeros, _zeroed, _zeros)),
    ),
    alternatives=(_zeroing(), _by_chain_rule),
    hints=(
        "Make new parameters once, with the same body and a head of zeros. `jax.tree.map(np.zeros_like, ...)` works "
        "for any pytree.",
        "Use these parameters in both places. Then look at the gradient's part for the head: the stored head does not "
        "enter the loss.",
    ),
    expected="A pair of two pytrees like `params`. The part of the first one for the head is zero.",
)

# 12.cka -------------------------------------------------------------------------------------------------------------


def _centred(x):
    return x - x.mean(axis=0)


def _cka_of(centre=_centred, numerator=lambda cross: np.square(cross).sum(), denominator=None):
    """CKA from its parts, each of which can be wrong."""

    def cka(x, y):
        x, y = centre(np.asarray(x)), centre(np.asarray(y))
        norms = [np.linalg.norm(each.T @ each) for each in (x, y)]
        below = norms[0] * norms[1] if denominator is None else denominator(x, y, norms)
        return numerator(x.T @ y) / below

    return cka


_cka = _cka_of()


def _by_gram_matrices(x, y):
    """An alternative: the cosine of the angle between two centred matrices of inner products."""
    grams = [jnp.asarray(_centred(each) @ _centred(each).T).ravel() for each in (x, y)]
    return grams[0] @ grams[1] / (jnp.linalg.norm(grams[0]) * jnp.linalg.norm(grams[1]))


def _by_singular_values(x, y):
    """An alternative: from the singular value decompositions of both."""
    (u, a, _), (v, b, _) = (np.linalg.svd(_centred(each), full_matrices=False) for each in (x, y))
    overlap = np.square(u.T @ v)
    return (a**2 @ overlap @ b**2) / np.sqrt((a**4).sum() * (b**4).sum())


def _canonical(x, y):
    """The mean squared canonical correlation."""
    bases = [np.linalg.qr(_centred(each))[0] for each in (x, y)]
    return np.square(bases[0].T @ bases[1]).sum() / min(x.shape[1], y.shape[1])


def _first_feature(x, y):
    return np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2


def _related(rng, number, width_x, width_y, noise):
    x = rng.normal(0, 1, (number, width_x)) * np.linspace(0.3, 2, width_x) + rng.normal(0, 2, width_x)
    y = (
        x @ rng.normal(0, 1, (width_x, width_y))
        + noise * rng.normal(0, 1, (number, width_y))
        + rng.normal(0, 2, width_y)
    )
    return x, y


def _turned(rng):
    x, _ = _related(rng, 12, 4, 4, 0)
    turn = np.linalg.qr(rng.normal(0, 1, (4, 4)))[0]
    return x, 3 * x @ turn + rng.normal(0, 1, 4)


CKA = Exercise(
    id="12.cka",
    title="How similar are two layers?",
    difficulty=2,
    minutes=10,
    reference=_cka,
    instances=lambda rng: [
        _related(rng, 20, 5, 3, 1.0),
        _related(rng, 9, 4, 4, 2.0),
        _turned(rng),
        _related(rng, 15, 2, 6, 0.5),
    ],
    misconceptions=(
        Misconception(
            "not centred",
            _cka_of(centre=lambda x: x),
            "Your result is the one without centring. Then two layers look alike merely because their means are large. "
            "Subtract the mean of each feature.",
        ),
        Misconception(
            "means over features",
            _cka_of(centre=lambda x: x - x.mean(axis=1, keepdims=True)),
            "Your result is the one in which each *example* has the mean of its features subtracted. It is each "
            "feature whose mean over the examples should be zero.",
        ),
        Misconception(
            "one number for the mean",
            _cka_of(centre=lambda x: x - x.mean()),
            "Your result is the one in which one number, the mean of all entries, is subtracted. Each feature has a "
            "mean of its own.",
        ),
        Misconception(
            "no square",
            _cka_of(numerator=np.linalg.norm),
            "Your numerator is $\\lVert X^\\top Y \\rVert$. In the definition it is squared, and so the ratio does "
            "not depend on the scale of the features.",
        ),
        Misconception(
            "root",
            lambda x, y: np.sqrt(_cka(x, y)),
            "Your result is the square root of the target.",
        ),
        Misconception(
            "norms of the features",
            _cka_of(denominator=lambda x, y, norms: np.square(np.linalg.norm(x) * np.linalg.norm(y))),
            "Your denominator is $\\lVert X \\rVert^2 \\lVert Y \\rVert^2$. The definition has the norms of $X^\\top "
            "X$ and $Y^\\top Y$, and with them the similarity of a layer to itself is 1.",
        ),
        Misconception(
            "squared denominator",
            _cka_of(denominator=lambda x, y, norms: np.square(norms[0] * norms[1])),
            "Your result has the norms in the denominator squared.",
        ),
        Misconception(
            "no denominator",
            _cka_of(denominator=lambda x, y, norms: 1.0),
            "Your result is the numerator alone.",
        ),
        Misconception(
            "spectral norm",
            lambda x, y: (
                np.linalg.norm(_centred(x).T @ _centred(y), 2) ** 2
                / np.prod([np.linalg.norm(_centred(each).T @ _centred(each), 2) for each in (x, y)])
            ),
            "Your result is the one with the largest singular values in place of the Frobenius norms. "
            "`np.linalg.norm(A)` without a further argument is the Frobenius norm of a matrix.",
        ),
        Misconception(
            "canonical correlation",
            _canonical,
            "Your result equals the mean squared canonical correlation, which any invertible linear map of the "
            "features leaves alone. CKA gives more weight to the directions in which a layer varies most.",
        ),
        Misconception(
            "first features only",
            _first_feature,
            "Your result equals the squared correlation of the first feature of each layer.",
        ),
        Misconception(
            "distance",
            lambda x, y: 1 - _cka(x, y),
            "Your result is 1 minus the target. CKA is a similarity, so that of a layer to itself is 1.",
        ),
    ),
    relatives=(
        (
            "what features give that are divided by their standard deviation",
            _cka_of(centre=lambda x: _centred(x) / x.std(axis=0)),
        ),
        (
            "what the two layers give if only the first is centred",
            lambda x, y: _cka_of(centre=lambda z: z)(_centred(x), y),
        ),
        (
            "what the two layers give if only the second is centred",
            lambda x, y: _cka_of(centre=lambda z: z)(x, _centred(y)),
        ),
        (
            "the correlation of the two matrices of inner products, without centring",
            lambda x, y: np.corrcoef((x @ x.T).ravel(), (y @ y.T).ravel())[0, 1],
        ),
        (
            "what sums of singular values give in place of Frobenius norms",
            lambda x, y: (
                np.linalg.norm(_centred(x).T @ _centred(y), "nuc") ** 2
                / np.prod([np.linalg.norm(_centred(each).T @ _centred(each), "nuc") for each in (x, y)])
            ),
        ),
    ),
    alternatives=(_by_gram_matrices, _by_singular_values),
    hints=(
        "Subtract from each feature its mean over the examples. The examples are the rows, so features have axis 1 "
        "and the mean is taken over axis 0.",
        "Three matrices of products occur, each with a norm: one for the numerator, whose norm is squared, and two "
        "for the denominator.",
    ),
    expected="A number from 0 to 1. It is 1 where `y` is `x` turned, shifted and multiplied by a number.",
)

EXERCISES = (COEFFICIENTS, SPLIT, ZEROING, CKA)


def cka(x: _Array, y: _Array) -> float:
    """Linear CKA of two layers, features in rows: for the lesson's figure, whatever the learner has written."""
    return float(_cka(x, y))


PREDICTIONS = (
    Guess(
        "12.before",
        "Before the first inner step, what percentage of new pictures of the five characters does the network get "
        "right?",
        unit="%",
        why="The head is zero before adaptation, so all five logits are zero for every picture. Whatever breaks the "
        "tie, one class in five is right by chance.",
        read="One task, ten gradient steps",
    ),
    Guess(
        "12.pixels",
        "Take the support picture that is nearest in Euclidean distance of the pixels, and answer with its class. "
        "Nothing is trained. What percentage of the query pictures is right, with one support picture of each of five "
        "characters?",
        unit="%",
        why="These characters are printed, centred and equally large, so two typefaces of one character share much of "
        "their ink. A baseline that needs no training is a strong one here, and a method has to be better than that.",
        read="Is that good?",
    ),
    Guess(
        "12.signs",
        "With the random head of the derivation, what percentage of the pairs of different classes attract each other?",
        unit="%",
        why="Where both examples give much probability to the same third class, ⟨p(q), p(s)⟩ outweighs the two other "
        "probabilities.",
        read="Attraction and repulsion",
    ),
    Guess(
        "12.helps",
        "With a learned head, first-order MAML reached 83 % with one support picture. Its features, read by nearest "
        "centroids without any adaptation, reach what percentage?",
        unit="%",
        why="The features are worse than with a zero head, but better than what ten steps from the learned head make "
        "of them.",
        read="Where zeroing helps, and where it does not",
    ),
    Guess(
        "12.frozen",
        "Now only the head adapts at test, and the two hidden layers stay as they are. What does that do to the "
        "accuracy with one support picture of each character?",
        (
            "it falls to about 20 %: nothing is learned",
            "it falls to about that of the nearest picture",
            "it falls by a few percentage points",
            "it does not change by more than one percentage point",
        ),
        why="The features of the initialization already tell new characters apart, so a new head is nearly all that a "
        "task needs.",
        read="Feature reuse or rapid learning?",
    ),
)

QUIZ = (
    Question(
        "A colleague reports 99 % at 5-way 5-shot on printed characters, as proof of a new meta-gradient. What do you "
        "ask first?",
        (
            "How many inner steps it takes",
            "What the nearest class mean of the pixels reaches on the same tasks",
            "Whether the query loss is a cross-entropy",
            "Whether the network could be larger",
        ),
        1,
        (
            "This matters for the cost, and less for the claim.",
            "Yes: with five support pictures of each class even that is close to the ceiling, so little is proved.",
            "It may be any loss. The reported number is an accuracy.",
            "It could, but then there would be two changes to explain the number.",
        ),
    ),
    Question(
        "Why is there no interference if the head is zero?",
        (
            "Because p(q) is uniform",
            "Because the encoder is frozen",
            "Because interference is the old head, multiplied by the errors of the queries",
            "Because the support set is small",
        ),
        2,
        (
            "It is p(s) that is uniform then. p(q) is computed after the step, with a head that is no longer zero.",
            "It is frozen in both cases, as an assumption of the derivation.",
            "Yes: it is W (p(q) − e), and so zero with W.",
            "Its size enters the contrastive part only.",
        ),
    ),
    Question(
        "You train with the zeroing trick and forget it at test. What happens?",
        (
            "Nothing, because the head adapts anyway",
            "Adaptation begins from a head that was never trained",
            "The hidden layers cannot adapt",
            "The labels of the support set are lost",
        ),
        1,
        (
            "It adapts, but from another point than in all of training, and only for a few steps.",
            "Yes: its gradient was zero in every step of training, so it still has its random initial values.",
            "All parameters adapt, as before.",
            "The support set is the same.",
        ),
    ),
)


# Networks and tasks -------------------------------------------------------------------------------------------------

RATE, STEPS = draw_five.INNER_LEARNING_RATE, draw_five.NUM_TEST_STEPS


def pad_network() -> tuple[Params, Any]:
    """(params, apply) of the network behind the drawing pad, its head zero."""
    packed = playgrounds._data()["draw_five_symbols"]["layers"]
    return draw_five.unpack(packed), draw_five.network()[1]


def unseen(num_tasks: int, num_query: int = 5) -> Task:
    """Tasks of five Armenian and Georgian characters with one support picture each, [num_tasks, examples, 196]."""
    return few_shot.tasks_of(few_shot.SETTINGS.test, 1, num_query, num_tasks, seed=2)


def one_task(tasks: Task, number: int = 0) -> Task:
    """One task of a batch."""
    return jax.tree.map(lambda leaf: leaf[number], tasks)


class TrainingTasks:
    """Tasks of five Latin or Greek characters, distorted and shifted, for `ml.fit`."""

    def __init__(self) -> None:
        """Draws every character once in each of twelve typefaces."""
        pictures = few_shot.training_pictures(few_shot.SETTINGS.train, 12)
        self.sample = draw_five.Drawings(pictures[None])

    def __call__(self, key: Any, num_tasks: int) -> Task:
        """A batch with one support and three query pictures of each class."""
        return self.sample(key, num_tasks)


@functools.cache
def record() -> dict[str, Any]:
    """The record of the long runs."""
    return json.loads(few_shot.RECORD.read_text("utf-8"))


def guesses(params: Params, tasks: Task) -> _Array:
    """The class that is guessed for every query picture after ten inner steps, [num_tasks, num_query]."""
    apply = draw_five.network()[1]
    loss = ml.losses.cross_entropy(apply)

    @jax.jit
    def of_all(tasks):
        def one(task):
            adapted = ml.inner.descend(lambda phi: loss(phi, task.support), optax.sgd(RATE), STEPS, params)
            return apply(adapted, task.query[0]).argmax(axis=-1)

        return jax.lax.map(one, tasks, batch_size=50)

    return np.asarray(of_all(tasks))


def layers_before_and_after(params: Params, tasks: Task) -> list[tuple[_Array, _Array]]:
    """Of each layer its outputs before and after ten steps, for the query pictures, [num_tasks, examples, width]."""
    loss = ml.losses.cross_entropy(draw_five.network()[1])

    @jax.jit
    def of_all(tasks):
        def one(task):
            adapted = ml.inner.descend(lambda phi: loss(phi, task.support), optax.sgd(RATE), STEPS, params)
            return tuple(few_shot.hidden_layers(each, task.query[0]) for each in (params, adapted))

        return jax.lax.map(one, tasks, batch_size=25)

    before, after = jax.tree.map(lambda leaf: np.asarray(leaf, float), of_all(tasks))
    return list(zip(before, after, strict=True))


def omniglot(directory: str | Path, num_tasks: int = 500) -> Task:
    """Tasks of five characters of Omniglot's evaluation set with one support picture each.

    One of its 20 alphabets, Old Church Slavonic, is Cyrillic, of which the network has seen printed characters.

    Raises:
      FileNotFoundError: if the directory does not hold images_evaluation.zip; the message says where to get it.
    """
    drawings = ml.tasks.omniglot.drawings(directory, "evaluation", 56)
    return draw_five.episodes(few_shot.fitted(drawings), 1, 5, num_tasks, seed=2)


# Figures ------------------------------------------------------------------------------------------------------------

BLUE, ORANGE, TEXT, MUTED, LINE, CARD = (
    plots.PALETTE[name] for name in ("blue", "orange", "text", "muted", "line", "card")
)
CLASSES = "ABCDE"
GAP = 3  # pixels between two pictures


def percent(mean: float, half_width: float | None = None) -> str:
    """A fraction in percent, with its interval."""
    return f"{100 * mean:.1f} %" if half_width is None else f"{100 * mean:.1f} ± {100 * half_width:.1f} %"


def pad_accuracy(who: Sequence[str] = ("network",)) -> None:
    """Shows what the drawing pad's network was measured to reach, and with "nearest" its baseline."""
    measured = playgrounds._data()["draw_five_symbols"]["measured"]
    names = {"scripts": "printed Armenian and Georgian characters", "hand": "random symbols, drawn again with jitter"}
    columns = {"network": "the network", "nearest": "nearest picture"}
    baseline = " Nearest picture: by the Euclidean distance of the pixels." if "nearest" in who else ""
    number = measured["scripts"]["num_tasks"]
    plots.table(
        {name: [percent(*measured[key][one]) for one in who] for key, name in names.items()},
        ("five symbols, one drawing of each", *(columns[one] for one in who)),
        title="How often the pad is right",
        caption=f"Accuracy on new drawings with its 95 % interval, {number:,} tasks of each kind. None of these "
        f"characters and symbols was seen in training.{baseline}",
    )


def _sheet(rows: list[list[Any]]) -> _Array:
    """Pictures 14 x 14 in rows, as one image with gaps; None leaves a place free."""
    side, height, width = draw_five.SIDE, len(rows), max(map(len, rows))
    sheet = np.zeros((height * (side + GAP) - GAP, width * (side + GAP) - GAP))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            if picture is not None:
                top, left = i * (side + GAP), j * (side + GAP)
                sheet[top : top + side, left : left + side] = np.asarray(picture).reshape(side, side)
    return sheet


def _draw_sheet(axes: Any, rows: list[list[Any]], frames: dict[tuple[int, int], str]) -> None:
    """Draws pictures with a coloured frame around some of them."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    ink = LinearSegmentedColormap.from_list("ink", [CARD, TEXT])
    axes.imshow(_sheet(rows), cmap=ink, vmin=0, vmax=1, interpolation="nearest")
    side = draw_five.SIDE
    for (i, j), color in frames.items():
        corner = (j * (side + GAP) - 1.2, i * (side + GAP) - 1.2)
        axes.add_patch(
            Rectangle(corner, side + 1.4, side + 1.4, fill=False, edgecolor=color, linewidth=1.6, clip_on=False)
        )
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def gallery(tasks: Task, guesses: _Array, title: str) -> None:
    """Shows tasks side by side: each row a character, its support picture, and the guesses for new ones.

    Args:
      tasks: a batch of two tasks with one support picture of each class.
      guesses: the class that was guessed for every query picture, [num_tasks, num_query].
      title: the finding.
    """
    number = len(guesses)
    figure, panels = plots.subplots(number, height=3.5)
    side = draw_five.SIDE
    for axes, task, guessed in zip(panels, (one_task(tasks, i) for i in range(number)), guesses, strict=True):
        (support, _), (query, truth) = jax.tree.map(np.asarray, task)
        each = len(truth) // few_shot.WAYS
        rows: list[list[Any]] = [[support[i], None, *query[i * each : (i + 1) * each]] for i in range(few_shot.WAYS)]
        frames = {(i, 0): BLUE for i in range(few_shot.WAYS)}
        for place, (right, guess) in enumerate(zip(truth, np.asarray(guessed), strict=True)):
            if right != guess:
                i, j = divmod(place, each)
                frames[i, j + 2] = ORANGE
                axes.text(
                    (j + 2) * (side + GAP) - 0.4,
                    i * (side + GAP) - 0.6,
                    CLASSES[guess],
                    color=ORANGE,
                    fontweight="bold",
                    fontsize="small",
                    va="top",
                )
        _draw_sheet(axes, rows, frames)
        for i in range(few_shot.WAYS):
            axes.text(
                -4, i * (side + GAP) + side / 2, CLASSES[i], color=BLUE, fontweight="bold", ha="right", va="center"
            )
        wrong = int((np.asarray(guessed) != truth).sum())
        axes.set_title(f"{len(truth) - wrong} of {len(truth)} right", color=MUTED, fontsize="medium")
    plots.show(
        figure,
        "Two tasks of five characters. Left of each row, in a blue frame, the one picture that the network adapted to; "
        "then new pictures of the same character. Wrong guesses have an orange frame and the letter of the class that "
        "was guessed.",
        title=title,
        caption="Blue: the support picture of a class. Orange: a wrong guess, with the class that was guessed. Left "
        "the first test task, right one of the hardest of the first 200.",
    )


def comparison() -> None:
    """Shows the accuracy of every row of the record, with intervals, at one and at five shots."""
    found = record()
    rows = {name: found["rows"][name] for name in ("MAML", "FO-B-MAML", "FO-MAML")}
    joint = found["rows"]["joint training"]["zeroing"]
    others = {
        "fine-tuning from joint training": joint["test"],
        "nearest centroid of its features": joint["centroid"],
        "pixel nearest centroid": found["baselines"]["pixel nearest centroid"],
        "pixel nearest neighbour": found["baselines"]["pixel nearest neighbour"],
    }
    figure, panels = plots.subplots(2, height=3.9, sharey=True)
    for axes, shots in zip(panels, ("1", "5"), strict=True):
        place = 0.0
        for entry in rows.values():
            for kind, color, marker, shift in (("zeroing", BLUE, "o", -0.19), ("plain", ORANGE, "s", 0.19)):
                _interval(axes, entry[kind]["test"][shots], place + shift, color, marker)
            place += 1
        for entry in others.values():
            _interval(axes, entry[shots], place, MUTED, "D")
            place += 1
        title = "one support picture" if shots == "1" else "five support pictures"
        axes.set_title(title, loc="left", fontweight="bold", fontsize="medium")
        axes.set_xlabel("accuracy in %")
        axes.set_ylim(place - 0.5, -0.7)
        axes.grid(axis="x", color=LINE)
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(rows) + len(others)), [*rows, *others])
    for kind, color, shift, words in (("zeroing", BLUE, -0.22, "zero head"), ("plain", ORANGE, 0.22, "learned head")):
        lowest = 100 * min(rows["MAML"][kind]["test"]["1"]["seeds"])
        panels[0].text(lowest - 0.4, shift, words, color=color, fontweight="bold", ha="right", va="center")
    settings = found["settings"]
    plots.show(
        figure,
        "Accuracy of MAML, FO-B-MAML and FO-MAML, each with a zero head and with a learned one, of fine-tuning from "
        "joint training, and of nearest centroids and nearest neighbours, with one and with five support pictures.",
        title="With one support picture, the features of an ordinary classifier win",
        caption=f"Armenian and Georgian characters, {settings['test_tasks']:,} tasks with 95 % intervals, mean of "
        f"{len(settings['seeds'])} training runs whose single accuracies are the small dots.",
    )


def _interval(axes: Any, entry: dict[str, Any], place: float, color: str, marker: str) -> None:
    mean, half = 100 * entry["mean"], 100 * entry["half_width"]
    axes.plot([mean - half, mean + half], [place, place], color=color, linewidth=2.4)
    axes.plot([mean], [place], color=color, marker=marker, markersize=5, linestyle="none")
    if len(entry["seeds"]) > 1:
        axes.plot(
            100 * np.array(entry["seeds"]),
            [place] * len(entry["seeds"]),
            color=color,
            marker=".",
            markersize=3,
            linestyle="none",
        )


def comparison_table() -> None:
    """Shows the record's numbers: what was chosen, what was reached, and what an outer step costs."""
    found = record()
    rows: dict[str, Sequence[Any]] = {}
    for name, entries in found["rows"].items():
        for kind, entry in entries.items():
            label = name if name == "joint training" else f"{name}, {'zero' if kind == 'zeroing' else 'learned'} head"
            own = "λ" if name == "FO-B-MAML" else "α"
            rows[str(label).replace("joint training", "fine-tuning from joint training")] = [
                f"{own} = {entry['own']:g}",
                str(entry.get("gradients", "–")),
                *(percent(entry["test"][shots]["mean"], entry["test"][shots]["half_width"]) for shots in ("1", "5")),
            ]
    extra = {"nearest centroid of its features": found["rows"]["joint training"]["zeroing"]["centroid"]}
    extra |= {name: entry for name, entry in found["baselines"].items() if name.startswith("pixel")}
    for name, entry in extra.items():
        rows[name] = ["", "–", *(percent(entry[shots]["mean"], entry[shots]["half_width"]) for shots in ("1", "5"))]
    plots.table(
        rows,
        ("", "chosen", "gradients", "5-way 1-shot", "5-way 5-shot"),
        title="What was chosen, what it costs, and what it reaches",
        caption="Chosen on validation tasks; gradients of a task in one outer step; accuracy on test tasks.",
    )


def gains() -> None:
    """Shows what the zeroing trick changes, as paired differences on the same test tasks."""
    found = record()

    def points(entry):
        return f"{100 * entry['mean']:+.1f} ± {100 * entry['half_width']:.1f}".replace("-", "−")

    def read(name, kind):
        return percent(found["rows"][name][kind]["centroid"]["1"]["mean"])

    plots.table(
        {
            name: [
                *(points(found["gain"][name][shots]) for shots in ("1", "5")),
                *(read(name, kind) for kind in ("plain", "zeroing")),
            ]
            for name in few_shot.METHODS
        },
        ("", "gain, 1-shot", "gain, 5-shot", "features, learned head", "features, zero head"),
        title="With one support picture, zeroing lifts first-order MAML by more than ten points",
        caption="Gain: accuracy with a zero head minus accuracy with a learned head, in percentage points, with 95 % "
        "intervals over the same test tasks. Every row adapts by ten inner steps at test; training has five, or one "
        "where K = 1. Features: 1-shot accuracy of the nearest centroid in the features, without any adaptation.",
    )


def other_heads() -> None:
    """Shows what it does to begin test tasks with the other kind of head than those of training."""
    found = record()["rows"]
    rows: dict[str, Sequence[Any]] = {}
    for name in ("MAML", "FO-MAML", "FO-B-MAML"):
        for kind, label in (("zeroing", "zero head"), ("plain", "learned head")):
            entry = found[name][kind]
            same, other = (entry[key]["1"] for key in ("test", "other_head"))
            scores = (same, other) if kind == "zeroing" else (other, same)
            rows[f"{name}, trained with a {label}"] = [percent(one["mean"], one["half_width"]) for one in scores]
    plots.table(
        rows,
        ("", "zero head at test", "stored head at test"),
        title=OTHER_HEADS,
        caption="5-way 1-shot accuracy on the test tasks. The head that is stored after training with zero heads is "
        "the random one of the beginning.",
    )


OTHER_HEADS = "A head that was never trained costs one to two points"


def training_curves() -> None:
    """Shows validation accuracy against outer steps, with and without the zeroing trick."""
    found = record()
    settings = found["settings"]
    figure, panels = plots.subplots(2, height=3.4, sharey=True)
    steps = settings["outer_steps"] / settings["checkpoints"] * np.arange(1, settings["checkpoints"] + 1)
    for axes, name in zip(panels, ("MAML", "FO-MAML"), strict=True):
        curves = {
            label: 100 * np.mean(found["rows"][name][kind]["curve"], axis=0)
            for label, kind in (("zero head", "zeroing"), ("learned head", "plain"))
        }
        plots.lines(steps, curves, "outer steps", "accuracy in %", title=name, axes=axes)
    plots.show(
        figure,
        "Validation accuracy against outer steps for MAML and FO-MAML, each with a zero head and with a learned one.",
        title="With a learned head, first-order MAML learns at first, and then loses a part of it",
        caption=(
            f"Cyrillic characters, 5-way 1-shot, after the inner steps of training, mean of "
            f"{len(settings['seeds'])} training runs."
        ),
    )


# Figures of the theory ----------------------------------------------------------------------------------------------


def coefficient_matrices(matrices: dict[str, _Array]) -> None:
    """Shows matrices c_qs: blue attracts, orange repels."""
    from matplotlib.patches import Rectangle

    figure, panels = plots.subplots(len(matrices), height=3.6)
    for axes, (name, every) in zip(panels, matrices.items(), strict=True):
        matrix = every.reshape(few_shot.WAYS, -1, few_shot.WAYS)[:, :2].reshape(-1, few_shot.WAYS)
        axes.set(xlim=(-0.5, few_shot.WAYS - 0.5), ylim=(len(matrix) - 0.5, -0.5))
        for (q, s), value in np.ndenumerate(matrix):
            if abs(value) >= 0.005:
                color = BLUE if value < 0 else ORANGE
                axes.add_patch(Rectangle((s - 0.5, q - 0.5), 1, 1, facecolor=color, alpha=min(abs(value) / 1.8, 1)))
                axes.text(
                    s,
                    q,
                    f"{value:.2f}".replace("-", "−"),
                    ha="center",
                    va="center",
                    fontsize="small",
                    color=TEXT,
                )
        each = len(matrix) // few_shot.WAYS
        axes.set_xticks(range(few_shot.WAYS), CLASSES)
        axes.set_yticks(np.arange(few_shot.WAYS) * each + (each - 1) / 2, CLASSES)
        axes.grid(visible=False)
        plots.label(axes, "class of the support example", "class of the query example", name)
    plots.show(
        figure,
        "Two matrices of coefficients, rows queries and columns support examples. With a random head entries of both "
        "signs occur off the diagonal blocks; with a zero head the diagonal is negative and everything else positive.",
        title="A zero head attracts within a class and repels all others",
        caption="Coefficients of one task, for two queries of each class. Blue: negative, attraction. Orange: "
        "positive, repulsion. Empty: below 0.005 in size.",
    )


def _plane():
    """Two-dimensional features: one support example and two queries for each of three classes, and a head."""
    rng = np.random.default_rng(4)
    angles = np.array([0.4, 2.5, 4.6])
    support = 1.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    query = np.repeat(support, 2, axis=0) * 0.75 + rng.normal(0, 0.38, (6, 2))
    head = rng.normal(0, 1, (2, 3))
    return support, np.arange(3), query, np.repeat(np.arange(3), 2), head


ARROWS = (
    "Features of two dimensions. Large open marks: support examples of three classes; small: query examples. From each "
    "query example a blue arrow shows the step of the contrastive part, and an orange one that of the interference, "
    "both at 0.6 of their length."
)


def arrows(head_scale: float) -> Figure:
    """Both parts of a gradient step on the features of each query example, for a head of some size."""
    support, labels, query, truth, head = _plane()
    split = ml.theory.contrastive_split(support, labels, query, truth, head_scale * head, 1.0)
    figure, (axes,) = plots.subplots(height=4.2, width=6.4)
    shapes = ("o", "s", "^")
    for c, shape in enumerate(shapes):
        axes.plot(*support[labels == c].T, shape, color=TEXT, markersize=13, markerfacecolor=CARD, markeredgewidth=1.6)
        axes.plot(*query[truth == c].T, shape, color=TEXT, markersize=6, markerfacecolor=TEXT)
        beside = ((0.75, -0.2), (0.65, 0.05), (0.0, -0.45))[c]  # where no arrow goes
        axes.annotate(f"class {CLASSES[c]}", support[c] + beside, ha="center", va="center", color=MUTED)
    for part, color in ((split.contrastive, BLUE), (split.interference, ORANGE)):
        for start, move in zip(query, -0.6 * part, strict=True):
            if np.linalg.norm(move) > 0.012:
                axes.annotate(
                    "",
                    start + move,
                    start,
                    annotation_clip=False,
                    arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "shrinkA": 3, "shrinkB": 0},
                )
    axes.plot(0, 0, "+", color=MUTED, markersize=9)
    axes.set(xlim=(-2.9, 2.9), ylim=(-2.3, 2.0), aspect="equal")
    plots.label(axes, "first feature", "second feature")
    axes.text(1.2, -1.75, "contrastive", color=BLUE, fontweight="bold")
    axes.text(1.2, -2.05, "interference" if head_scale > 0 else "no interference", color=ORANGE, fontweight="bold")
    axes.text(2.8, 1.75, f"wrong signs: {100 * split.wrong_signs():.0f} %", color=MUTED, ha="right")
    return figure


def similarity(measured: dict[str, list[float]]) -> None:
    """Shows CKA before and after adaptation, layer by layer."""
    figure, (axes,) = plots.subplots(height=3.3)
    names = ("pictures", "first hidden layer", "second hidden layer")
    for (name, values), color, marker, shift in zip(
        measured.items(), (BLUE, ORANGE), ("o", "s"), (-0.04, 0.04), strict=False
    ):
        axes.plot(np.arange(3) + shift, values, color=color, marker=marker, label=name)
    axes.set_xticks(range(3), names)
    axes.set_ylim(min(map(min, measured.values())) - 0.06, 1.03)
    axes.set_xlim(-0.3, 2.3)
    plots.label(axes, "", "CKA, before and after adaptation")
    plots.show(
        figure,
        "CKA of each layer with itself after adaptation. It is one for the pictures; for the meta-learned network it "
        "stays close to one in both hidden layers, for an untrained network it falls further.",
        title="Adaptation hardly changes the features of the meta-learned network",
        caption="Linear CKA of a layer's outputs before and after ten inner steps, mean over 100 tasks of unseen "
        "scripts.",
    )


def feature_map(before: _Array, after: _Array, labels: _Array, support: int = 5) -> None:
    """Shows features in the plane before and after adaptation.

    Args:
      before: [num_examples, 2], the support examples first.
      after: likewise.
      labels: [num_examples].
      support: how many of the examples are support examples.
    """
    figure, panels = plots.subplots(2, height=3.8, sharex=True, sharey=True)
    colors = (BLUE, ORANGE, plots.PALETTE["green"], MUTED, plots.PALETTE["red"])
    shapes = ("o", "s", "^", "D", "v")
    for axes, points, title in zip(panels, (before, after), ("before adaptation", "after ten steps"), strict=True):
        for c in range(few_shot.WAYS):
            of_class = np.asarray(labels) == c
            rest = points[support:][of_class[support:]]
            axes.plot(*rest.T, shapes[c], color=colors[c], markersize=5, alpha=0.75, markeredgewidth=0)
            axes.plot(
                *points[:support][of_class[:support]].T,
                shapes[c],
                color=colors[c],
                markersize=12,
                markerfacecolor=CARD,
                markeredgewidth=1.8,
            )
        plots.label(axes, "first direction", "second direction" if axes is panels[0] else "", title)
    plots.show(
        figure,
        "Two maps of the same sixty pictures. In both, the pictures of one character lie together, around the one "
        "that the network adapted to; after adaptation the groups are a little further apart.",
        title="Most of the characters are apart before adaptation begins",
        caption="Features of the second hidden layer, projected to the two directions in which they vary most before "
        "adaptation. Large: the support picture of a class. Small: eleven others.",
    )


def principal_plane(features: _Array) -> tuple[_Array, _Array]:
    """(mean, directions [num_features, 2]) of the plane in which features vary most."""
    mean = features.mean(axis=0)
    return mean, np.linalg.svd(features - mean, full_matrices=False)[2][:2].T


def two_parts() -> None:
    """Shows the two parts of the gradient in the feature space."""
    forces, parts = diagrams.Drawing(470, 200), diagrams.Drawing(400, 200)
    _attracted(forces)
    parts.text(30, 32, "contrastive", BLUE, "start", bold=True)
    parts.text(30, 56, "α/n Σ c_qs ψ(s)", TEXT, "start")
    parts.text(30, 78, "along support examples with c_qs < 0,", MUTED, "start", size=13)
    parts.text(30, 96, "away from those with c_qs > 0", MUTED, "start", size=13)
    parts.text(30, 136, "interference", ORANGE, "start", bold=True)
    parts.text(30, 160, "W (p(q) − e)", TEXT, "start")
    parts.text(30, 182, "where the old head happens to point; zero with a zero head", MUTED, "start", size=13)
    diagrams.show(
        f'<div class="ml-panels">{forces.svg()}{parts.svg()}</div>',
        "A query example in the feature space. It is attracted by the support example of its class, repelled by those "
        "of others, and moved by the old head in a direction that has nothing to do with either.",
        title="The gradient with respect to a query example's features has two parts",
        caption="The gradient step that first-order MAML makes with the encoder, split in two.",
    )


def _pixels(d: diagrams.Drawing, picture: Any, left: float, top: float, size: float) -> None:
    """A picture as small squares, runs of one shade together."""
    side = draw_five.SIDE
    shades = np.rint(4 * np.asarray(picture).reshape(side, side)).astype(int)
    cell = size / side
    parts = []
    for row, shade_row in enumerate(shades):
        start = 0
        for column in range(1, side + 1):
            if column == side or shade_row[column] != shade_row[start]:
                if shade_row[start]:
                    parts.append(
                        f'<rect x="{start * cell:.1f}" y="{row * cell:.1f}" width="{(column - start) * cell:.1f}" '
                        f'height="{cell + 0.1:.1f}" style="fill:{TEXT};fill-opacity:{shade_row[start] / 4:g}"/>'
                    )
                start = column
    d.put("".join(parts), left, top)


@functools.cache
def _guessed() -> tuple[Any, Any, list[int], list[int]]:
    """Support pictures, query pictures, their classes and the guesses of the pad's network, of one task."""
    params, apply = pad_network()
    task = one_task(unseen(200))
    adapted = ml.adapt(ml.losses.cross_entropy(apply), optax.sgd(RATE), params, task.support, STEPS)
    (support, _), (query, truth) = jax.tree.map(np.asarray, task)
    chosen = np.array([7, 22, 1, 16, 13])  # one of each class, in some order
    guesses = np.asarray(apply(adapted, query[chosen])).argmax(axis=1)
    return support, query[chosen], truth[chosen].tolist(), guesses.tolist()


def _new_characters() -> str:
    """Five characters with one picture each, and new pictures joined to the class that is guessed."""
    support, query, truth, guesses = _guessed()
    d = diagrams.Drawing(470, 245)
    xs = [20 + 92 * i for i in range(few_shot.WAYS)]
    for x, picture in zip(xs, support, strict=True):
        d.box(x, 4, 70, 70, BLUE)
        _pixels(d, picture, x + 5, 9, 60)
    for x, picture, right, guess in zip(xs, query, truth, guesses, strict=True):
        d.arrow((x + 35, 168), (xs[guess] + 35, 80), BLUE if right == guess else ORANGE)
        d.box(x, 172, 70, 70, LINE)
        _pixels(d, picture, x + 5, 177, 60)
    return d.svg()


def _attracted(d: diagrams.Drawing) -> None:
    """A query example, attracted by the support example of its class and repelled by those of others."""
    d.band(0, 0, 470, 196)
    q, own, others = (215, 78), (70, 158), ((415, 50), (372, 160))
    d.arrow((q[0] - 21, q[1] + 12), (own[0] + 22, own[1] - 13), BLUE)
    d.node(*own, "s", BLUE)
    for x, y in others:
        d.node(x, y, "s′", ORANGE)
        length = float(np.hypot(x - q[0], y - q[1]))
        right, down = (x - q[0]) / length, (y - q[1]) / length
        d.arrow((q[0] - 24 * right, q[1] - 24 * down), (q[0] - 70 * right, q[1] - 70 * down), ORANGE)
        d.path([(q[0] + 24 * right, q[1] + 24 * down), (x - 24 * right, y - 24 * down)], MUTED, "3 5", 1.2)
    d.node(*q, "q", filled=True)
    d.text(own[0] + 32, own[1] + 18, "same class: attraction", BLUE, "start", size=13)
    d.text(205, 30, "other classes: repulsion", ORANGE, size=13)


def _attraction() -> str:
    """The drawing of `_attracted`, with the coefficient."""
    d = diagrams.Drawing()
    _attracted(d)
    d.text(9, 228, "a zero head attracts within a class and repels others", ORANGE, "start", bold=True)
    return d.svg()


def opening() -> tuple[str, str]:
    """The picture of the claim: five new characters, and what training does to the features."""
    return diagrams.opening(
        _new_characters(),
        _attraction(),
        ("One picture of each is enough", "Why: one class attracts, the others repel"),
        (
            "Five Georgian and Armenian characters, and new pictures of them.",
            "What first-order MAML does to the features of q.",
        ),
        "Left: above five characters of scripts that training has not seen, one picture each; below, a new picture of "
        "each in another typeface, with an arrow to the one that the network guesses after ten gradient steps. Right: "
        "in the feature space a query example is attracted by the support example of its class and repelled by those "
        "of other classes.",
    )
