"""Adaptation in function space: the outputs after training on a support set, without any step on the parameters.

::

    u(x) = u_θ(x) + k(x, X) c,     (k(X, X) + r I) c = Y - u_θ(X)              X, Y: support set, r: ridge

Here u_θ is the model. That is the u with the least 1/2 ‖u(X) - Y‖² + r/2 ‖u - u_θ‖², where the last norm is the
kernel's. The tangent kernel of a model is k(x, x') = ⟨∇_θ u_θ(x), ∇_θ u_θ(x')⟩. With it, and for a model that is linear
in its parameters, u is what the parameters φ with the least 1/2 ‖u_φ(X) - Y‖² + r/2 ‖φ - θ‖² give.
"""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from metalearn import _require
from metalearn.losses import Apply, mean_squared_error
from metalearn.task import Batch, Number, Params, Scalar, Task

Kernel = Callable[[Params, Batch, Batch], Float[Array, "rows columns"]]
"""(params, inputs a, inputs b) -> matrix of k(a, b), of shape [len(a), len(b)], the same for each output of the model;
or with one row and column for each output of each example, [len(a) num_outputs, len(b) num_outputs]."""

Predictor = Callable[[Params, Batch, Batch], Float[Array, "num_examples ..."]]
"""(params, support, inputs) -> outputs of the adapted model."""


def tangent(apply: Apply) -> Kernel:
    """The tangent kernel of a model, J(a) J(b)ᵀ with J = ∂ outputs / ∂ params, one row for each output.

    Cost: one gradient for each output of each example. The kernel is one of functions of one example, so that `apply`
    is differentiated for each by itself: no model that normalizes over its batch has one.

    Args:
      apply: (params, inputs) -> outputs, shape [num_examples, ...].

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> kernel = ml.kernel.tangent(lambda weight, x: weight * x)
      >>> x = jnp.array([1.0, 2.0])
      >>> print(kernel(jnp.array(0.0), x, x))
      [[1. 2.]
       [2. 4.]]
    """
    _require.takes("params", "inputs", apply=apply)

    def outputs(params, example):
        inputs = jax.tree.map(lambda leaf: leaf[None], example)
        output = _require.returned_floats("apply", apply(params, inputs))
        if output.shape[:1] != (1,):
            raise ValueError(
                f"apply must return one row for each example, but for one it returned {list(output.shape)}."
            )
        return output.ravel()

    def jacobian(params, inputs):
        jacobians = jax.vmap(jax.jacrev(outputs), in_axes=(None, 0))(params, inputs)
        return [
            _at_least_float32(leaf.reshape(leaf.shape[0] * leaf.shape[1], -1)) for leaf in jax.tree.leaves(jacobians)
        ]

    def kernel(params, a, b):
        _require.float_params(params)
        for inputs in (a, b):
            _require.same_leading_axis("examples", inputs)
        blocks = zip(jacobian(params, a), jacobian(params, b), strict=True)
        return sum(jnp.matmul(left, right.T, precision="highest") for left, right in blocks)

    return kernel


def gaussian(length_scale: Number, features: Apply | None = None) -> Kernel:
    """The kernel exp(-‖z(a) - z(b)‖² / (2 s²)).

    Args:
      length_scale: s > 0, in units of z; it may be traced.
      features: z, (params, inputs) -> array of shape [num_examples, ...]; by default the inputs themselves.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> kernel = ml.kernel.gaussian(length_scale=1.0)
      >>> [round(number, 2) for number in kernel(None, jnp.array([0.0]), jnp.array([0.0, 1.0, 2.0]))[0].tolist()]
      [1.0, 0.61, 0.14]
    """
    _require.positive(length_scale=length_scale)
    if features is not None:
        _require.takes("params", "inputs", features=features)

    def kernel(params, a, b):
        left, right = (
            _require.returned_floats("features", x if features is None else features(params, x)) for x in (a, b)
        )
        if left.ndim == 0 or left.shape[1:] != right.shape[1:]:
            raise ValueError(
                "features, or without them the inputs, must have shape [num_examples, ...], the same but for the first "
                f"axis, but they have {list(left.shape)} and {list(right.shape)}."
            )
        left, right = (_at_least_float32(z).reshape(len(z), -1) for z in (left, right))
        return jnp.exp(-jnp.sum((left[:, None] - right) ** 2, axis=-1) / (2 * length_scale**2))

    return kernel


def regression(apply: Apply, kernel: Kernel, ridge: Number, num_steps: int = 1) -> Predictor:
    """The predictor u(x) of the equation above; or that `num_steps` times, each from the u that the last one found.

    Args:
      apply: the model u, (params, inputs) -> outputs, shape [num_examples, ...].
      kernel: the kernel k of that equation.
      ridge: r >= 0, in units of k; it may be traced. With 0, u goes through the support set; where k(X, X) is
        then singular up to rounding, as it is when an input comes twice, the outputs are NaN.
      num_steps: how often, >= 1.

    Returns:
      A Predictor; its support is (inputs, targets), and targets have the shape of outputs.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> model = lambda weight, x: weight * x
      >>> predict = ml.kernel.regression(model, ml.kernel.tangent(model), ridge=1.0)
      >>> support = jnp.array([1.0]), jnp.array([1.0])  # from weight 0 half way to 1, at the price of the ridge
      >>> [round(number, 2) for number in predict(jnp.array(0.0), support, jnp.array([1.0, 2.0])).tolist()]
      [0.5, 1.0]
    """
    _require.function(apply=apply, kernel=kernel)
    _require.not_negative(ridge=ridge)
    _require.count(at_least=1, num_steps=num_steps)
    _require.takes("params", "inputs", apply=apply)
    _require.takes("params", "a", "b", kernel=kernel)

    def predict(params, support, inputs):
        known, targets = _require.pair(support)
        _require.array(targets=targets)
        num_known = _require.same_leading_axis("examples", support)
        _require.same_leading_axis("examples", inputs)
        everything = _joined(known, inputs)
        outputs = _require.returned_floats("apply", apply(params, everything))
        if num_known == 0:
            raise ValueError("support must hold at least one example, but its leading axis is 0.")
        if jnp.iscomplexobj(targets):
            raise TypeError(f"targets must be real numbers, but they are {jnp.result_type(targets)}.")
        if outputs.ndim == 0 or len(outputs) != len(jax.tree.leaves(everything)[0]):
            raise ValueError(f"apply must return one row for each example, but it returned {list(outputs.shape)}.")
        if jnp.shape(targets) != outputs[:num_known].shape:
            raise ValueError(
                f"predictions have shape {outputs[:num_known].shape} but targets {jnp.shape(targets)}: give both one "
                "shape."
            )
        gram = _require.returned_floats("kernel", kernel(params, everything, known))
        rows = gram.shape[1] if gram.ndim == 2 else -1
        if gram.ndim != 2 or gram.shape[0] * num_known != rows * len(outputs) or rows not in (num_known, targets.size):
            raise ValueError(
                "kernel must return a matrix with one row and column for each example, or for each output, "
                f"but for {len(outputs)} and {num_known} examples it returned shape {list(gram.shape)}."
            )
        residual = _at_least_float32(targets - outputs[:num_known]).reshape(rows, -1)
        solve = positive_solver(gram[:rows] + ridge * jnp.eye(rows, dtype=gram.dtype))

        def step(residual, _):
            coefficients = solve(residual)
            return ridge * coefficients, coefficients  # what is left to explain: (I - k (k + r I)⁻¹) residual

        _, coefficients = jax.lax.scan(step, residual, length=num_steps)
        change = jnp.matmul(gram[rows:], coefficients.sum(axis=0), precision="highest")
        return outputs[num_known:] + change.reshape(outputs[num_known:].shape).astype(outputs.dtype)

    return predict


def _joined(known, inputs):
    """The inputs of the support set, and after them the others."""
    first, second = (
        (jax.tree.structure(tree), [leaf.shape[1:] for leaf in jax.tree.leaves(tree)]) for tree in (known, inputs)
    )
    if first != second:
        raise ValueError(
            "The inputs of the support set and those to predict must have one structure, and examples of one shape, "
            f"but they have {first[1]} and {second[1]}."
        )
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), known, inputs)


def query_loss(predict: Predictor) -> Callable[[Params, Task], Scalar]:
    """(params, task) -> mean squared error of the adapted model on the query set.

    Args:
      predict: a Predictor, such as `regression` returns.

    Example: see `query_losses`.
    """
    _require.takes("params", "support", "inputs", predict=predict)

    def loss(params, task):
        def outputs(params, inputs):
            return _require.returned_floats("predict", predict(params, task.support, inputs))

        adapted = mean_squared_error(outputs)
        return adapted(params, task.query)

    return _require.params_and_task(loss)


def query_losses(predict: Predictor, params: Params, tasks: Task) -> Float[Array, " num_tasks"]:
    """Meta-test: mean squared error of the adapted model on the query set of each task.

    Args:
      predict: a Predictor.
      params: the meta-learned ones.
      tasks: a batch of tasks.

    Returns:
      An array of shape [num_tasks], for instance for `evaluate.score`. A warning tells if the kernel of some was
      singular.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> model = lambda weight, x: weight * x
      >>> predict = ml.kernel.regression(model, ml.kernel.tangent(model), ridge=1.0)
      >>> support, query = (jnp.array([[1.0]]), jnp.array([[1.0]])), (jnp.array([[2.0]]), jnp.array([[3.0]]))
      >>> losses = ml.kernel.query_losses(predict, jnp.array(0.0), ml.Task(support, query))  # of one task
      >>> [round(number, 2) for number in losses.tolist()]
      [4.0]
    """
    _require.takes("params", "support", "inputs", predict=predict)
    _require.float_params(params)
    num_tasks = _require.task_batch(tasks)
    losses = _compiled_losses(predict, params, tasks)
    num_failed = num_tasks - int(jnp.isfinite(losses).sum())
    if num_failed:
        warnings.warn(
            f"{num_failed} of {num_tasks} tasks ended in infinity or NaN. If params are finite, the kernel of the "
            "support set is singular up to rounding (an input that comes twice?): lower `time` or raise `ridge`.",
            stacklevel=2,
        )
    return losses


@functools.partial(jax.jit, static_argnums=0)
def _compiled_losses(predict, params, tasks):
    return jax.vmap(query_loss(predict), in_axes=(None, 0))(params, tasks)


def positive_solver(matrix: Float[Array, "n n"]) -> Callable[[Float[Array, "n ..."]], Float[Array, "n ..."]]:
    """right -> matrix⁻¹ right, for a symmetric positive definite matrix; by Cholesky's method.

    Meant for the size of a support set. Differentiable: the derivative of a solution is another solution.

    Args:
      matrix: shape [n, n]. If it is not positive definite, as when two rows are equal, solutions are NaN: where a pivot
        is no larger than its own rounding. A matrix that is singular in a less plain way can slip through.

    Returns:
      A function of right sides of shape [n] or [n, m].
    """
    _require.array(matrix=matrix)
    if not jnp.issubdtype(jnp.result_type(matrix), jnp.floating):
        raise TypeError(f"matrix must hold floating-point numbers, but they are {jnp.result_type(matrix)}.")
    if jnp.ndim(matrix) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must have shape [n, n], but it has {list(jnp.shape(matrix))}.")
    fixed = jax.lax.stop_gradient(matrix)
    lower = _on_any_platform(jnp.linalg.cholesky)(fixed)
    rounding = len(matrix) * jnp.finfo(matrix.dtype).eps
    is_positive = jnp.all(jnp.diag(lower) ** 2 > rounding * jnp.diag(fixed))
    lower = jnp.where(is_positive, lower, jnp.nan)

    def solve(_, right):
        return _on_any_platform(lambda lower, right: cho_solve((lower, True), right))(lower, right)

    def times(vector):
        return jnp.matmul(matrix, vector, precision="highest")

    return lambda right: jax.lax.custom_linear_solve(times, right, solve, symmetric=True)


def _on_any_platform(decomposition: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The same function, which on a CPU takes the matrices of a batch one after another.

    On a CPU, jaxlib 0.10 shares the matrices of a batch among the threads of XLA's pool, and the thread that does so
    waits for the others. It is one of the pool itself: once as many such calls run side by side as there are threads,
    all of them wait, and the program hangs forever. Two threads and the gradient of a vmapped `cho_solve` are enough.
    A call with a single matrix does its own work.

    The same fault in the Fourier transform: https://github.com/PyAutoLabs/PyAutoFit/issues/1530. Other faults of
    batched calls in the same pool: https://github.com/jax-ml/jax/issues/39292 (a crash) and
    https://github.com/jax-ml/jax/issues/36927 (slower by a factor of two to three).
    """
    one_by_one = jax.custom_batching.sequential_vmap(decomposition)
    return lambda *operands: jax.lax.platform_dependent(*operands, cpu=one_by_one, default=decomposition)


def _at_least_float32(array):
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
