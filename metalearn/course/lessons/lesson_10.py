"""Exercises, predictions, quiz and figures of lesson 10, memory: MOML and LocalMOML."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import (
    cosines,
    curve_task,
    gradient_at,
    hessian_times,
    mean_of,
    move,
    nested,
    nested_params,
    points_task,
    regression,
    stack,
    unstack,
    wave,
)
from metalearn.course.widgets import diagrams
from metalearn.learners.moml import MOMLState
from metalearn.tasks import ClientData, IndexedTasks

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

_Array = Float[np.ndarray, "..."]

# 10.bias ------------------------------------------------------------------------------------------------------------


def _bias(contract=lambda third, covariance: np.einsum("ijk,jk->i", third, covariance), scale=None, factor=True):
    """Variants of (I - αH) times half of a contraction of third derivatives with the covariance of the noise."""

    def small_batch_bias(hessian, third, covariance, step_size, num_support):
        size = step_size**2 / num_support / 2 if scale is None else scale(step_size, num_support)
        bias = size * contract(third, covariance)
        return bias - step_size * hessian @ bias if factor else bias

    return small_batch_bias


def _bias_by_directions(hessian, third, covariance, step_size, num_support):
    """An alternative: noise of two values along each principal axis, whose mean gradient is a finite sum."""
    values, axes = np.linalg.eigh(covariance)
    total = np.zeros(len(hessian))
    for value, axis in zip(values, axes.T, strict=True):
        for sign in (-1, 1):
            moved = sign * step_size * np.sqrt(max(value, 0.0) / num_support) * axis
            total += 0.5 * ((third @ moved) @ moved) / 2
    return (np.eye(len(hessian)) - step_size * hessian) @ total


def _bias_by_trace(hessian, third, covariance, step_size, num_support):
    """An alternative: each component is the trace of a slice of the third derivatives times the covariance."""
    noise = step_size**2 * covariance / num_support
    bias = np.array([0.5 * np.trace(slice_ @ noise) for slice_ in third])
    return bias - step_size * hessian @ bias


def _cubic(rng, dim, num_support, step_size=0.3):
    """Hessian of h, third derivatives of f, and the covariance of one example's support gradient."""
    root = rng.normal(0, 1, (dim, dim)) + 1.5  # the entries beside the diagonal are not small
    third = rng.normal(0, 1, (dim, dim, dim)) + rng.choice([-1, 1], dim)[:, None, None]
    third = sum(third.transpose(order) for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    hessian = rng.normal(0, 1, (dim, dim))
    return hessian + hessian.T + 0.5 * np.eye(dim), third / 3, root @ root.T, step_size, num_support


def _quadratic(rng):
    hessian, third, *rest = _cubic(rng, 2, 4)
    return hessian, 0 * third, *rest


BIAS = Exercise(
    id="10.bias",
    title="Your line of the derivation: the bias of small support batches",
    difficulty=2,
    minutes=12,
    reference=_bias(),
    instances=lambda rng: [
        (np.array([[0.7]]), np.array([[[rng.uniform(1, 2)]]]), np.array([[4.0]]), 0.5, 3),
        _cubic(rng, 3, 5),
        _cubic(rng, 2, 1, 0.2),
        _quadratic(rng),
        _cubic(rng, 4, 8, 1.3),
    ],
    misconceptions=(
        Misconception(
            "no bias",
            lambda hessian, third, covariance, step_size, num_support: np.zeros(len(hessian)),
            "Your result is zero. That is right where the query loss is quadratic, because the mean of $A\\xi$ is "
            "zero. Here the term with the third derivatives is left: $\\xi$ stands in it twice.",
        ),
        Misconception(
            "no half",
            _bias(scale=lambda a, n: a**2 / n),
            "Your result is twice the target. What is the coefficient of the second-order term in the Taylor expansion "
            "of $\\nabla f$?",
        ),
        Misconception(
            "sixth",
            _bias(scale=lambda a, n: a**2 / n / 6),
            "Your result is a third of the target, as if the coefficient were $\\frac16$. That one belongs to the "
            "third-order term of $f$; here its *gradient* is expanded.",
        ),
        Misconception(
            "inner learning rate once",
            _bias(scale=lambda a, n: a / n / 2),
            "Your result has $\\alpha$ where the target has $\\alpha^2$. The noise of the adapted parameters is "
            "$-\\alpha$ times that of the gradient: what is its covariance?",
        ),
        Misconception(
            "single example",
            _bias(scale=lambda a, n: a**2 / 2),
            "Your result is the bias for a single support example. What is the covariance of a mean of $n$ independent "
            "gradients?",
        ),
        Misconception(
            "root of n",
            _bias(scale=lambda a, n: a**2 / np.sqrt(n) / 2),
            "Your result falls like $1/\\sqrt n$. That is how a standard deviation falls; the bias contains the "
            "covariance.",
        ),
        Misconception(
            "n squared",
            _bias(scale=lambda a, n: (a / n) ** 2 / 2),
            "Your result falls like $1/n^2$. The covariance of a *sum* of $n$ independent gradients is $n$ times that "
            "of one, and the mean divides this by $n^2$.",
        ),
        Misconception(
            "factor missing",
            _bias(factor=False),
            "Your result is the bias of $\\nabla f(\\hat\\varphi)$ alone, which is that of FO-MAML. Line 1 has a "
            "factor in front of it.",
        ),
        Misconception(
            "variances only",
            _bias(lambda third, covariance: np.einsum("ijj,jj->i", third, covariance)),
            "Your result uses only the diagonal of the covariance. The double sum over $j$ and $k$ contains the terms "
            "with $j \\ne k$ as well.",
        ),
        Misconception(
            "wrong sign",
            _bias(scale=lambda a, n: -(a**2) / n / 2),
            "Your result is the target with the opposite sign. $\\xi$ contains $-\\alpha$, but it appears twice in the "
            "product.",
        ),
        Misconception(
            "diagonal of the result",
            _bias(lambda third, covariance: np.einsum("iij,ij->i", third, covariance)),
            "Your sum seems to run over one index only. For each component $i$, it runs over all pairs $j$, $k$.",
        ),
    ),
    relatives=(
        (
            "what a factor I - H gives, without α",
            lambda hessian, third, covariance, step_size, num_support: _bias()(
                hessian / step_size, third, covariance, step_size, num_support
            ),
        ),
        (
            "what the factor I - αH gives twice",
            lambda hessian, third, covariance, step_size, num_support: (lambda bias: bias - step_size * hessian @ bias)(
                _bias()(hessian, third, covariance, step_size, num_support)
            ),
        ),
        (
            "what the inverse of I - αH gives as the factor",
            lambda hessian, third, covariance, step_size, num_support: np.linalg.solve(
                np.eye(len(hessian)) - step_size * hessian,
                _bias(factor=False)(hessian, third, covariance, step_size, num_support),
            ),
        ),
        (
            "the term with the Hessian alone, where I - αH belongs",
            lambda *given: _bias()(*given) - _bias(factor=False)(*given),
        ),
    ),
    alternatives=(_bias_by_directions, _bias_by_trace),
    hints=(
        "The mean of line 2 has three parts. Two of them are easy: $\\mathbb{E}\\,\\xi = 0$. For the third you need "
        "$\\mathbb{E}\\,\\xi_j \\xi_k$, an entry of the covariance matrix of $\\xi$.",
        'The covariance of $\\xi$ is $\\alpha^2 \\Sigma / n$. The double sum is `np.einsum("ijk,jk->i", ...)`. Do not '
        "forget the factor of line 1.",
    ),
    expected="An array of shape [d]. Twice as many support examples halve it.",
)

# 10.moml_step -------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _fresh(loss, params, support, step_size):
    """θ - α ∇h(θ)."""
    return move(params, jax.grad(loss)(params, support), step_size)


@functools.partial(jax.jit, static_argnums=0)
def _through(loss, at, support, direction, step_size):
    """(I - αH) times a direction, with the Hessian at some parameters."""
    return jax.vjp(lambda w: _fresh(loss, w, support, step_size), at)[1](direction)[0]


def _blend(old, new, rate):
    return jax.tree.map(lambda u, p: (1 - rate) * u + rate * p, old, new)


def _sum(trees):
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def _moml(
    fresh=lambda loss, params, old, task, a: _fresh(loss, params, task.support, a),
    update=lambda params, old, phi, b: phi if old is None else _blend(old, phi, b),
    judged=lambda old, new, phi: new,
    through=lambda loss, params, new, task, g, a, b, first: _through(loss, params, task.support, g, a),
    combine=mean_of,
    absent=lambda u, params, b: u,
    slots=lambda ids: ids,
    scored=lambda task: task.query,
):
    """Variants of one step of MOML."""

    def moml_step(loss, params, memory, ids, tasks, inner_rate, outer_rate, memory_rate):
        after, gradients = list(memory), []
        for i, task in zip(slots(ids), tasks, strict=True):
            old = memory[i]
            phi = fresh(loss, params, old, task, inner_rate)
            after[i] = new = update(params, old, phi, memory_rate)
            gradient = gradient_at(loss, judged(old, new, phi), scored(task))
            gradients.append(through(loss, params, new, task, gradient, inner_rate, memory_rate, old is None))
        others = set(range(len(memory))) - set(ids)
        after = [absent(u, params, memory_rate) if i in others and u is not None else u for i, u in enumerate(after)]
        return move(params, combine(gradients), outer_rate), after

    return moml_step


@functools.partial(jax.jit, static_argnums=0)
def _library_step(loss, params, remembered, visited, ids, tasks, inner_rate, outer_rate, memory_rate):
    learner = ml.moml(loss, optax.sgd(inner_rate), optax.sgd(outer_rate), len(visited), memory_rate)
    state = MOMLState(params, learner.init(params).opt_state, jnp.zeros((), jnp.int32), remembered, visited)
    after, _ = learner.step(state, IndexedTasks(ids, tasks))
    return after.params, after.memory


def _by_the_library(loss, params, memory, ids, tasks, inner_rate, outer_rate, memory_rate):
    remembered = stack([params if u is None else u for u in memory])
    visited = jnp.array([u is not None for u in memory])
    params, moved = _library_step(
        loss, params, remembered, visited, jnp.array(ids), stack(tasks), inner_rate, outer_rate, memory_rate
    )
    known = [memory[i] is not None or i in ids for i in range(len(memory))]
    return params, [u if seen else None for u, seen in zip(unstack(moved), known, strict=True)]


def _by_products(loss, params, new, task, gradient, inner_rate, memory_rate, first):
    """An alternative: a Hessian-vector product, forward over reverse."""
    product = hessian_times(loss, params, task.support, gradient)
    return jax.tree.map(lambda g, p: g - inner_rate * p, gradient, product)


def _task_after_task(share):
    """Each task of the batch begins with the θ that the task before it has left; `share` divides the outer step."""

    def moml_step(loss, params, memory, ids, tasks, inner_rate, outer_rate, memory_rate):
        rate = outer_rate / len(ids) if share else outer_rate
        for i, task in zip(ids, tasks, strict=True):
            params, memory = _moml()(loss, params, memory, [i], [task], inner_rate, rate, memory_rate)
        return params, memory

    return moml_step


def _remembered_afterwards(loss, params, memory, ids, tasks, inner_rate, outer_rate, memory_rate):
    rates = (inner_rate, outer_rate, memory_rate)
    moved, _ = _moml()(loss, params, memory, ids, tasks, *rates)
    return moved, _moml()(loss, moved, memory, ids, tasks, *rates)[1]


def _memories(params, rng, visited):
    """A memory near the initialization for every visited task."""
    return [
        jax.tree.map(lambda p: p + 0.4 * rng.normal(size=np.shape(p)), params) if seen else None for seen in visited
    ]


def _situation(rng, loss, params, make_task, visited, ids, rates):
    return loss, params, _memories(params, rng, visited), ids, [make_task() for _ in ids], *rates


MOML_STEP = Exercise(
    id="10.moml_step",
    title="One step of MOML",
    difficulty=3,
    minutes=18,
    reference=_moml(),
    instances=lambda rng: [
        _situation(
            rng, wave, rng.normal(1, 0.3, 2), lambda: curve_task(rng, 5, 4), (1, 1, 0, 1), [3, 2], (0.2, 0.3, 0.3)
        ),
        _situation(
            rng,
            cosines,
            rng.normal(0, 1, 3),
            lambda: points_task(rng, 3, 2, 3),
            (1, 1, 1, 1, 1),
            [4, 0, 2],
            (0.4, 0.5, 0.15),
        ),
        _situation(rng, nested, nested_params(rng), lambda: curve_task(rng, 3, 3), (0, 1, 0), [1], (0.1, 0.2, 0.6)),
        _situation(
            rng, regression, rng.normal(0, 0.5, 3), lambda: curve_task(rng, 4, 4), (0, 0, 1), [0, 2], (0.1, 0.4, 1.0)
        ),
    ],
    misconceptions=(
        Misconception(
            "query gradient at the fresh parameters",
            _moml(judged=lambda old, new, phi: phi),
            "Your memories are right, but your $\\theta$ equals that of MAML. At which parameters is the query "
            "gradient taken?",
        ),
        Misconception(
            "no first-visit rule",
            _moml(update=lambda params, old, phi, b: _blend(params if old is None else old, phi, b)),
            "Your result is right for tasks that were visited before. At a first visit yours equals "
            "$(1-b)\\,\\theta + b\\,\\hat\\varphi$, but there is no memory yet to average with.",
        ),
        Misconception(
            "rates swapped",
            _moml(update=lambda params, old, phi, b: phi if old is None else _blend(old, phi, 1 - b)),
            "Your memory equals $b\\,u + (1-b)\\,\\hat\\varphi$. A small $b$ should change the memory slowly.",
        ),
        Misconception(
            "all memories move",
            _moml(absent=lambda u, params, b: _blend(u, params, b)),
            "Your $\\theta$ is right, but tasks that are not in the batch got a new memory, "
            "$(1-b)\\,u + b\\,\\theta$. In MOML they keep theirs.",
        ),
        Misconception(
            "query gradient at the old memory",
            _moml(judged=lambda old, new, phi: phi if old is None else old),
            "Your memories are right, and your $\\theta$ used the query gradient at the memories *before* this visit.",
        ),
        Misconception(
            "first-order gradient",
            _moml(through=lambda loss, params, new, task, g, a, b, first: g),
            "Your memories are right, and your $\\theta$ moves against $\\nabla f(u)$ itself, which is first-order "
            "MOML. The factor $(I - \\alpha H)$ is missing.",
        ),
        Misconception(
            "Hessian at the memory",
            _moml(through=lambda loss, params, new, task, g, a, b, first: _through(loss, new, task.support, g, a)),
            "Your result has the Hessian of the support loss at the memory $u$. The inner step begins at $\\theta$, so "
            "its derivative is taken there.",
        ),
        Misconception(
            "through the average",
            _moml(
                through=lambda loss, params, new, task, g, a, b, first: jax.tree.map(
                    lambda leaf: leaf if first else b * leaf, _through(loss, params, task.support, g, a)
                )
            ),
            "Your gradient equals the target multiplied by $b$ for every task that was visited before. This is what "
            "you get by differentiating the new memory itself, because $\\theta$ enters it with the weight $b$. MOML "
            "takes the factor $(I - \\alpha H)$ whole.",
        ),
        Misconception(
            "adapted from the memory",
            _moml(
                fresh=lambda loss, params, old, task, a: _fresh(loss, params if old is None else old, task.support, a)
            ),
            "Your inner step seems to begin at the memory $u$. It begins at $\\theta$, as in MAML; otherwise the task "
            "would be trained further at each visit, and its memory would no longer depend on $\\theta$.",
        ),
        Misconception(
            "position for id",
            _moml(slots=lambda ids: range(len(ids))),
            "Your result uses the memories at positions 0, 1, ... of the list. Task $k$ of the batch has its memory at "
            "`ids[k]`.",
        ),
        Misconception(
            "sum over tasks",
            _moml(combine=_sum),
            "Your memories are right. Your outer step is the sum over the tasks of the batch, and not the mean.",
        ),
        Misconception(
            "support set in both roles",
            _moml(scored=lambda task: task.support),
            "Your memories are right. The gradient at the memory is that of the support loss, and the exercise asks "
            "for the query loss.",
        ),
        Misconception(
            "MAML",
            _moml(update=lambda params, old, phi, b: phi),
            "Your result is that of $b = 1$: each memory is replaced, and nothing is remembered. This is a step of "
            "MAML.",
        ),
    ),
    relatives=(
        (
            "what θ gives if it moves after each task, by that task's share of the mean",
            _task_after_task(share=True),
        ),
        (
            "what θ gives if it moves after each task, by a whole outer step",
            _task_after_task(share=False),
        ),
        (
            "what the Hessian of the query loss gives in I - αH",
            _moml(
                through=lambda loss, params, new, task, g, a, b, first: _through(loss, params, task.query, g, a),
            ),
        ),
        ("the right θ, with memories that are adapted from the new θ", _remembered_afterwards),
        (
            "the right θ, with the memories as they were before",
            lambda loss, params, memory, *rest: (_moml()(loss, params, memory, *rest)[0], list(memory)),
        ),
        (
            "what the query loss gives in the inner step, and the support loss at the memory",
            lambda loss, params, memory, ids, tasks, *rates: _moml()(
                loss,
                params,
                memory,
                ids,
                [task._replace(support=task.query, query=task.support) for task in tasks],
                *rates,
            ),
        ),
    ),
    alternatives=(_by_the_library, _moml(through=_by_products)),
    hints=(
        "Go through the batch with `for i, task in zip(ids, tasks)`. Compute the fresh $\\hat\\varphi$ first, then the "
        "new memory, then the gradient there. Only after all tasks is $\\theta$ moved.",
        "`jax.vjp(adapt, params)` returns the result of `adapt` and a function that multiplies by the transposed "
        "Jacobian, here $I - \\alpha H$. This function returns a tuple with one entry.",
        "`memory[i] is None` is true at a first visit. Otherwise the new memory is a `jax.tree.map` over the old one "
        "and the fresh parameters.",
    ),
    expected="The new $\\theta$ and the list of memories, in which only the entries of `ids` have changed.",
)

# 10.local_round -----------------------------------------------------------------------------------------------------


def _mean_of_parameters(ends, params, steps, eta):
    return mean_of([theta for theta, _ in ends])


def _local(
    begin=lambda loss, params, first, a: _fresh(loss, params, first, a),
    remember=lambda old, phi, b: _blend(old, phi, b),
    at=lambda server, theta: theta,
    through=_through,
    finish=_mean_of_parameters,
    judged=lambda old, new: new,
    place_of_factor=lambda theta, u: theta,
):
    """Variants of a round of LocalMOML: what each client ends with, and what the server makes of it."""

    def local_round(loss, params, clients, inner_rate, outer_rate, memory_rate):
        ends, steps = [], []
        for first, local in clients:
            theta, u = params, begin(loss, params, first, inner_rate)
            for task in local:
                place = at(params, theta)
                old, u = u, remember(u, _fresh(loss, place, task.support, inner_rate), memory_rate)
                gradient = gradient_at(loss, judged(old, u), task.query)
                gradient = through(loss, place_of_factor(place, u), task.support, gradient, inner_rate)
                steps.append(gradient)
                theta = move(theta, gradient, outer_rate)
            ends.append((theta, u))
        return finish(ends, params, steps, outer_rate)

    return local_round


def _lockstep(loss, params, clients, inner_rate, outer_rate, memory_rate):
    """All clients share θ, and their gradients are averaged in every local step."""
    memory = [_fresh(loss, params, first, inner_rate) for first, _ in clients]
    for k in range(len(clients[0][1])):
        gradients = []
        for c, (_, local) in enumerate(clients):
            task = local[k]
            memory[c] = _blend(memory[c], _fresh(loss, params, task.support, inner_rate), memory_rate)
            at_memory = gradient_at(loss, memory[c], task.query)
            gradients.append(_through(loss, params, task.support, at_memory, inner_rate))
        params = move(params, mean_of(gradients), outer_rate)
    return params


def _with_clients(change):
    """The right round for clients with another first support set and other local tasks."""

    def local_round(loss, params, clients, *rates):
        return _local()(loss, params, [change(*client) for client in clients], *rates)

    return local_round


def _with_one_memory(loss, params, clients, inner_rate, outer_rate, memory_rate):
    """Only the first client begins a memory, and each of the others goes on with that of the client before it."""
    ends, memory = [], _fresh(loss, params, clients[0][0], inner_rate)
    for first, local in clients:
        going_on = _local(begin=lambda *given, u=memory: u, finish=lambda ends, *rest: ends[0])
        theta, memory = going_on(loss, params, [(first, local)], inner_rate, outer_rate, memory_rate)
        ends.append(theta)
    return mean_of(ends)


def _in_sequence(loss, params, clients, *rates):
    """Each client goes on where the last one ended."""
    for client in clients:
        params = _local()(loss, params, [client], *rates)
    return params


@functools.partial(jax.jit, static_argnums=0)
def _library_round(loss, params, data, inner_rate, outer_rate, memory_rate):
    learner = ml.local_moml(loss, optax.sgd(inner_rate), optax.sgd(outer_rate), memory_rate)
    return learner.step(learner.init(params), data)[0].params


def _round_by_the_library(loss, params, clients, inner_rate, outer_rate, memory_rate):
    data = ClientData(stack([stack([first]) for first, _ in clients]), stack([stack(local) for _, local in clients]))
    return _library_round(loss, params, data, inner_rate, outer_rate, memory_rate)


def _round(rng, loss, params, make_task, num_clients, num_steps, rates):
    clients = [(make_task().support, [make_task() for _ in range(num_steps)]) for _ in range(num_clients)]
    return loss, params, clients, *rates


def _of_displacements(ends, params, steps, eta):
    """An alternative: the server adds the mean displacement of the clients."""
    moved = mean_of([jax.tree.map(jnp.subtract, theta, params) for theta, _ in ends])
    return jax.tree.map(jnp.add, params, moved)


LOCAL_ROUND = Exercise(
    id="10.local_round",
    title="A round of LocalMOML",
    difficulty=2,
    minutes=15,
    reference=_round_by_the_library,
    instances=lambda rng: [
        _round(rng, wave, rng.normal(1, 0.3, 2), lambda: curve_task(rng, 4, 3), 3, 3, (0.15, 0.15, 0.4)),
        _round(rng, cosines, rng.normal(0, 1, 3), lambda: points_task(rng, 3, 2, 3), 2, 4, (0.4, 0.3, 0.25)),
        _round(rng, nested, nested_params(rng), lambda: curve_task(rng, 3, 3), 2, 2, (0.05, 0.1, 0.6)),
        _round(rng, regression, rng.normal(0, 0.5, 3), lambda: curve_task(rng, 4, 4), 3, 1, (0.1, 0.3, 0.5)),
    ],
    misconceptions=(
        Misconception(
            "gradients averaged",
            _lockstep,
            "Your result is right if every client takes one local step. With more it equals what you get if the "
            "*gradients* are averaged in every local step, so that all clients share one $\\theta$. That would be a "
            "round of communication for each local step. LocalMOML averages the *parameters*, once.",
        ),
        Misconception(
            "mean of all gradients",
            _local(finish=lambda ends, params, steps, eta: move(params, mean_of(steps), eta)),
            "Your result equals a single step of the server, with the mean over clients *and* local steps of the "
            "gradients. With $H$ local steps this moves only one $H$-th as far as the mean of the clients' parameters.",
        ),
        Misconception(
            "clients stand still",
            _local(at=lambda server, theta: server),
            "Your clients seem to take all their gradients at the server's $\\theta$. Each local step begins where the "
            "last one ended.",
        ),
        Misconception(
            "memory begins at the initialization",
            _local(begin=lambda loss, params, first, a: params),
            "Your memory begins at $\\theta$. It begins at the *adapted* parameters, "
            "$\\theta - \\alpha \\nabla h(\\theta)$ of the client's first support set.",
        ),
        Misconception(
            "memory never moves",
            _local(remember=lambda old, phi, b: old),
            "Your memory stays what it was at the beginning of the round. In every local step it moves by the fraction "
            "$b$ towards the fresh adapted parameters.",
        ),
        Misconception(
            "no memory",
            _local(remember=lambda old, phi, b: phi),
            "Your result is that of $b = 1$, local steps of MAML without a memory. This method exists: it is called "
            "Per-FedAvg.",
        ),
        Misconception(
            "rates swapped",
            _local(remember=lambda old, phi, b: _blend(old, phi, 1 - b)),
            "Your memory equals $b\\,u + (1-b)\\,\\hat\\varphi$, with the two weights exchanged.",
        ),
        Misconception(
            "first-order gradient",
            _local(through=lambda loss, theta, support, direction, a: direction),
            "Your local steps move against $\\nabla f(u)$ itself. The derivative of the inner step is missing, the "
            "identity minus $\\alpha$ times the Hessian of the support loss.",
        ),
        Misconception(
            "clients in sequence",
            _in_sequence,
            "Your clients seem to work one after another, each beginning where the last one ended. In a round all of "
            "them begin at the server's $\\theta$.",
        ),
        Misconception(
            "last client only",
            _local(finish=lambda ends, params, steps, eta: ends[-1][0]),
            "Your result is the last client's $\\theta$. The server averages all of them.",
        ),
        Misconception(
            "sum of the parameters",
            _local(finish=lambda ends, params, steps, eta: _sum([theta for theta, _ in ends])),
            "Your result is the sum of the clients' parameters, and not the mean.",
        ),
        Misconception(
            "memories averaged",
            _local(finish=lambda ends, params, steps, eta: mean_of([u for _, u in ends])),
            "Your result is the mean of the clients' memories. These are adapted parameters; the server needs the "
            "initializations $\\theta_i$.",
        ),
    ),
    relatives=(
        ("what one memory gives that all clients share, one after another", _with_one_memory),
        (
            "what a memory gives that the first local step replaces",
            _with_clients(lambda first, local: (local[0].support, local)),
        ),
        (
            "what the first support set gives in every local step",
            _with_clients(lambda first, local: (first, [task._replace(support=first) for task in local])),
        ),
        (
            "what the query loss gives in the inner steps, and the support loss at the memory",
            _with_clients(
                lambda first, local: (first, [task._replace(support=task.query, query=task.support) for task in local])
            ),
        ),
        ("what the first local step of each client gives", _with_clients(lambda first, local: (first, local[:1]))),
        ("what the last local step of each client gives", _with_clients(lambda first, local: (first, local[-1:]))),
        ("what the query gradient gives at the memory before it is updated", _local(judged=lambda old, new: old)),
        (
            "what the Hessian at the memory gives",
            _local(place_of_factor=lambda theta, u: u),
        ),
    ),
    alternatives=(_local(), _local(finish=_of_displacements)),
    hints=(
        "Begin every client with `theta_i = params` and its first memory. Then take the local steps, and collect the "
        "last `theta_i`.",
        "A local step has three lines: the fresh adapted parameters (with `jax.vjp`, which also gives the factor), the "
        "new memory, the step of `theta_i`. The mean over clients is taken once, at the end.",
    ),
    expected="A pytree like `params`. With one local step and $b = 1$ it is a step of MAML.",
)

# 10.choose_rate -----------------------------------------------------------------------------------------------------


def _chosen(noise=lambda b: b / (2 - b), lag=lambda b, m, n: (1 - b) / b * m / n, parts=None, pick=np.argmin):
    """Variants of the memory's mean squared error for each rate, and the rate that is chosen by it."""
    parts = parts or (lambda noise, lag: noise + lag**2)

    def choose_rate(rates, variance, speed, num_all_tasks, num_tasks):
        errors = parts(noise(rates) * variance, speed * lag(rates, num_all_tasks, num_tasks))
        best = pick(errors)
        return rates[best], errors[best]

    return choose_rate


def _by_recursion(rates, variance, speed, num_all_tasks, num_tasks):
    """An alternative: the weights of many visits, summed."""
    ages = np.arange(1_500)
    weights = rates[:, None] * (1 - rates[:, None]) ** ages
    errors = variance * (weights**2).sum(1) + (speed * num_all_tasks / num_tasks * (weights @ ages)) ** 2
    best = min(range(len(rates)), key=lambda i: errors[i])
    return rates[best], errors[best]


def _by_a_loop(rates, variance, speed, num_all_tasks, num_tasks):
    """An alternative: one rate after another."""
    found = []
    for rate in rates:
        lag = (1 / rate - 1) * speed * num_all_tasks / num_tasks
        found.append((variance / (2 / rate - 1) + lag * lag, rate))
    error, rate = min(found)
    return rate, error


def _population(rng, num_all_tasks, num_tasks):
    """Rates, the noise of a visit and the speed of the target, such that the best rate is neither tiny nor one."""
    rates = np.sort(rng.uniform(0.02, 1.0, 400))
    balance = rng.uniform(0.2, 0.4)  # near the best rate
    variance = rng.uniform(0.3, 3.0)
    lag = (1 - balance) / balance * num_all_tasks / num_tasks
    return rates, variance, np.sqrt(variance * balance / 4) / lag, num_all_tasks, num_tasks


def _without_order(rng):
    rates, *rest = _population(rng, 12, 1)
    return rng.permutation(rates), *rest


def _still(rng):
    """Nothing moves: the smallest rate is the best."""
    rates, variance, _, *counts = _population(rng, 30, 5)
    return rates, variance, 0.0, *counts


CHOOSE_RATE = Exercise(
    id="10.choose_rate",
    title="Choose the memory rate for a population",
    difficulty=2,
    minutes=12,
    reference=_chosen(),
    instances=lambda rng: [
        _population(rng, 20, 2),
        _population(rng, 100, 5),
        _without_order(rng),
        _still(rng),
        (np.array([1.0, 0.5]), 2.0, rng.uniform(3, 4), 7, 7),
    ],
    misconceptions=(
        Misconception(
            "variance b",
            _chosen(noise=lambda b: b),
            "Your noise equals $b$ times that of one visit. The sum over all visits, $b^2 (1 + (1-b)^2 + (1-b)^4 + "
            "\\dots)$, is another number.",
        ),
        Misconception(
            "newest visit only",
            _chosen(noise=lambda b: b**2),
            "Your noise equals $b^2$ times that of one visit. That is the share of the newest visit alone; older ones "
            "are in the memory too.",
        ),
        Misconception(
            "noise of one visit",
            _chosen(noise=lambda b: 1.0 + 0 * b),
            "Your noise does not depend on $b$. What does averaging over visits make of it?",
        ),
        Misconception(
            "one visit too late",
            _chosen(lag=lambda b, m, n: 1 / b * m / n),
            "Your lag equals $1/b$ visits. The newest visit has the age 0, so with $b = 1$ there is no lag at all.",
        ),
        Misconception(
            "visits for steps",
            _chosen(lag=lambda b, m, n: (1 - b) / b),
            "Your lag is right in *visits*. The speed is per outer step: how many outer steps lie between two visits "
            "of a task?",
        ),
        Misconception(
            "whole population",
            _chosen(lag=lambda b, m, n: (1 - b) / b * m),
            "Your lag is the one for batches of a single task. With `num_tasks` tasks in a batch, a task is visited "
            "more often.",
        ),
        Misconception(
            "inverse",
            _chosen(lag=lambda b, m, n: (1 - b) / b * n / m),
            "Your lag equals the target with $B/M$ in place of $M/B$. Is a task of a larger population visited more "
            "often, or less?",
        ),
        Misconception(
            "lag not squared",
            _chosen(parts=lambda noise, lag: noise + lag),
            "Your error adds the lag itself to a variance. A *mean squared* error contains its square.",
        ),
        Misconception(
            "noise alone",
            _chosen(parts=lambda noise, lag: noise),
            "Your error is the noise alone, and so you always choose the smallest rate. Where is the price of old "
            "memories?",
        ),
        Misconception(
            "lag alone",
            _chosen(parts=lambda noise, lag: lag**2),
            "Your error is the lag alone, and so you always choose the largest rate. Where is the noise?",
        ),
        Misconception(
            "largest error",
            _chosen(pick=np.argmax),
            "Your rate is the one with the *largest* error.",
        ),
    ),
    relatives=(
        (
            "the position of the best rate in `rates`, and not that rate, with the right error",
            lambda rates, *others: (
                np.flatnonzero(rates == _chosen()(rates, *others)[0])[0],
                _chosen()(rates, *others)[1],
            ),
        ),
        ("what (2 - b) / b gives for the noise", _chosen(noise=lambda b: (2 - b) / b)),
        ("what b² / (2 - b) gives for the noise", _chosen(noise=lambda b: b**2 / (2 - b))),
        ("what the squares of both, noise and lag, give", _chosen(parts=lambda noise, lag: noise**2 + lag**2)),
        ("what noise minus squared lag gives", _chosen(parts=lambda noise, lag: noise - lag**2)),
        ("what an age of 1 - b visits gives", _chosen(lag=lambda b, m, n: (1 - b) * m / n)),
        ("what an age of b visits gives", _chosen(lag=lambda b, m, n: b * m / n)),
    ),
    alternatives=(_by_recursion, _by_a_loop),
    hints=(
        "The weights of the visits are $b$, $b(1-b)$, $b(1-b)^2$, ... Their squares are a geometric series with the "
        "ratio $(1-b)^2$; their mean age is $\\sum_j j\\, b (1-b)^j$.",
        "The noise is $\\frac{b}{2-b}$ times the variance of one visit, and the mean age $\\frac{1-b}{b}$ visits. "
        "Turn visits into outer steps, and outer steps into a distance. Then `np.argmin` over the rates.",
    ),
    expected="A pair of numbers: a rate out of `rates`, and the mean squared error of the memory with it.",
)

choose = _chosen()  # the lesson itself uses it, whatever the learner has written

EXERCISES = (BIAS, MOML_STEP, CHOOSE_RATE, LOCAL_ROUND)

PREDICTIONS = (
    Guess(
        "10.direction",
        "Training with MAML sees four mornings for each adaptation. Compared with the optimum for an exact adaptation, "
        "where does it end?",
        ("at a smaller θ: you leave earlier", "at the same θ", "at a larger θ: you leave later"),
        why="The gradient of the cost is a convex function of the plan, so noise raises its mean. A higher mean "
        "gradient pushes θ down.",
        read="The mean of the gradients is not the gradient at the mean",
    ),
    Guess(
        "10.steps",
        "MAML with a single morning has taken 2,000 outer steps. By about which factor is it closer to the optimum "
        "after 20,000?",
        ("by √10", "by 10", "not closer at all"),
        why="At the end of training the mean *estimate* is zero, and the mean estimate is not the gradient. More steps "
        "only find the zero of the estimate more precisely.",
        read="The floor",
    ),
    Guess(
        "10.judged",
        "Now both initializations are judged on new mornings, after adapting to *one* of them, as in MAML's training. "
        "Which one has the lower cost?",
        ("the optimum for an exact adaptation", "where MAML ended"),
        why="MAML's estimate is an unbiased gradient of exactly this cost, the one after adapting to a single morning.",
        read="Biased with respect to what?",
    ),
    Guess(
        "10.worth",
        "With b = 0.1, how many support examples would MAML need to end as close to the optimum as MOML with one?",
        unit="examples",
        why="The memory's variance is b/(2 − b) times that of one visit. A batch of k examples has 1/k of it, so the "
        "memory is worth (2 − b)/b examples.",
        read="How much noise is left",
    ),
    Guess(
        "10.rounds",
        "All twenty different stops take part as clients, without noise. What do five local steps in place of one do?",
        (
            "fewer rounds, and the same end",
            "fewer rounds, and an end further from the optimum",
            "as many rounds, and an end closer to the optimum",
        ),
        why="Between two rounds each client moves towards its own optimum. The clients' costs are curved "
        "differently, so the mean of where they end is not where their mean gradient leads.",
        read="LocalMOML: rounds against local steps",
    ),
)

QUIZ = (
    Question(
        "Where is MAML with small support batches *not* biased for the objective with exact adaptation?",
        (
            "Where the support loss is quadratic",
            "Where the query loss is quadratic",
            "Where the outer learning rate is small",
            "Where there are many tasks",
        ),
        1,
        (
            "Then the adapted parameters have the right mean, but a query gradient that is curved still turns their "
            "noise into a bias.",
            "Yes: then the query gradient is linear, and the mean of a linear function is its value at the mean. (The "
            "Hessian of the support loss must not depend on the same noise.)",
            "A small learning rate removes the jitter of θ, and leaves the bias as it is.",
            "The bias of every task has the same cause, and the mean over tasks does not remove it.",
        ),
    ),
    Question(
        "Each task is new, and after training you will have three examples of it. Which training is right?",
        (
            "MAML with three support examples",
            "MAML with as many support examples as possible",
            "MOML with a small memory rate",
        ),
        0,
        (
            "Yes: then the loss after adapting to three examples *is* the objective, and MAML's gradient of it is "
            "unbiased.",
            "This trains for an adaptation that is more exact than the one that you will have.",
            "A memory belongs to a task that comes back. It approximates an adaptation to all of its data.",
        ),
    ),
    Question(
        "You double the population, and leave b and the batch as they are. What changes in a memory?",
        (
            "Its noise is halved",
            "It is twice as old, counted in outer steps",
            "Its noise doubles",
            "Nothing",
        ),
        1,
        (
            "Its noise is b/(2 − b) times that of one visit, whatever the population.",
            "Yes: the mean age stays (1 − b)/b visits, but a task is visited half as often.",
            "Its noise is b/(2 − b) times that of one visit, whatever the population.",
            "Count how many outer steps lie between two visits of a task.",
        ),
    ),
)


# The bus stops ------------------------------------------------------------------------------------------------------

NUM_STOPS, STEP_SIZE, NOISE = 20, 0.5, 2.0
MINUTES = np.linspace(-1.5, 1.5, NUM_STOPS)  # when the bus really comes, relative to the timetable
OPTIMUM = float(-np.log(np.mean(np.exp(-(1 - STEP_SIZE) * MINUTES))) / (1 - STEP_SIZE))


def floor(num_support: Any, memory_rate: Any = 1.0) -> Any:
    """How far from the optimum MOML ends on the bus stops with small outer steps, and MAML with rate 1."""
    spread = STEP_SIZE**2 * NOISE**2 / num_support * memory_rate / (2 - memory_rate)
    return spread / 2 / (1 - STEP_SIZE)


# Figures ------------------------------------------------------------------------------------------------------------

_DRAWN = np.random.default_rng(4).normal(size=(40, 16))
_PHI = np.linspace(-3.2, 3.2, 321)

SEEN = (
    "Left: the cost of one stop against the planned delay, with adapted parameters from forty support batches as "
    "points on it. Right: the gradient of the cost, with the same points. Their mean lies above the curve, because the "
    "curve bends upwards. With more mornings the points move together, and their mean comes down to the curve."
)


def scattered(mornings: int, theta: float) -> Figure:
    """The cost and its gradient at one stop, and forty adapted parameters."""
    noise = _DRAWN[:, :mornings].mean(axis=1)
    noise = (noise - noise.mean()) / noise.std() / np.sqrt(mornings)  # mean zero, and the spread that belongs to n
    phi, center = (1 - STEP_SIZE) * theta + STEP_SIZE * NOISE * noise, (1 - STEP_SIZE) * theta
    figure, axes = plots.subplots(2, height=3.6)
    functions = {"f": lambda z: np.exp(z) - z - 1, "f′": lambda z: np.exp(z) - 1}
    for each, (name, function), what in zip(axes, functions.items(), ("cost", "gradient of the cost"), strict=True):
        plots.lines(_PHI, {name: function(_PHI)}, "φ", "", title=what, ylim=(-2.5, 8), axes=each)
        each.plot(phi, function(phi), "o", color=plots.PALETTE["blue"], alpha=0.35, markersize=4.5)
    orange, gradient = plots.PALETTE["orange"], functions["f′"]
    mean = float(gradient(phi).mean())
    axes[1].plot([center, center], [gradient(center), mean], color=orange, linewidth=2.5)
    for value, what, x, y in (
        (mean, "mean gradient", -0.8, mean + 1.1),  # left of the curve
        (gradient(center), "gradient at the mean", 0.0, -1.9),
    ):
        axes[1].plot(center, value, "o", color=orange, markersize=7)
        text = f"{what} {plots.number(value, 2)}"
        axes[1].annotate(text, (center, value), (min(center, 0.8) + x, y), ha="center", color=orange, weight="bold")
    return figure


def bus_stop() -> None:
    """Shows how one stop adapts: from θ half of the way to the mean of a few mornings."""
    d = diagrams.Drawing(640, 192)
    d.path([(20, 110), (620, 110)], diagrams.MUTED)
    d.text(620, 184, "minutes after the timetable →", diagrams.MUTED, "end", size=13)
    d.path([(440, 40), (440, 116)], diagrams.TEXT, "3 4")
    d.text(440, 30, "m: when the bus really comes", diagrams.TEXT)
    for x in (310, 385, 480, 545):
        d.point(x, 110, diagrams.MUTED)
    d.point(430, 110, diagrams.TEXT, filled=False)
    d.text(430, 150, "mean of four mornings", diagrams.TEXT, size=13)
    d.node(110, 110, "θ", filled=True)
    d.arrow((126, 92), (258, 92), diagrams.BLUE, bend=-16)
    d.text(190, 62, "half of the way: −α∇h(θ)", diagrams.BLUE, size=13)
    d.node(270, 110, "φ")
    d.text(110, 150, "one plan for every stop", diagrams.BLUE, size=13)
    d.text(270, 150, "plan of this stop", diagrams.BLUE, size=13)
    diagrams.show(
        d.svg(),
        "A line of minutes after the timetable. From theta, the plan for every stop, an arrow leads half of the way to "
        "the mean of four observed mornings, which lie scattered around the true time m. The arrow ends at phi.",
        title="A stop adapts by moving half of the way to what it has seen",
        caption="The grey points are the support set of one stop, four mornings; α = 0.5.",
    )


def floors(num_support: Any, rates: dict[str, float], measured: dict[str, Any], intervals: dict[str, Any]) -> None:
    """Shows the distance from the optimum at the end of training: formula, and measured with intervals."""
    figure, (axes,) = plots.subplots(height=3.6)
    plots.lines(
        num_support,
        {name: floor(np.asarray(num_support), rate) for name, rate in rates.items()},
        "support examples n of a visit",
        "distance from the optimum in minutes",
        log="xy",
        axes=axes,
    )
    for name, color in zip(rates, plots.COLORS, strict=False):
        axes.errorbar(
            num_support, measured[name], intervals[name], fmt="o", color=color, markersize=5, capsize=3, label="_"
        )
    plots.show(
        figure,
        "Distance from the optimum at the end of training against the number of support examples, both axes "
        "logarithmic. Three parallel lines fall like one over n: MAML's is the highest, below it MOML's with b = 0.3, "
        "and with b = 0.1. The measured points lie on the lines.",
        title="A memory lowers the floor as a larger support batch would",
        caption="Points: distance to runs with exact adaptation on the same stops, mean over the second half of 10,000 "
        "outer steps and over 64 runs, with its 95 % interval. "
        "Lines: the formula.",
    )


def paths(steps: Any, curves: dict[str, Any]) -> None:
    """Shows the mean distance from the optimum, with its sign, against the outer steps."""
    figure = plots.lines(steps, curves, "outer steps", "θ minus the optimum, in minutes", log="x", ylim=(-3.2, 3.2))
    figure.axes[0].axhline(0, color=plots.PALETTE["muted"], linewidth=0.8)
    plots.show(
        figure,
        "Signed distance from the optimum against the outer steps, on a logarithmic axis of steps. MAML with one "
        "example falls to minus one and stays there. MAML with sixteen falls close to zero and stays. MOML with one "
        "example shoots below minus two first, comes back, passes zero once more, and ends where MAML with "
        "sixteen examples ends.",
        title="MAML stays one minute too early, and MOML first overshoots",
        caption=(
            "Mean of 64 runs, each with two of twenty stops in an outer step; MOML with b = 2/17. Zero is the optimum."
        ),
    )


def moml_diagram() -> None:
    """Shows a step of MOML: fresh parameters go into the memory, and the query gradient is taken there."""
    d = diagrams.Drawing(640, 322)
    d.node(40, 150, "θ", filled=True)
    d.text(380, 26, "memory", diagrams.MUTED, bold=True)
    for i in range(5):
        y, seen = 62 + 52 * i, i in (1, 3)
        color = diagrams.BLUE if seen else diagrams.MUTED
        d.box(330, y - 19, 100, 38, color)
        d.text(380, y + 5, f"u{'₁₂₃₄₅'[i]}", diagrams.TEXT if seen else diagrams.MUTED)
        if not seen:
            d.text(446, y + 5, "keeps what it has", diagrams.MUTED, "start", size=13)
            continue
        d.arrow((62, 150 + (y - 150) * 0.12), (191, y), diagrams.BLUE)
        d.node(215, y, "φ̂", diagrams.BLUE)
        d.arrow((239, y), (324, y), diagrams.BLUE)
        d.text(280, y - 8, "fraction b", diagrams.BLUE, size=13)
        d.arrow((434, y), (506, y), diagrams.ORANGE)
        d.text(514, y + 5, "∇f(u)", diagrams.ORANGE, "start", bold=True)
    d.text(110, 102, "−α∇h(θ), noisy", diagrams.BLUE, size=13)
    d.path([(568, 114), (620, 114), (620, 312), (40, 312)], diagrams.ORANGE)
    d.path([(568, 218), (620, 218)], diagrams.ORANGE)
    d.arrow((40, 312), (40, 176), diagrams.ORANGE)
    d.text(200, 302, "mean of (I − αH) ∇f(u)", diagrams.ORANGE, bold=True)
    diagrams.show(
        d.svg(),
        "From theta two tasks of the batch adapt to noisy parameters phi hat. Each goes with the fraction b into the "
        "memory of its task. The query gradient is taken at the memory, and returns through I minus alpha H to theta. "
        "The three other memories keep what they have.",
        title="MOML adapts from θ, remembers the result, and asks for the gradient there",
        caption=(
            "One outer step with two of five tasks. Blue: adapt and remember. Orange: the query gradient, back to θ."
        ),
    )


def strips() -> str:
    """The time without a visit of each of six tasks: a triangle grows from each visit to the next."""
    num_steps, num_tasks, width, height = 40, 6, 470, 240
    met = np.random.default_rng(5).integers(num_tasks, size=num_steps)[:, None] == np.arange(num_tasks)
    d = diagrams.Drawing(width, height)
    left, right, top = 62.0, width - 8, 8.0
    row = (height - 44) / num_tasks
    ages = np.zeros((num_steps + 1, num_tasks))
    for step in range(num_steps):
        ages[step + 1] = np.where(met[step], 0, ages[step] + 1)
    oldest = ages.max()
    for i in range(num_tasks):
        base = top + (i + 1) * row - 4
        d.text(left - 10, base, f"task {i + 1}", diagrams.MUTED, "end", size=13)
        visited = [0, *np.flatnonzero(met[:, i]), num_steps]
        for start, stop in itertools.pairwise(visited):
            x0, x1 = (left + (right - left) * step / num_steps for step in (start, stop))
            tall = (row - 7) * (stop - start) / oldest
            d.path([(x0, base), (x1, base), (x1, base - tall)], diagrams.ORANGE, width=0, fill=diagrams.ORANGE)
        d.path([(left, base), (right, base)], diagrams.LINE, width=1)
        for visit in np.flatnonzero(met[:, i]):
            d.point(left + (right - left) * visit / num_steps, base, diagrams.BLUE)
    foot = top + num_tasks * row + 20
    d.text(left, foot, "0", diagrams.MUTED, size=13)
    d.text(right, foot, f"{num_steps}", diagrams.MUTED, "end", size=13)
    d.text((left + right) / 2, foot, "outer steps", diagrams.MUTED, size=13)
    return d.svg()


def tracking(steps: Any, target: Any, memories: dict[str, Any], met: Any) -> None:
    """Shows a moving target, and the memories that follow it from visit to visit."""
    figure = plots.lines(steps, {"fresh φ": target, **memories}, "outer steps", "parameter")
    axes = figure.axes[0]
    axes.plot(met, np.asarray(target)[met], "o", color=plots.PALETTE["blue"], markersize=5)
    plots.show(
        figure,
        "A parameter against outer steps. The fresh adapted parameters of a task move along a straight line. Memories "
        "follow it in stairs, one stair for each visit: with b = 0.5 closely, and with b = 0.2 further behind.",
        title="A memory follows its target from visit to visit, and lags behind",
        caption="Without noise. θ moves steadily, and the task is visited in every tenth outer step (points).",
    )


def choice(rates: Any, noise: Any, lags: dict[str, Any]) -> None:
    """Shows the mean squared error of a memory against b, for fast and slow training, with the best b marked."""
    figure, axes = plots.subplots(2, height=3.5)
    for each, (name, lag) in zip(axes, lags.items(), strict=True):
        total = noise + lag
        best = int(np.argmin(total))
        plots.lines(
            rates,
            {"noise": noise, "lag²": lag, "sum": total},
            "memory rate b",
            "mean squared error",
            points={f"b = {rates[best]:.2f}": (rates[best], total[best])},
            title=name,
            log="y",
            ylim=(0.003, 3),
            axes=each,
        )
    plots.show(
        figure,
        "Mean squared error of a memory against the memory rate, on a logarithmic vertical axis, in two panels. "
        "Noise rises with "
        "b and the squared lag falls with it; their sum has a minimum. Where training is fast the minimum lies at a "
        "large b, and where it is slow at a small one.",
        title="The best memory rate falls as training slows down",
        caption="A visit's variance is 1, and each outer step contains two of twenty tasks.",
    )


def local_diagram() -> None:
    """Shows a round: the server sends θ, clients take steps alone, and the server averages their parameters."""
    d = diagrams.Drawing(640, 270)
    d.text(36, 30, "server", diagrams.MUTED, bold=True)
    d.text(604, 30, "server", diagrams.MUTED, bold=True)
    d.text(320, 30, "clients: H local steps, without communication", diagrams.MUTED, bold=True)
    d.node(36, 140, "θ", filled=True)
    d.node(604, 140, "θ", filled=True)
    for y in (78, 140, 202):
        d.band(125, y - 26, 390, 52)
        d.arrow((59, 140 + (y - 140) * 0.18), (134, y), diagrams.MUTED)
        xs = (158, 266, 374, 482)
        for k, x in enumerate(xs):
            if k:
                d.arrow((xs[k - 1] + 23, y), (x - 24, y))
            d.node(x, y, "θ" if not k else "")
        d.arrow((506, y), (581, 140 + (y - 140) * 0.18), diagrams.ORANGE)
    d.text(88, 80, "send", diagrams.MUTED, size=13)
    d.text(562, 80, "average", diagrams.ORANGE, size=13)
    d.text(
        320,
        256,
        "each client makes a new memory u = θ − α∇h(θ), and forgets it after the round",
        diagrams.BLUE,
        size=13,
    )
    diagrams.show(
        d.svg(),
        "The server sends theta to three clients. Each takes three local steps alone, with a memory of its own, and "
        "sends its theta back. The server's new theta is the mean of them.",
        title="One round: send θ, take local steps, average the parameters",
        caption="LocalMOML with three clients and H = 3 local steps.",
    )


def rounds(number: Any, same: dict[str, Any], different: dict[str, Any]) -> None:
    """Shows the distance from the optimum against rounds, for equal and for different clients."""
    figure, axes = plots.subplots(2, height=3.5, sharey=True)
    for each, name, curves in zip(axes, ("equal clients", "different clients"), (same, different), strict=True):
        plots.lines(number, curves, "rounds", "distance in minutes", title=name, log="y", ylim=(1e-4, 4), axes=each)
    plots.show(
        figure,
        "Distance from the optimum against rounds of communication, on a logarithmic axis. With equal clients more "
        "local steps need fewer rounds, and all curves fall without end. With different clients the curves for five "
        "and twenty-five local steps level off, the latter higher.",
        title="Local steps save rounds, but with different clients they end away from the optimum",
        caption="Bus stops without noise; every stop takes part in every round. H local steps, η = 0.2.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: floors against the support batch, and how long tasks wait for a visit."""
    n = np.array([1, 2, 4, 8, 16])
    left = diagrams.plot(
        n,
        {"MAML": floor(n), "b = 0.3": floor(n, 0.3), "b = 0.1": floor(n, 0.1)},
        "support examples of a visit",
        "",
        log="xy",
    )
    return diagrams.opening(
        left,
        strips(),
        ("A memory of rate b lowers MAML's floor", "The price: memories grow old between visits"),
        (
            "Distance from the optimum at which training ends.",
            "Blue: the task is visited. Orange: time without a visit.",
        ),
        "Left: the distance from the optimum at which training ends, against the number of support examples, falls for "
        "MAML like one over the number; MOML's lines for b = 0.3 and 0.1 lie below it. Right: a chart with a row for "
        "each of six tasks, in which the time without a visit grows from each visit to the next.",
    )
