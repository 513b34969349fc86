"""Exercises, predictions, quiz and figures of lesson 02, MAML."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import (
    adapt,
    by_recursion,
    cosines,
    curve_task,
    first_order,
    gradient_after,
    gradient_at,
    line_task,
    move,
    network,
    network_params,
    path_of,
    points_task,
    regression,
    steps_from_the_start,
    wave,
    with_a_loop,
)
from metalearn.course.process import bar
from metalearn.course.widgets import diagrams
from metalearn.task import Params

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure


@functools.partial(jax.jit, static_argnums=0)
def _hessian(loss, params, batch):
    return jax.hessian(loss)(params, batch)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _meta_gradient(loss, task, params, learning_rate, num_steps):
    return ml.maml(loss, optax.sgd(learning_rate), num_steps)(params, task)[1]


@jax.jit
def _nested(params, batch):
    """`network` with its parameters in a tuple within a dict within a list."""
    (layer,) = params
    weight, bias = layer["hidden"]
    return network({"weight": weight, "bias": bias, "readout": layer["readout"]}, batch)


def _nested_params(rng, width):
    flat = network_params(rng, width)
    return [{"hidden": (flat["weight"], flat["bias"]), "readout": flat["readout"]}]


# 02.meta_gradient ---------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _of_restarting_steps(loss, task, params, learning_rate, num_steps):
    def after(theta):
        phi = theta
        for _ in range(num_steps):
            phi = move(theta, gradient_at(loss, phi, task.support), learning_rate)
        return loss(phi, task.query)

    return jax.grad(after)(params)


META_GRADIENT = Exercise(
    id="02.meta_gradient",
    title="The gradient of the loss after adaptation",
    difficulty=2,
    minutes=10,
    reference=_meta_gradient,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.5, 4),
        (_nested, curve_task(rng, 6, 4), _nested_params(rng, 3), 0.1, 2),
        (wave, curve_task(rng, 3, 7), rng.normal(1, 0.3, 2), 0.1, 1),
        (network, curve_task(rng, 4, 6), network_params(rng, 2), 0.1, 0),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            first_order,
            "Your result equals the FO-MAML gradient $\\nabla f(\\varphi_K)$: the factors $(I - \\alpha H_k)$ are "
            "missing. That can happen when the function you differentiate does not contain the inner loop, or when "
            "something inside it stops the gradient.",
        ),
        Misconception(
            "gradient at the initialization",
            lambda loss, task, params, learning_rate, num_steps: gradient_at(loss, params, task.query),
            "Your result equals the query gradient at the initialization, as if no inner step had been taken. "
            "Does the function that you differentiate contain the inner loop, and does it return the loss of what "
            "comes out of it?",
        ),
        Misconception(
            "support and query swapped",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.query, task.support, params, learning_rate, num_steps
            ),
            "Your result is the gradient for adapting on the query set and scoring on the support set. "
            "Which of the two may adaptation see?",
        ),
        Misconception(
            "scored on the support set",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.support, task.support, params, learning_rate, num_steps
            ),
            "Your result is the gradient for adapting and scoring on the same support points, which rewards "
            "overfitting to them. Which points judge the adapted parameters?",
        ),
        Misconception(
            "adapted on the query set",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.query, task.query, params, learning_rate, num_steps
            ),
            "Your result is the gradient for inner steps on the query points, which are there to judge. "
            "Which set may adaptation see?",
        ),
        Misconception(
            "one step too few",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.support, task.query, params, learning_rate, num_steps - 1
            ),
            "Your result is the meta-gradient after one inner step too few. How often does your loop run?",
        ),
        Misconception(
            "one step too many",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.support, task.query, params, learning_rate, num_steps + 1
            ),
            "Your result is the meta-gradient after one inner step too many. How often does your loop run?",
        ),
        Misconception(
            "ascent",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.support, task.query, params, -learning_rate, num_steps
            ),
            "Your result is the meta-gradient for inner steps that ascend the support loss. "
            "Look at the sign of the inner step.",
        ),
        Misconception(
            "every step from the initialization",
            steps_from_the_start,
            "Your result is what one gets if every inner gradient is taken at the initialization $\\theta$. "
            "At which parameters should step $k$ take its gradient?",
        ),
        Misconception(
            "sign",
            lambda *args: jax.tree.map(jnp.negative, with_a_loop(*args)),
            "Your result is minus the meta-gradient. The exercise asks for the gradient itself, not for a descent "
            "direction.",
        ),
        Misconception(
            "displacement",
            lambda loss, task, params, learning_rate, num_steps: jax.tree.map(
                lambda p, q: p - q, params, adapt(loss, task.support, params, learning_rate, num_steps)
            ),
            "Your result is $\\theta - \\varphi_K$, minus the displacement by the inner loop. This is the direction of "
            "Reptile (lesson 03). Where does the query loss enter your answer?",
        ),
    ),
    relatives=(
        (
            "the meta-gradient of a single inner step, however many there are",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss, task.support, task.query, params, learning_rate, 1
            ),
        ),
        (
            "the meta-gradient of the last step alone: the initialization of that step is the variable",
            lambda loss, task, params, learning_rate, num_steps: gradient_after(
                loss,
                task.support,
                task.query,
                adapt(loss, task.support, params, learning_rate, max(num_steps - 1, 0)),
                learning_rate,
                min(num_steps, 1),
            ),
        ),
        ("the meta-gradient of inner steps that each start from the initialization", _of_restarting_steps),
        (
            "the sum of the meta-gradients after 0, 1, ..., K steps",
            lambda loss, task, params, learning_rate, num_steps: jax.tree.map(
                lambda *leaves: sum(leaves),
                *(
                    gradient_after(loss, task.support, task.query, params, learning_rate, k)
                    for k in range(num_steps + 1)
                ),
            ),
        ),
        (
            "the meta-gradient plus the gradient of the support loss at the initialization",
            lambda loss, task, params, *args: jax.tree.map(
                jnp.add,
                gradient_after(loss, task.support, task.query, params, *args),
                gradient_at(loss, params, task.support),
            ),
        ),
    ),
    alternatives=(by_recursion, with_a_loop),
    hints=(
        "Write a small function of the initialization alone: it runs the inner loop and returns the query loss. "
        "What is its gradient, and which function of JAX computes it for you?",
        "The inner loop is a `for` loop (or `jax.lax.scan`) around "
        "`jax.tree.map(lambda p, g: p - learning_rate * g, adapted, gradient)`. "
        "It has to stand *inside* the function that `jax.grad` is given.",
    ),
    expected="A pytree with the structure and shapes of `params`. For the sine wave above, with $\\alpha = 0.1$ and "
    "$K = 3$, it equals the product of the three factors and the query gradient, line 4 of the derivation.",
)

# 02.backward_pass ---------------------------------------------------------------------------------------------------


def _product(loss, task, params, learning_rate, num_steps, *, points=None, batch=None, factor=None):
    """Multiplies the query gradient by one factor per point, the first point's factor first."""
    path = path_of(loss, task.support, params, learning_rate, num_steps)
    vector = gradient_at(loss, path[-1], task.query)
    for point in path[-2::-1] if points is None else points(path):
        curvature = _hessian(loss, point, task.support if batch is None else batch) @ vector
        vector = vector - learning_rate * curvature if factor is None else factor(vector, curvature)
    return vector


def _with_jvp(loss, task, params, learning_rate, num_steps):
    path = path_of(loss, task.support, params, learning_rate, num_steps)
    vector = gradient_at(loss, path[-1], task.query)
    for point in reversed(path[:-1]):
        _, curvature = jax.jvp(lambda phi: jax.grad(loss)(phi, task.support), (point,), (vector,))
        vector = vector - learning_rate * curvature
    return vector


BACKWARD_PASS = Exercise(
    id="02.backward_pass",
    title="The same gradient by hand, from the last step to the first",
    difficulty=3,
    minutes=15,
    reference=_meta_gradient,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.7, 4),
        (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), 0.3, 5),
        (wave, curve_task(rng, 3, 7), rng.normal(1, 0.3, 2), 0.15, 1),
        (wave, curve_task(rng, 4, 6), rng.normal(1, 0.3, 2), 0.15, 0),
    ],
    misconceptions=(
        Misconception(
            "no factors",
            first_order,
            "Your result equals $\\nabla f(\\varphi_K)$, the FO-MAML gradient: no factor $(I - \\alpha H_k)$ has "
            "reached it. Does the vector change in your second loop?",
        ),
        Misconception(
            "first step first",
            lambda *args: _product(*args, points=lambda path: path[:-1]),
            "Your result is the product with the factors in the order of the steps. The gradient travels backwards: "
            "which factor stands next to $\\nabla f(\\varphi_K)$?",
        ),
        Misconception(
            "Hessian of the query loss",
            lambda loss, task, *args: _product(loss, task, *args, batch=task.query),
            "Your result is the product with Hessians of the query loss. Which loss do the inner steps descend?",
        ),
        Misconception(
            "Hessian at the initialization",
            lambda *args: _product(*args, points=lambda path: path[:1] * (len(path) - 1)),
            "Your result is the product with every Hessian taken at the initialization, which for several "
            "steps is right only if the loss is quadratic. At which parameters does step $k$ take its gradient?",
        ),
        Misconception(
            "Hessian at the end",
            lambda *args: _product(*args, points=lambda path: path[-1:] * (len(path) - 1)),
            "Your result is the product with every Hessian taken at the adapted parameters $\\varphi_K$. "
            "At which parameters does step $k$ take its gradient?",
        ),
        Misconception(
            "Hessian one step late",
            lambda *args: _product(*args, points=lambda path: path[:0:-1]),
            "Your result is the product with each Hessian taken where its step ends. Step $k$ goes from $\\varphi_k$ "
            "to $\\varphi_{k+1}$: at which of the two does it take its gradient?",
        ),
        Misconception(
            "plus",
            lambda loss, task, params, learning_rate, num_steps: _product(
                loss, task, params, learning_rate, num_steps, factor=lambda v, hv: v + learning_rate * hv
            ),
            "Your result is the product of the factors $(I + \\alpha H_k)$. "
            "Differentiate $\\varphi - \\alpha \\nabla h(\\varphi)$ once more: which sign comes out?",
        ),
        Misconception(
            "no learning rate",
            lambda *args: _product(*args, factor=lambda v, hv: v - hv),
            "Your result is the product of the factors $(I - H_k)$: the inner learning rate is missing.",
        ),
        Misconception(
            "first factor missing",
            lambda *args: _product(*args, points=lambda path: path[-2:0:-1]),
            "Your result lacks the factor of the first step, whose Hessian is taken at the initialization. "
            "There are as many factors as steps: where does your loop end?",
        ),
        Misconception(
            "last factor missing",
            lambda *args: _product(*args, points=lambda path: path[-3::-1] if len(path) > 2 else []),
            "Your result lacks the factor of the last step, $(I - \\alpha H_{K-1})$. "
            "There are as many factors as steps: where does your loop begin?",
        ),
        Misconception(
            "only the Hessian",
            lambda loss, task, params, learning_rate, num_steps: _product(
                loss, task, params, learning_rate, num_steps, factor=lambda v, hv: learning_rate * hv
            ),
            "Your result is a product of the matrices $\\alpha H_k$. The identity is missing from the factor.",
        ),
    ),
    relatives=(
        (
            "what the recursion gives with 2α in each factor",
            lambda loss, task, params, learning_rate, num_steps: _product(
                loss, task, params, learning_rate, num_steps, factor=lambda v, hv: v - 2 * learning_rate * hv
            ),
        ),
        (
            "what the recursion gives with the square of α in each factor",
            lambda loss, task, params, learning_rate, num_steps: _product(
                loss, task, params, learning_rate, num_steps, factor=lambda v, hv: v - learning_rate**2 * hv
            ),
        ),
        (
            "what the recursion gives from the query gradient at the initialization",
            lambda loss, task, params, learning_rate, num_steps: functools.reduce(
                lambda v, phi: v - learning_rate * _hessian(loss, phi, task.support) @ v,
                path_of(loss, task.support, params, learning_rate, num_steps)[-2::-1],
                gradient_at(loss, params, task.query),
            ),
        ),
        (
            "what one factor with the sum of all Hessians gives, where each step has a factor of its own",
            lambda loss, task, params, learning_rate, num_steps: (
                lambda path, v: v - learning_rate * sum(_hessian(loss, phi, task.support) @ v for phi in path[:-1])
            )(
                path_of(loss, task.support, params, learning_rate, num_steps),
                first_order(loss, task, params, learning_rate, num_steps),
            ),
        ),
        (
            "the product of K + 1 factors, the last of them with the Hessian at the adapted parameters",
            lambda *args: _product(*args, points=lambda path: path[::-1]),
        ),
        (
            "what the factors -αH give, without the identity",
            lambda loss, task, params, learning_rate, num_steps: _product(
                loss, task, params, learning_rate, num_steps, factor=lambda v, hv: -learning_rate * hv
            ),
        ),
        (
            "what only the diagonals of the Hessians give",
            lambda loss, task, params, learning_rate, num_steps: functools.reduce(
                lambda v, phi: v - learning_rate * jnp.diag(_hessian(loss, phi, task.support)) * v,
                path_of(loss, task.support, params, learning_rate, num_steps)[-2::-1],
                first_order(loss, task, params, learning_rate, num_steps),
            ),
        ),
        (
            "what solving with I + αH gives in each step, where I - αH multiplies",
            lambda loss, task, params, learning_rate, num_steps: functools.reduce(
                lambda v, phi: jnp.linalg.solve(jnp.eye(len(v)) + learning_rate * _hessian(loss, phi, task.support), v),
                path_of(loss, task.support, params, learning_rate, num_steps)[-2::-1],
                first_order(loss, task, params, learning_rate, num_steps),
            ),
        ),
        (
            "the product of the factors, a matrix that is applied to nothing yet",
            lambda loss, task, params, learning_rate, num_steps: functools.reduce(
                lambda product, phi: (
                    product @ (jnp.eye(len(params)) - learning_rate * _hessian(loss, phi, task.support))
                ),
                path_of(loss, task.support, params, learning_rate, num_steps)[:-1],
                jnp.eye(len(params)),
            ),
        ),
    ),
    alternatives=(_product, _with_jvp),
    hints=(
        "Two loops. The first takes the inner steps and keeps all parameters $\\varphi_0, \\dots, \\varphi_K$ in a "
        "list. The second goes through that list from its end and changes one vector.",
        "Before the second loop the vector is the query gradient at $\\varphi_K$. "
        "`jax.hessian(loss)(phi, batch)` is a matrix, and `@` multiplies.",
    ),
    expected="An array of shape `[d]`, equal to what `ml.maml` returns, without differentiating through the loop.",
)

# 02.learning_rate ---------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _by_autodiff(loss, task, params, learning_rate, num_steps):
    def after(rate):
        return loss(adapt(loss, task.support, params, rate, num_steps), task.query)

    return jax.grad(after)(jnp.asarray(learning_rate, float))


def _unrolled(
    loss,
    task,
    params,
    learning_rate,
    num_steps,
    *,
    gradient_of="support",
    support_step=lambda k: k,
    hessian_of="support",
    hessian_at=lambda k: k,
    factor=lambda learning_rate: learning_rate,
    early=False,
):
    """The sum over steps, with what can go wrong in it."""
    path = path_of(loss, task.support, params, learning_rate, num_steps)
    vector, total = gradient_at(loss, path[-1], task.query), jnp.zeros(())
    for k in reversed(range(num_steps)):
        product = _hessian(loss, path[hessian_at(k)], getattr(task, hessian_of)) @ vector
        after = vector - factor(learning_rate) * product
        gradient = gradient_at(loss, path[support_step(k)], getattr(task, gradient_of))
        total = total - gradient @ (after if early else vector)
        vector = after
    return total


def _forward_mode(loss, task, params, learning_rate, num_steps, begin=0.0):
    """An alternative: line 2 from the first step to the last. It begins with a multiple of the first gradient."""
    path = path_of(loss, task.support, params, learning_rate, num_steps)
    change = begin * gradient_at(loss, params, task.support)
    for phi in path[:-1]:
        factor = jnp.eye(len(params)) - learning_rate * _hessian(loss, phi, task.support)
        change = factor @ change - gradient_at(loss, phi, task.support)
    return change @ gradient_at(loss, path[-1], task.query)


def _last_step_only(loss, task, params, learning_rate, num_steps):
    path = path_of(loss, task.support, params, learning_rate, num_steps)
    if num_steps == 0:
        return jnp.zeros(())
    return -gradient_at(loss, path[-2], task.support) @ gradient_at(loss, path[-1], task.query)


def _explicit_only(loss, task, params, learning_rate, num_steps):
    return (
        -num_steps * gradient_at(loss, params, task.support) @ first_order(loss, task, params, learning_rate, num_steps)
    )


LEARNING_RATE = Exercise(
    id="02.learning_rate",
    title="The gradient with respect to the inner learning rate",
    difficulty=3,
    minutes=15,
    reference=_by_autodiff,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.7, 4),
        (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), 0.3, 5),
        (wave, curve_task(rng, 3, 7), rng.normal(1, 0.3, 2), 0.15, 1),
        (wave, curve_task(rng, 4, 6), rng.normal(1, 0.3, 2), 0.15, 0),
    ],
    misconceptions=(
        Misconception(
            "no factors",
            functools.partial(_unrolled, factor=lambda learning_rate: 0.0),
            "Your result is $-\\sum_k \\nabla h(\\varphi_k)^\\top \\nabla f(\\varphi_K)$. An early step also changes "
            "the parameters at which all later steps take their gradients: which factors does that put between the "
            "two?",
        ),
        Misconception(
            "last step only",
            _last_step_only,
            "Your result counts the last step alone. The learning rate stands in every step, so each of them "
            "contributes.",
        ),
        Misconception(
            "gradient at the initialization",
            _explicit_only,
            "Your result is $-K \\nabla h(\\theta)^\\top \\nabla f(\\varphi_K)$, as if every step took its gradient at "
            "the initialization.",
        ),
        Misconception(
            "one factor too many",
            functools.partial(_unrolled, early=True),
            "In your result each $\\nabla h(\\varphi_k)$ meets a vector that has passed through the factor of its own "
            "step already. What step $k$ adds is carried on only by the steps *after* it.",
        ),
        Misconception(
            "sign",
            lambda *args: -_by_autodiff(*args),
            "Your result is minus the derivative. Which sign does $\\nabla h(\\varphi_k)$ have in line 2?",
        ),
        Misconception(
            "gradients of the query loss",
            functools.partial(_unrolled, gradient_of="query"),
            "Your sum holds gradients of the query loss along the inner loop. Which loss do the inner steps descend?",
        ),
        Misconception(
            "gradient one step late",
            functools.partial(_unrolled, support_step=lambda k: k + 1),
            "Your sum holds each gradient where its step ends. Step $k$ takes its gradient at $\\varphi_k$.",
        ),
        Misconception(
            "no learning rate",
            functools.partial(_unrolled, factor=lambda learning_rate: 1.0),
            "Your factors are $(I - H_k)$: the inner learning rate is missing from them.",
        ),
        Misconception(
            "plus",
            functools.partial(_unrolled, factor=lambda learning_rate: -learning_rate),
            "Your factors are $(I + \\alpha H_k)$. Which sign does the Hessian have in line 2?",
        ),
        Misconception(
            "learning rate twice",
            lambda loss, task, params, learning_rate, num_steps: (
                learning_rate * _by_autodiff(loss, task, params, learning_rate, num_steps)
            ),
            "Your result is $\\alpha$ times the derivative. Differentiating $\\alpha \\nabla h$ with respect to "
            "$\\alpha$ leaves no $\\alpha$ in front.",
        ),
        Misconception(
            "mean over steps",
            lambda loss, task, params, learning_rate, num_steps: (
                _by_autodiff(loss, task, params, learning_rate, num_steps) / max(num_steps, 1)
            ),
            "Your result is the derivative divided by the number of steps. The contributions of the steps add up.",
        ),
        Misconception(
            "gradient in the initialization",
            _meta_gradient,
            "Your result is the meta-gradient, the derivative with respect to the initialization. "
            "Here the initialization is fixed, and one number is asked for.",
        ),
    ),
    relatives=(
        (
            "what the sum gives with every Hessian taken at the initialization",
            functools.partial(_unrolled, hessian_at=lambda k: 0),
        ),
        ("what the sum gives with Hessians of the query loss", functools.partial(_unrolled, hessian_of="query")),
        (
            "what the sum gives with every support gradient taken at the initialization",
            functools.partial(_unrolled, support_step=lambda k: 0),
        ),
        (
            "what the sum gives with 2α in each factor",
            functools.partial(_unrolled, factor=lambda learning_rate: 2 * learning_rate),
        ),
        (
            "what line 2 gives if it begins with minus the support gradient at the initialization, not with 0",
            functools.partial(_forward_mode, begin=-1.0),
        ),
        (
            "minus the sum of the inner products of support and query gradient, both at the point of each step",
            lambda loss, task, *args: (
                -sum(
                    (
                        gradient_at(loss, phi, task.support) @ gradient_at(loss, phi, task.query)
                        for phi in path_of(loss, task.support, *args)[:-1]
                    ),
                    jnp.zeros(()),
                )
            ),
        ),
        (
            "what the sum gives if every support gradient meets the vector that has passed through all factors",
            lambda loss, task, *args: (
                -sum(
                    (
                        gradient_at(loss, phi, task.support) @ _meta_gradient(loss, task, *args)
                        for phi in path_of(loss, task.support, *args)[:-1]
                    ),
                    jnp.zeros(()),
                )
            ),
        ),
        (
            "what the sum gives if its loop runs from the first step to the last",
            lambda loss, task, *args: functools.reduce(
                lambda pair, phi: (
                    pair[0] - gradient_at(loss, phi, task.support) @ pair[1],
                    pair[1] - args[1] * _hessian(loss, phi, task.support) @ pair[1],
                ),
                path_of(loss, task.support, *args)[:-1],
                (jnp.zeros(()), first_order(loss, task, *args)),
            )[0],
        ),
        (
            "minus the inner product of the support and the query gradient at the initialization",
            lambda loss, task, params, learning_rate, num_steps: (
                -gradient_at(loss, params, task.support) @ gradient_at(loss, params, task.query)
            ),
        ),
        (
            "the term of the first step alone",
            lambda loss, task, params, learning_rate, num_steps: (
                0.0
                if num_steps == 0
                else -gradient_at(loss, params, task.support)
                @ gradient_after(
                    loss,
                    task.support,
                    task.query,
                    adapt(loss, task.support, params, learning_rate, 1),
                    learning_rate,
                    num_steps - 1,
                )
            ),
        ),
        (
            "the derivative of a run whose steps all use the gradient at the initialization",
            lambda loss, task, params, learning_rate, num_steps: (
                lambda g: -num_steps * g @ gradient_at(loss, params - num_steps * learning_rate * g, task.query)
            )(gradient_at(loss, params, task.support)),
        ),
    ),
    alternatives=(_unrolled, _forward_mode),
    hints=(
        "Write line 2 for $K = 2$ and put it into itself. You get one term for each step, and each term passes through "
        "the factors of the steps that come after it.",
        "The vector of your backward pass, before it has passed through the factor of step $k$, is what "
        "$-\\nabla h(\\varphi_k)$ must be multiplied by. So one more line in the second loop is enough.",
    ),
    expected="A number: negative where a slightly larger inner learning rate would lower the query loss, and 0 "
    "for $K = 0$.",
)

# 02.control ---------------------------------------------------------------------------------------------------------


def _ratios(runs, combine=lambda run, base: run / base, swap=False):
    """A wrong or right control: `runs` gives the settings of both from (learning rate, steps, factor)."""

    def separate(curvature, learning_rate, num_steps, factor):
        base = curvature(learning_rate, num_steps)
        pair = tuple(combine(curvature(*run), base) for run in runs(learning_rate, num_steps, factor))
        return pair[::-1] if swap else pair

    return separate


def _runs(learning_rate, num_steps, factor):
    return (learning_rate / factor, num_steps * factor), (learning_rate * factor, num_steps)


def _separate(curvature, learning_rate, num_steps, factor):
    time = learning_rate * num_steps
    many = factor * num_steps
    base = curvature(learning_rate, num_steps)
    return curvature(time / many, many) / base, curvature(factor * time / num_steps, num_steps) / base


def _response(rng):
    """Some law by which curvature may follow from learning rate and steps; neither of them alone explains it."""
    scale, in_rate, in_steps, in_time = rng.uniform([0.5, 0.3, 0.2, 0.2], [2.0, 1.5, 0.9, 0.8])

    def curvature(learning_rate, num_steps):
        return scale * learning_rate**in_rate * num_steps**in_steps * np.exp(in_time * learning_rate * num_steps)

    return curvature


def _hill(rng):
    """The curvature at the top of one cosine, after any number of inner steps."""
    bound = rng.uniform(0.5, 1.5)
    return lambda learning_rate, num_steps: bound * (1 + learning_rate * bound) ** (2 * num_steps)


CONTROL = Exercise(
    id="02.control",
    title="Design the control: more steps, or more training time?",
    difficulty=2,
    minutes=10,
    reference=_ratios(_runs),
    instances=lambda rng: [
        (_response(rng), float(rng.uniform(0.2, 0.5)), 2, 3),
        (_hill(rng), float(rng.uniform(0.2, 0.5)), 4, 2),
        (_response(rng), float(rng.uniform(0.05, 0.1)), 1, 8),
        (_hill(rng), 0.5, 3, 1),
    ],
    misconceptions=(
        Misconception(
            "learning rate kept",
            _ratios(lambda a, k, c: ((a, k * c), (a * c, k))),
            "Your first run seems to have more steps at the same learning rate. Then $K$ and $T$ grow together, and "
            "the run cannot tell which of the two is the cause. What must change with $K$ so that $T$ does not?",
        ),
        Misconception(
            "time raised by steps",
            _ratios(lambda a, k, c: ((a / c, k * c), (a, k * c))),
            "Your second run seems to reach its longer training time with more steps. Then $K$ and $T$ grow together. "
            "How else can $T = \\alpha K$ grow?",
        ),
        Misconception(
            "steps in both",
            _ratios(lambda a, k, c: ((a, k * c), (a, k * c))),
            "Both of your runs seem to be the same: more steps at the same learning rate. In it $K$ and $T$ grow "
            "together. Each run should change one of the two and hold the other.",
        ),
        Misconception(
            "smaller steps only",
            _ratios(lambda a, k, c: ((a / c, k), (a * c, k))),
            "Your first run seems to have a smaller learning rate and as many steps as before, so $T$ falls. "
            "It should have more steps and the same $T$.",
        ),
        Misconception(
            "swapped",
            _ratios(_runs, swap=True),
            "You return both effects in the wrong order: that of more steps at the same training time comes first.",
        ),
        Misconception(
            "inverted",
            _ratios(_runs, lambda run, base: base / run),
            "Your ratios are turned round: the run that you started from belongs in the denominator.",
        ),
        Misconception(
            "difference",
            _ratios(_runs, lambda run, base: run - base),
            "You subtract the first curvature. The exercise asks by which *factor* it grows.",
        ),
        Misconception(
            "not compared",
            _ratios(_runs, lambda run, base: run),
            "You return the curvatures of both runs. By which factor do they differ from that of the run that you "
            "started from?",
        ),
        Misconception(
            "relative change",
            _ratios(_runs, lambda run, base: run / base - 1),
            "You return relative changes, which are 0 where nothing changes. The exercise asks for the factor, which "
            "is 1 there.",
        ),
    ),
    relatives=(
        (
            "what is measured when both runs have more steps, the second one at a higher learning rate as well",
            _ratios(lambda a, k, c: ((a / c, k * c), (a * c, k * c))),
        ),
        (
            "what is measured when the first run has a higher learning rate and fewer steps",
            _ratios(lambda a, k, c: ((a * c, max(k // c, 1)), (a * c, k))),
        ),
        (
            "what is measured when the first run has a higher learning rate and a number of steps divided by `factor`",
            _ratios(lambda a, k, c: ((a * c, k / c), (a * c, k))),
        ),
        (
            "what is measured when the second run has less training time, not more",
            _ratios(lambda a, k, c: ((a / c, k * c), (a / c, k))),
        ),
        (
            "what is measured when the number of steps grows by `factor`, and is not multiplied by it",
            _ratios(lambda a, k, c: ((a * k / (k + c), k + c), (a * c, k))),
        ),
        (
            "what is measured when the training time grows by the square of `factor`",
            _ratios(lambda a, k, c: ((a / c, k * c), (a * c**2, k))),
        ),
        (
            "the two runs divided by each other, and not by the run that both are compared with",
            lambda curvature, a, k, c: (
                curvature(a / c, k * c) / curvature(a * c, k),
                curvature(a * c, k) / curvature(a / c, k * c),
            ),
        ),
        (
            "the right first part, with a second part divided by the curvature of the run with more steps",
            lambda curvature, a, k, c: (
                curvature(a / c, k * c) / curvature(a, k),
                curvature(a * c, k) / curvature(a / c, k * c),
            ),
        ),
    ),
    alternatives=(
        _separate,
        lambda curvature, learning_rate, num_steps, factor: (
            np.exp(
                np.log(curvature(learning_rate / factor, num_steps * factor))
                - np.log(curvature(learning_rate, num_steps))
            ),
            curvature(factor * learning_rate, num_steps) / curvature(learning_rate, num_steps),
        ),
    ),
    hints=(
        "Three runs. For each, write $\\alpha$, $K$ and $T = \\alpha K$ into a small table before you write code.",
        "In the first comparison $K$ becomes `factor * num_steps`; choose $\\alpha$ such that the product stays. "
        "In the second one $K$ stays; what is left to change?",
    ),
    expected="A pair of numbers. Both are 1 if `factor` is 1.",
)

EXERCISES = (META_GRADIENT, BACKWARD_PASS, LEARNING_RATE, CONTROL)

PREDICTIONS = (
    Guess(
        "02.best_initialization",
        "Double the inner learning rate to $\\alpha = 0.6$, and take one step again. Where is the best initialization "
        "now?",
        (
            "close to the steep task's minimum",
            "half way between the two minima",
            "even closer to the flat task's minimum",
        ),
        why="With this learning rate a step on the steep task jumps across its minimum and ends almost as far away on "
        "the other side. Neither task gets near its minimum now, and the steep loss weighs more.",
        read="Which initialization is best?",
    ),
    Guess(
        "02.nudge",
        "Two runs of gradient descent on one parabola begin a small distance apart. Every inner step multiplies that "
        "distance by 0.9. After five inner steps, what fraction of the distance is left?",
        unit="of the distance",
        why="Each step multiplies the distance that the step before has left, so the five factors multiply: $0.9^5$.",
        read="How much of a small change survives?",
    ),
    Guess(
        "02.after_one_step",
        "Before it adapts, the network from MAML has a query loss near 3, like the one from joint training. "
        "What is its query loss after one inner step?",
        why="The outer loop has trained for exactly this number: the query loss after one inner step.",
        read="Finn et al.'s experiment",
    ),
    Guess(
        "02.few_tasks",
        "A network is trained by MAML on a single task, with as many points of its curve as it wants. Then it takes "
        "one inner step on a new task. Where is its query loss there, on average?",
        (
            "near zero, because it has learned to adapt",
            "well above zero, but below the floor of about 3",
            "above the floor",
        ),
        why="With one training task there is nothing to adapt to, so the outer loop learns this curve by heart. One "
        "small step does not lead from there to another curve.",
        read="MAML overfits to few training tasks",
    ),
    Guess(
        "02.training_time",
        "Hold $T = \\alpha K = 8$ and go from 16 inner steps to 1,024, each of them 64 times smaller. What happens to "
        "the largest curvature of $F$?",
        (
            "it falls, because the steps become tiny",
            "it grows at first, then levels off",
            "it grows with every doubling of K, without limit",
        ),
        why="A product of many factors close to 1, $(1 + \\alpha L)^K$ with $\\alpha = T/K$, tends to $e^{LT}$. In "
        "this limit the training time alone decides, and the number of steps no longer matters.",
        read="Curvature grows with the training time",
    ),
)

QUIZ = (
    Question(
        "Five inner steps, each of which shrinks distances by a factor 0.9. FO-MAML pretends that the factors are 1. "
        "Compared with the true meta-gradient of one quadratic task in one dimension, its gradient",
        (
            "has a larger norm and the same direction",
            "has a smaller norm and the same direction",
            "is equal, because the task is quadratic",
            "has the opposite sign",
        ),
        0,
        (
            "Yes: the true gradient carries the factor 0.9⁵, and FO-MAML carries 1.",
            "Which of the two carries a factor below 1?",
            "The factor does not vanish for a quadratic; it is then the same at every point.",
            "The factor is positive, so the sign stays.",
        ),
    ),
    Question(
        "Why does the factor of the last inner step stand next to the query gradient?",
        (
            "Because Hessians commute",
            "Because the gradient is propagated from the end of the inner loop to its beginning",
            "Because scan runs backwards",
            "It does not matter where it stands",
        ),
        1,
        (
            "In general they do not: the table below line 4 shows the difference.",
            "Yes: the query gradient is taken at the end, and each step passes it on to the parameters before it.",
            "scan runs forwards; it is its derivative that runs backwards, for the reason asked for.",
            "It does matter as soon as two Hessians do not commute, as the table below line 4 shows.",
        ),
    ),
    Question(
        "One task has the loss $1 - \\cos(\\varphi - b)$, and θ lies at its top. You go from 1 inner step with "
        "$\\alpha = 0.5$ to 2 inner steps with $\\alpha = 0.25$. The curvature $|F''|$ there goes from 2.25 to",
        ("1.56", "2.25", "2.44", "5.06"),
        2,
        (
            "That is $1.25^2$. Each of the two steps contributes a factor, and the curvature contains their product "
            "twice.",
            "The training time is the same, but two factors of 1.25 are not one of 1.5.",
            "Yes: $(1 + 0.25)^{2 \\cdot 2}$. At the same training time it grows only a little, towards $e$.",
            "That is $1.5^4$: two steps at the old learning rate, and so twice the training time.",
        ),
    ),
)


# Figures ------------------------------------------------------------------------------------------------------------

STEEPNESS, MINIMUM = np.array([3.0, 0.5]), np.array([-1.0, 2.0])
_THETA = np.linspace(-2.5, 3.5, 601)


def _after_one_step(learning_rate):
    """The mean loss of both tasks after one step from each of `_THETA`."""
    distance = (1 - learning_rate * STEEPNESS) * (_THETA[:, None] - MINIMUM)
    return (0.5 * STEEPNESS * distance**2).mean(-1)


def two_tasks() -> None:
    """Shows the losses of the steep and the flat task."""
    steep, flat = (0.5 * STEEPNESS * (_THETA[:, None] - MINIMUM) ** 2).T
    plots.show(
        plots.lines(
            _THETA,
            {"steep task": steep, "flat task": flat},
            "parameter φ",
            "loss",
            points={"−1": (-1.0, 0.0), "2": (2.0, 0.0)},
            ylim=(-0.15, 4.0),
        ),
        alt="Two parabolas. The steep one has its minimum at minus one, the flat one at two.",
        title="Each task alone is easy",
        caption="The losses of a steep and a flat task, with their minima.",
    )


def best_initialization(learning_rate: float) -> Figure:
    """The mean loss of both tasks before and after one step, with the best initialization for each."""
    before, after = _after_one_step(0.0), _after_one_step(learning_rate)
    best = _THETA[after.argmin()]
    return plots.lines(
        _THETA,
        {"before": before, "after one step": after},
        "initialization θ",
        "mean loss of both tasks",
        points={f"θ = {plots.number(best)}": (best, after.min())},
        ylim=(-0.15, 4.6),
    )


def nudged_runs() -> None:
    """Shows two runs of gradient descent on a parabola coming closer to each other."""
    steps = np.arange(6)
    first, second = 2.0 * 0.9**steps, 2.6 * 0.9**steps
    figure = plots.lines(steps, {"from θ": first, "from θ + δ": second}, "inner steps", "parameter φ", ylim=(0.0, 3.0))
    (axes,) = figure.axes
    for k in (0, 5):
        axes.plot([k, k], [first[k], second[k]], color=plots.PALETTE["text"], linestyle="-", linewidth=1)
    for k, text, side in ((0, "δ", "left"), (5, "0.59 δ", "right")):
        axes.annotate(
            text,
            (k, (first[k] + second[k]) / 2),
            xytext=(5 if side == "left" else -5, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            weight="bold",
            color=plots.PALETTE["text"],
        )
    plots.show(
        figure,
        alt="Two curves that fall towards zero over five inner steps. The distance between them shrinks from epsilon "
        "to 0.59 epsilon.",
        title="After five steps 59 % of the distance is left",
        caption="Two runs of gradient descent on one parabola, from initializations that differ by δ.",
    )


def adaptation(joint: Any, maml: Any, floor: float) -> None:
    """Shows query losses against inner steps, [11, num_tasks] each, and lesson 01's floor."""
    figure = plots.adaptation({"MAML": maml, "joint training": joint}, "query loss (squared error)", log="y")
    (axes,) = figure.axes
    axes.axhline(floor, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
    place = {"xytext": (0, 6), "textcoords": "offset points", "ha": "right", "color": plots.PALETTE["muted"]}
    axes.annotate(f"floor of any single function: {floor:.2f}", (10, floor), **place)
    plots.show(
        figure,
        alt="Query loss against inner steps, on a logarithmic axis. Both curves begin near three, at the floor that "
        "lesson 01 computed. The one from joint training falls slowly. The one from MAML falls about eightfold in the "
        "first step, and further until the tenth.",
        title="Equal before adaptation, far apart after one step",
        caption="Mean over 1,000 new tasks with its 95 % interval, adapted from both initializations.",
    )


def train_on_few(train_step: Any, state: Any, counts: tuple[int, ...], runs: int = 6) -> tuple[Params, Any]:
    """Trains `runs` networks for each number of training tasks, all in one compiled program: scan, and vmap twice.

    Args:
      train_step: function of (state, key, count, curves) that returns the next state.
      state: (params, state of the optimizer) that all begin with.
      counts: numbers of training tasks.
      runs: networks for each of them.

    Returns:
      Their parameters, with leading axes [counts, runs]; amplitudes and phases of the curves, [runs, max(counts)] each.
    """
    unit = jax.random.uniform(jax.random.key(7), (2, runs, max(counts)))
    curves = 0.1 + 4.9 * unit[0], jnp.pi * unit[1]

    def hundred_steps(state, key, count, curves):
        def step(state, key):
            return train_step(state, key, count, curves), None

        return jax.lax.scan(step, state, jax.random.split(key, 100))[0]

    over_runs = jax.vmap(hundred_steps, in_axes=(0, 0, None, 0))
    over_counts = jax.jit(jax.vmap(over_runs, in_axes=(0, None, 0, None)))
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(counts), runs, *leaf.shape)), state)
    for key in bar(
        jax.random.split(jax.random.key(8), (20, runs)), f"training {len(counts) * runs} networks", seconds=5
    ):
        states = jax.block_until_ready(over_counts(states, key, jnp.array(counts), curves))
    return states[0], curves


def losses_on_few(
    curve: Any, trained: Params, counts: tuple[int, ...], curves: Any, tasks: ml.tasks.Sinusoid
) -> tuple[np.ndarray, np.ndarray]:
    """Query losses after one inner step on training tasks and on new tasks, each of shape [counts, runs].

    Args:
      curve: function of (params, inner learning rate, batch) -> query losses after each step, [steps + 1, num_tasks].
      trained: as `train_on_few` returns them.
      counts: numbers of training tasks.
      curves: as `train_on_few` returns them.
      tasks: the task distribution.
    """
    new = tasks(jax.random.key(9), 200)

    def of_one(params, count, curves):
        amplitude, phase = curves
        i = jax.random.randint(jax.random.key(10), (200,), 0, count)
        own = jax.vmap(tasks.task)(jax.random.split(jax.random.key(11), 200), amplitude[i], phase[i])
        return jnp.stack([curve(params, 0.01, batch)[1].mean() for batch in (own, new)])

    over_runs = jax.vmap(of_one, in_axes=(0, None, 0))
    losses = jax.jit(jax.vmap(over_runs, in_axes=(0, 0, None)))(trained, jnp.array(counts), curves)
    training, unseen = np.moveaxis(np.asarray(losses), -1, 0)
    return training, unseen


def meta_overfitting(counts: tuple[int, ...], training: np.ndarray, new: np.ndarray, floor: float) -> None:
    """Shows losses after one inner step on training and new tasks, [counts, runs] each, and lesson 01's floor."""
    figure, (axes,) = plots.subplots(height=3.4)
    for values, color, dash, name in ((new, "orange", "--", "new tasks"), (training, "blue", "-", "training tasks")):
        half_width = 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        axes.plot(counts, values.mean(1), color=plots.PALETTE[color], linestyle=dash, marker="o", label=name)
        axes.errorbar(
            counts,
            values.mean(1),
            half_width,
            color=plots.PALETTE[color],
            linestyle="none",
            capsize=3,
            elinewidth=1.4,
        )
    axes.axhline(floor, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
    place = {"textcoords": "offset points"}
    axes.annotate("floor", (counts[-1], floor), (0, 5), ha="right", color=plots.PALETTE["muted"], **place)
    ends = [(1.08, float(values[0].mean())) for values in (training, new)]
    axes.annotate("", *ends, arrowprops={"arrowstyle": "<->", "color": plots.PALETTE["text"], "linewidth": 1.2})
    middle = (1.08, (ends[0][1] + ends[1][1]) / 2 - 0.9)
    axes.annotate("meta-overfitting", middle, (7, 0), color=plots.PALETTE["text"], weight="bold", **place)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.minorticks_off()
    axes.set(xlim=(0.93, counts[-1] * 1.07), ylim=(-0.3, None))
    plots.label(axes, "number of training tasks M", "query loss after one inner step")
    plots.show(
        figure,
        alt="Query loss after one inner step against the number of training tasks, from 1 to 64. On the training tasks "
        "it rises from nearly zero to about two, on new tasks it falls from far above the floor of three to about two. "
        "The gap between them closes.",
        title="Few training tasks: MAML adapts well to them, and badly to new ones",
        caption="Mean over six networks, each trained for 2,000 outer steps with two tasks a step. Bars: ± 1.96 s/√6, "
        "where s is the standard deviation over the six. Dotted: the floor without adaptation.",
    )


SINE = "A sine curve, ten support points, and the network before and after adaptation."


def adapting_sine(loss: Any, apply: Any, params: Params, learning_rate: float = 0.01) -> Any:
    """A function for `explore`: one task's curve before and after a number of inner steps from `params`."""
    inner, tasks = optax.sgd(learning_rate), ml.tasks.Sinusoid(num_support=10, num_query=10)
    x = jnp.linspace(-5, 5, 201)[:, None]

    @jax.jit
    def curves(amplitude, phase):
        task = tasks.task(jax.random.key(4), amplitude, phase)

        def step(state, _):
            after = ml.inner.step(lambda phi: loss(phi, task.support), inner, state)
            return after, apply(state.params, x)[:, 0]

        return task.support, jax.lax.scan(step, ml.inner.init(inner, params), length=11)[1]

    def draw(amplitude, phase, steps):
        (support_x, support_y), adapted = curves(amplitude, phase)
        return plots.lines(
            x[:, 0],
            {
                "true curve": amplitude * np.sin(x[:, 0] - phase),
                "before": adapted[0],
                f"after {steps} step{'s' * (steps != 1)}": adapted[steps],
            },
            "x",
            "y",
            points={"_support points": (support_x[:, 0], support_y[:, 0])},  # no legend: the text names the circles
            ylim=(-8, 8),
        )

    return draw


def training_time(curvatures: dict[str, Any], losses: dict[str, Any], times: Any) -> None:
    """Shows largest curvature and mean adapted loss against T, a curve for each inner learning rate."""
    figure, axes = plots.subplots(2, height=3.4)
    limit = np.exp(2 * np.asarray(times)) / 20
    plots.lines(
        times,
        {**curvatures, "exp(2T)/20": limit},
        "inner training time T",
        "largest curvature of F",
        title="What T costs, for every α",
        log="xy",
        axes=axes[0],
    )
    plots.lines(
        times,
        losses,
        "inner training time T",
        "mean loss after adaptation",
        title="What T gains, for every α",
        log="x",
        axes=axes[1],
    )
    plots.show(
        figure,
        alt="Two panels against the inner training time from one eighth to eight, with a curve for each of three inner "
        "learning rates. Left: the largest curvature of the meta-objective, which grows exponentially. Right: the mean "
        "loss after adaptation, which falls to zero. In both panels the three curves lie close together.",
        title="The training time T = αK governs curvature and adaptation alike",
        caption="Twenty cosine tasks. Each curve is one inner learning rate α, with K = T/α inner steps. "
        "Dotted: exp(2T)/20, the share of a single task at its top, for many small steps.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: adaptation moves the best initialization, and the meta-gradient knows by how much."""
    theta, before, after = _THETA, _after_one_step(0.0), _after_one_step(0.3)
    points = {
        f"θ = {plots.number(theta[loss.argmin()])}": (theta[loss.argmin()], loss.min()) for loss in (before, after)
    }
    left = diagrams.plot(
        theta, {"before": before, "after": after}, "initialization θ", "", points=points, ylim=(-0.15, 3.2)
    )
    return diagrams.opening(
        left,
        diagrams.backward_pass(),
        ("One inner step moves the best initialization", "Forward: adapt. Backward: one factor a step."),
        (
            "Mean loss of a steep and a flat task, before and after one step.",
            "What the outer loop differentiates, for K = 3.",
        ),
        "Left: the mean loss of two tasks against the initialization. Before adaptation it is lowest near minus 0.6, "
        "after one inner step near 1.8. Right: three inner steps forward, and the backward pass through their factors.",
    )
