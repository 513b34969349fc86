"""The inner loop: K steps of an optax optimizer on the objective of one task.

::

    φ_0 = θ,   φ_{k+1} = φ_k + update(∇ objective(φ_k))

The optimizer also says which parameters adapt, and how fast::

    ANIL (Raghu, Raghu, Bengio & Vinyals 2019, arXiv 1909.09157): only the last layer adapts, the others are learned.
        inner = only(lambda params: params["layers"][2], optax.sgd(0.1))
    Meta-SGD (Li, Zhou, Chen & Li 2017, arXiv 1707.09835): each parameter has its own learning rate, which is learned.
        inner = learned_rates(), with params = with_rates(params, 0.1)
"""

import contextlib
import functools
import inspect
import math
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from metalearn import _require
from metalearn.task import Batch, Loss, Number, Params, Scalar, Task

Objective = Callable[[Params], Scalar]


class InnerState(NamedTuple):
    """Where an inner loop stands.

    Attributes:
      params: φ_k, the parameters after the steps so far.
      opt_state: what the optimizer remembers.

    Example: see `step`.
    """

    params: Params
    opt_state: Any


def init(inner: optax.GradientTransformation, params: Params) -> InnerState:
    """The state before the first inner step, at φ_0 = `params`.

    Args:
      inner: the inner optimizer.
      params: any pytree of floating-point arrays.

    Example: see `step`.
    """
    _require.transformation(inner=inner)
    _require.float_params(params)
    return InnerState(params, initialized(params, inner=inner))


def step(objective: Objective, inner: optax.GradientTransformation, state: InnerState) -> InnerState:
    """One inner step on `objective`, a function params -> scalar.

    An optimizer that takes optax's extra arguments is given `value`, `grad` and `value_fn`, so that
    optax.contrib.reduce_on_plateau and optax.lbfgs work too.

    Args:
      objective: params -> scalar, to be made small.
      inner: the inner optimizer, the one that `state` was made with.
      state: from `init`, or from the step before.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> inner = optax.sgd(0.5)
      >>> state = ml.inner.init(inner, jnp.array(0.0))
      >>> state = ml.inner.step(lambda params: (params - 1.0) ** 2 / 2, inner, state)
      >>> print(state.params)
      0.5
    """
    _require.takes("params", objective=objective)
    _require.transformation(inner=inner)
    if not isinstance(state, InnerState):
        raise TypeError(f"state must be the InnerState that inner.init returns, but it is a {type(state).__name__}.")
    objective = _checked(objective)
    value, gradient = jax.value_and_grad(objective)(state.params)
    updates, opt_state = update(inner, gradient, state.opt_state, state.params, value, objective)
    return InnerState(optax.apply_updates(state.params, updates), opt_state)


def update(
    optimizer: optax.GradientTransformation,
    gradient: Params,
    opt_state: Any,
    params: Params,
    value: Scalar,
    value_fn: Objective,
    name: str = "inner",
) -> tuple[Params, Any]:
    """What `optimizer.update` returns when it is given those of optax's extra arguments that it takes.

    Args:
      optimizer: of the inner or the outer loop.
      gradient: of the objective in params; also the extra argument `grad`.
      opt_state: what the optimizer remembers.
      params: where the gradient was taken.
      value: of the objective at params.
      value_fn: the objective, params -> scalar, which a line search evaluates elsewhere.
      name: of the argument that the optimizer came by.

    Returns:
      (updates, opt_state).

    Raises:
      ValueError: if the optimizer needs something else, if it leaves a gradient as it is, along which the loss rises,
        or if the updates have other shapes than params, for which they would be broadcast in silence.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> inner, params, objective = optax.sgd(0.5), jnp.array(0.0), lambda params: (params - 1.0) ** 2 / 2
      >>> opt_state = ml.inner.init(inner, params).opt_state
      >>> updates, _ = ml.inner.update(inner, jnp.array(-1.0), opt_state, params, objective(params), objective)
      >>> print(updates)
      0.5
    """
    extra = {}
    if isinstance(optimizer, optax.GradientTransformationExtraArgs):
        extra = {"value": value, "grad": gradient, "value_fn": value_fn}
        taken = inspect.signature(optimizer.update).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            extra = {name: argument for name, argument in extra.items() if name in taken}
    with _explained(name):
        updates, opt_state = optimizer.update(gradient, opt_state, params, **extra)
    found, expected = ([list(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)] for tree in (updates, gradient))
    if found != expected:
        raise ValueError(f"{name} must return updates with the shapes of params, {expected}, not {found}.")
    before = jax.tree_util.tree_leaves_with_path(gradient)
    for (path, old), new in zip(before, jax.tree.leaves(updates), strict=True):
        if new is old:
            raise ValueError(
                f"{name} leaves the gradient of params{jax.tree_util.keystr(path)} as it is, so that "
                "params would climb. optax.masked does so where its mask is False. Use inner.only(select, optimizer), "
                "or optax.partition with optax.set_to_zero() elsewhere; where no learning rate is given, add optax.sgd."
            )
    return updates, opt_state


def initialized(params: Params, **optimizer: optax.GradientTransformation) -> Any:
    """What an optimizer remembers before its first step; its keyword is the name that errors give to it.

    Raises:
      ValueError: if the optimizer is not made for such params.
    """
    ((name, transformation),) = optimizer.items()
    with _explained(name):
        return transformation.init(params)


@contextlib.contextmanager
def _explained(name):
    """Says which argument an error of optax is about. Errors of the loss and of this library pass as they are."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # others are the machine's
        modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
        roots = [module.partition(".")[0] for module in modules]
        if [root for root in roots if root not in ("jax", "jaxlib")][-1] != "optax":
            raise
        cause = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{name} is an optimizer that cannot be used here: optax raised {type(error).__name__}, {cause:.200}. "
            "Optimizers are given the gradient, params, value, grad and value_fn, and nothing else. Where one wraps "
            "another and needs more, as optax.contrib.sam in its opaque mode does, take the one within; a mask must "
            "have the structure of params."
        ) from error


def descend(
    objective: Objective, inner: optax.GradientTransformation, num_steps: int, params: Params, remat: bool = False
) -> Params:
    """φ_K, the parameters after `num_steps` inner steps from φ_0 = `params`.

    Differentiable in `params` and in everything that `objective` closes over.

    Args:
      objective: params -> scalar, to be made small.
      inner: the inner optimizer, for instance optax.sgd(0.01). If the loop is differentiated, an adaptive optimizer
        needs `eps_root > 0`, as in optax.adam(1e-2, eps_root=1e-8): without it the derivative of the square root at a
        zero gradient is infinite, and the meta-gradient is NaN. A line search (optax.lbfgs has one by default) cannot
        be differentiated in reverse, as `maml` does; first-order and implicit methods take it.
      num_steps: K >= 0, fixed when the program is compiled.
      params: any pytree of floating-point arrays.
      remat: whether backpropagation through the loop recomputes what it needs, a segment of steps at a time, instead of
        keeping it. That costs one more pass over the steps, and needs memory for about 2 √K copies of the state
        instead of all intermediate values of K steps.

    Returns:
      A pytree like `params`.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> print(ml.inner.descend(lambda params: (params - 1.0) ** 2 / 2, optax.sgd(0.5), 2, jnp.array(0.0)))
      0.75
    """
    _require.count(num_steps=num_steps)
    _require.flag(remat=remat)
    state = init(inner, params)
    return repeat(lambda state, _: step(objective, inner, state), state, None, num_steps, remat).params


def descend_on_batches(
    loss: Loss, inner: optax.GradientTransformation, batches: Batch, params: Params, remat: bool = False
) -> Params:
    """φ_K after one inner step on each batch in turn, φ_{k+1} = φ_k + update(∇ loss(φ_k, batch_k)).

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer, as in `descend`.
      batches: a batch whose arrays have one more leading axis, of length K, which counts the steps.
      params: any pytree of floating-point arrays.
      remat: as in `descend`.

    Returns:
      A pytree like `params`.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> batches = jnp.array([[1.0], [3.0]])  # for each of two steps a batch of one example
      >>> print(ml.inner.descend_on_batches(loss, optax.sgd(0.5), batches, jnp.array(0.0)))
      1.75
    """
    loss = _require.scalar(loss)
    _require.flag(remat=remat)
    num_steps = _require.same_leading_axis("inner steps", batches)

    def one_step(state, batch):
        return step(lambda phi: loss(phi, batch), inner, state)

    return repeat(one_step, init(inner, params), batches, num_steps, remat).params


def repeat(one_step: Callable[[Any, Any], Any], state: Any, batches: Batch, num_steps: int, remat: bool) -> Any:
    """one_step(state, batch) `num_steps` times; with remat as about √K segments of √K steps."""

    def steps(state, batches, length):
        return jax.lax.scan(lambda state, batch: (one_step(state, batch), None), state, batches, length)[0]

    if not remat:
        return steps(state, batches, num_steps)
    one_step = jax.checkpoint(one_step)
    size = _segment(num_steps)
    whole = num_steps - num_steps % size
    segments = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), batches)
    segment = jax.checkpoint(lambda state, batches: steps(state, batches, size))
    state, _ = jax.lax.scan(lambda state, batches: (segment(state, batches), None), state, segments, whole // size)
    if whole == num_steps:
        return state
    return steps(state, jax.tree.map(lambda leaf: leaf[whole:], batches), num_steps - whole)


def _segment(num_steps):
    """About sqrt(K); between half of it and it a number that divides K, if there is one: no second loop is compiled."""
    root = max(1, math.isqrt(num_steps))
    return next((size for size in range(root, root // 2, -1) if num_steps % size == 0), root)


def _checked(objective):
    """The same objective, which says so when its value cannot be descended. Looks at shapes only."""

    def checked(params):
        value = objective(params)
        shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
        if not isinstance(value, float) and (dtype is None or shape != () or not jnp.issubdtype(dtype, jnp.floating)):
            came = type(value).__name__ if dtype is None else f"{dtype} of shape {list(shape)}"
            raise TypeError(f"The inner objective must return a floating-point scalar, but it returned {came}.")
        return value

    return checked


def proximal(objective: Objective, center: Params, strength: Number) -> Objective:
    """The proximal objective, objective(φ) + λ/2 ‖φ - center‖².

    Args:
      objective: params -> scalar.
      center: θ, a pytree like params.
      strength: λ >= 0, in units of curvature (loss / params²); it may be traced. With 0 this is `objective` itself.

    Returns:
      A function params -> scalar.

    Raises:
      ValueError: by the function itself, if its params and `center` differ in structure or shape.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> objective = ml.inner.proximal(lambda params: (params - 1.0) ** 2 / 2, center=jnp.array(0.0), strength=1.0)
      >>> print(ml.inner.descend(objective, optax.sgd(0.5), 10, jnp.array(0.0)))  # half way to the minimum of the loss
      0.5
    """
    _require.takes("params", objective=objective)
    _require.float_params(center)
    _require.not_negative(strength=strength)
    if not isinstance(strength, jax.core.Tracer) and strength == 0:
        return objective

    checked = _checked(objective)

    def proximal_objective(params):
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, center)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"center must have the structure and shapes of params, {shapes[0]}, but has {shapes[1]}.")
        return checked(params) + strength / 2 * optax.tree.norm(optax.tree.sub(params, center), squared=True)

    return proximal_objective


def adapt(
    loss: Loss,
    inner: optax.GradientTransformation,
    params: Params,
    support: Batch,
    num_steps: int,
    proximal_strength: Number = 0.0,
) -> Params:
    """The parameters adapted to the support set of one new task: what you deploy after meta-training.

    ::

        φ_0 = θ,   K inner steps on   h(φ) + λ/2 ‖φ - θ‖²

    Take the inner optimizer, the number of steps and, after `imaml` and `fo_b_maml`, the proximal strength of
    meta-training. The program is compiled once for each loss, optimizer and shape of the arguments. For several tasks
    at once, use jax.vmap over `support`.

    >>> import jax.numpy as jnp, optax
    >>> import metalearn as ml
    >>> loss = ml.losses.mean_squared_error(lambda weight, x: weight * x)
    >>> support = jnp.array([1.0, 2.0]), jnp.array([3.0, 6.0])
    >>> print(ml.adapt(loss, optax.sgd(0.1), jnp.array(0.0), support, num_steps=50))
    3.0

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer, for instance optax.sgd(0.01).
      params: θ, the meta-learned initialization, any pytree of floating-point arrays.
      support: one batch, whose arrays have shape [num_examples, ...].
      num_steps: K >= 0.
      proximal_strength: λ >= 0, in units of curvature (loss / params²).

    Returns:
      φ_K, a pytree like params. A warning tells if it is not finite, except within jax.jit.
    """
    _require.takes("params", "batch", loss=loss)
    _require.transformation(inner=inner)
    _require.hashable(loss=loss, inner=inner)
    _require.float_params(params)
    if isinstance(support, Task):
        raise TypeError("support must be the support batch of one task, task.support, but it is a Task.")
    _require.same_leading_axis("examples", support)
    _require.count(num_steps=num_steps)
    _require.not_negative(proximal_strength=proximal_strength)
    adapted = _adapted(loss, inner, num_steps, params, support, none_if_zero(proximal_strength))
    leaves = jax.tree.leaves(adapted)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves) and not all(map(_all_finite, leaves)):
        warnings.warn("Adaptation ended in infinity or NaN: lower the learning rate of `inner`.", stacklevel=2)
    return adapted


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _adapted(loss, inner, num_steps, params, support, strength):
    loss = _require.scalar(loss)
    return descend(support_objective(loss, params, support, strength), inner, num_steps, params)


def support_objective(loss: Loss, params: Params, support: Batch, strength: Any) -> Objective:
    """What the inner loop of one task descends from `params`; `strength` is λ, or None for no proximal term."""

    def support_loss(phi):
        return loss(phi, support)

    return support_loss if strength is None else proximal(support_loss, params, strength)


def none_if_zero(strength: Number) -> Number | None:
    """None for a λ that is known to be 0, so that no program contains the proximal term in vain."""
    return None if not isinstance(strength, jax.core.Tracer) and strength == 0 else strength


def _all_finite(leaf):
    return bool(jnp.isfinite(leaf).all())


class Part(NamedTuple):
    """Which part of a pytree a function selects.

    Attributes:
      positions: where its arrays stand among the leaves of the whole.
      structure: its own structure, as of jax.tree.structure.
    """

    positions: tuple[int, ...]
    structure: Any

    def get(self, tree: Any) -> Any:
        """The part of a pytree like the whole."""
        leaves = jax.tree.leaves(tree)
        return jax.tree.unflatten(self.structure, [leaves[position] for position in self.positions])

    def set(self, tree: Any, part: Any) -> Any:
        """The whole with another part."""
        leaves, structure = jax.tree.flatten(tree)
        for position, leaf in zip(self.positions, jax.tree.leaves(part), strict=True):
            leaves[position] = leaf
        return jax.tree.unflatten(structure, leaves)


def part_of(params: Params, **select: Callable[[Params], Params]) -> Part:
    """The part of params that a function selects; its keyword is the name that errors give to it.

    Raises:
      TypeError: if it is no function.
      ValueError: if it does not return a part of params.
    """
    ((name, function),) = select.items()
    _require.function(**select)
    leaves, structure = jax.tree.flatten(params)
    marks = [object() for _ in leaves]  # in the place of the arrays, they show which of them are selected
    try:
        selected, part = jax.tree.flatten(function(jax.tree.unflatten(structure, marks)))
    except Exception as error:
        raise ValueError(
            f"{name} must return a part of params and do nothing but select it, but it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    position = {id(mark): i for i, mark in enumerate(marks)}
    positions = tuple(position.get(id(mark), -1) for mark in selected)
    if not positions or -1 in positions or len(set(positions)) < len(positions):
        raise ValueError(
            f"{name} must return a part of params, for instance its last layer, unchanged, not empty and nothing twice."
        )
    return Part(positions, part)


def only(
    select: Callable[[Params], Params], inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` for a part of the parameters; the others stay where they are, as in ANIL.

    ::

        inner = only(lambda params: params["layers"][2], optax.sgd(0.1))

    The optimizer sees nothing but that part: a clipped norm, for instance, is the norm of its gradient.

    Args:
      select: params -> the part that adapts, itself a pytree; it must do nothing but select. The parameters of an
        nnx.Module are indexed by the names of its attributes: `params["layers"][2]` is the last layer of
        models.MLP((1, 40, 40, 1)).
      inner: any optimizer.

    Returns:
      An optax transformation.

    Raises:
      ValueError: by `init`, if `select` does not return a part of params.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> inner = ml.inner.only(lambda params: params["head"], optax.sgd(0.5))
      >>> objective = lambda params: (params["body"] + params["head"] - 1.0) ** 2 / 2
      >>> adapted = ml.inner.descend(objective, inner, 1, {"body": jnp.array(0.0), "head": jnp.array(0.0)})
      >>> print(adapted["body"], adapted["head"])
      0.0 0.5
    """
    _require.function(select=select)
    _require.transformation(inner=inner)

    def init(params):
        return initialized(part_of(params, select=select).get(params), inner=inner)

    def update_part(gradient, state, params=None, *, value=None, value_fn=None, **_):
        part = part_of(gradient, select=select)
        of_part = None if params is None else part.get(params)
        updates, state = update(
            inner, part.get(gradient), state, of_part, value, lambda adapting: value_fn(part.set(params, adapting))
        )
        return part.set(optax.tree.zeros_like(gradient), updates), state

    return optax.GradientTransformationExtraArgs(init, update_part)


def adapting(inner: optax.GradientTransformation, num_steps: int, params: Params) -> Params:
    """Which parameters the optimizer moves: those with an update in `num_steps` steps along one of two gradients.

    The optimizer runs once, while a program is traced, on numbers of its own: only the shapes of params matter. For
    its hyperparameters that are traced, some number above 0 stands in.

    Returns:
      A pytree like params, of boolean numpy arrays.
    """
    probe = _probe(inner, num_steps, params)
    return jax.tree.map(np.logical_or, probe.moved, probe.moved_by_other)


def adapting_to_stationarity(
    method: str, inner: optax.GradientTransformation, num_steps: int, params: Params
) -> Params:
    """`adapting`, for methods that differentiate the point where the gradient of the inner objective is zero.

    Raises:
      ValueError: unless that point is the fixed point of the optimizer, and the only one.
    """
    probe = _probe(inner, num_steps, params)
    for path, moved in jax.tree_util.tree_leaves_with_path(probe.moved_at_zero):
        if moved.any():
            raise ValueError(
                f"{method} differentiates the point where the inner gradient is zero, but there `inner` still moves "
                f"params{jax.tree_util.keystr(path)}, as weight decay, a projection and noise do. Weight decay belongs "
                "into the loss: loss + decay / 2 * optax.tree.norm(params, squared=True). A constraint belongs into "
                "the model, for instance jax.nn.softplus(params) for positive ones."
            )
    along, other = (jax.tree_util.tree_leaves_with_path(moved) for moved in (probe.moved, probe.moved_by_other))
    for (path, one), (_, another) in zip(along, other, strict=True):
        if (one != another).any():
            raise ValueError(
                f"{method} differentiates the point where the inner gradient is zero, but `inner` stops elsewhere too. "
                f"It moves params{jax.tree_util.keystr(path)} along some gradients and not along others, as "
                "optax.centralize does."
            )
    return probe.moved


class _Probe(NamedTuple):
    moved: Params
    moved_by_other: Params
    moved_at_zero: Params


def _probe(inner, num_steps, params):
    """Where the optimizer moves along two constant gradients, and at a zero gradient, in any of `num_steps` steps."""
    _require.transformation(inner=inner)
    _require.count(num_steps=num_steps)
    _require.float_params(params)

    def filled(number):
        return jax.tree.map(lambda leaf: np.full(jnp.shape(leaf), number, jnp.result_type(leaf)), params)

    def uneven(leaf):
        return (1 + np.arange(leaf.size).reshape(leaf.shape) % 3).astype(leaf.dtype)

    def moved(at, gradient, least):
        def one_step(carry, _):
            opt_state, moved = carry
            updates, opt_state = update(
                inner, gradient, opt_state, at, jnp.ones(()), lambda phi: 1 + optax.tree.vdot(gradient, phi)
            )
            # NaN moves params too, but Adam without epsilon gives it where the gradient is zero.
            return (
                opt_state,
                jax.tree.map(
                    lambda before, move, slope: before | (abs(move) > least) | (jnp.isnan(move) & (slope != 0)),
                    moved,
                    updates,
                    gradient,
                ),
            ), None

        nowhere = optax.tree.zeros_like(at, dtype=bool)
        return jax.lax.scan(one_step, (initialized(at, inner=inner), nowhere), length=num_steps)[0][1]

    # A projection shows far out, or at negative numbers: there it moves params without any gradient. What optax.yogi
    # begins with, a mean gradient of 1e-6, is no such move.
    smallest = min(float(jnp.finfo(jnp.result_type(leaf)).max) for leaf in jax.tree.leaves(params))
    far = min(1e6, smallest / 4)
    at = (filled(1), filled(1), filled(far), filled(-far))
    gradients = (filled(-1), jax.tree.map(uneven, filled(1)), filled(0), filled(0))
    stacked = [jax.tree.map(lambda *leaves: np.stack(leaves), *probes) for probes in (at, gradients)]
    probes = (*stacked, np.array([0, 0, 1e-9 * far, 1e-9 * far], np.float32))

    traced, shape = jax.make_jaxpr(lambda: jax.vmap(moved)(*jax.tree.map(jnp.asarray, probes)), return_shape=True)()
    known = [_stand_in(const) if isinstance(const, jax.core.Tracer) else const for const in traced.consts]
    run = jax.jit(jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, known))).lower().compile()  # may run while others are traced
    found = map(np.asarray, run())
    along, other, far_out, below = zip(*found, strict=True)
    moves = (along, other, map(np.logical_or, far_out, below))
    return _Probe(*(jax.tree.unflatten(jax.tree.structure(shape), leaves) for leaves in moves))


def _stand_in(traced):
    return np.full(traced.shape, 0.5 if jnp.issubdtype(traced.dtype, jnp.inexact) else 1, traced.dtype)


class WithRates(NamedTuple):
    """Parameters that carry their own inner learning rates.

    Attributes:
      start: θ, the initialization from which tasks adapt, any pytree.
      rates: α, a pytree like start, in units of params / gradient.

    Example: see `learned_rates`.
    """

    start: Params
    rates: Params


def with_rates(params: Params, rate: Number) -> WithRates:
    """The params of Meta-SGD before meta-training: every inner learning rate is `rate` > 0.

    Example: see `learned_rates`.
    """
    _require.float_params(params)
    _require.positive(rate=rate)
    return WithRates(params, optax.tree.full_like(params, rate))


def learned_rates() -> optax.GradientTransformation:
    """Meta-SGD: φ_{k+1} = φ_k - α ∘ ∇h(φ_k), where the learning rates α are learned together with θ.

    ::

        params = with_rates(params, 0.1)
        meta_gradient = maml(lambda p, batch: loss(p.start, batch), learned_rates(), num_steps)

    As in the paper a learning rate may become negative. Learning them takes a derivative of the steps, as in `maml` and
    `hf_maml`. For the other methods their gradient is zero: `fo_maml` ignores the steps, and where the inner loop of
    `imaml` and `fo_b_maml` converges to does not depend on its learning rates.

    Raises:
      TypeError: by `update`, if params is no WithRates.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params.start - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> params = ml.inner.with_rates(jnp.array(0.0), 0.5)
      >>> _, gradient = ml.maml(loss, ml.inner.learned_rates(), num_steps=1)(params, task)
      >>> print(gradient.start, gradient.rates)
      -1.25 -2.5
    """

    def update(gradient, params):
        if not isinstance(params, WithRates):
            raise TypeError(
                "learned_rates() needs params that carry their learning rates, inner.with_rates(params, 0.1), "
                f"but params is a {type(params).__name__}."
            )
        return WithRates(
            jax.tree.map(lambda rate, leaf: -rate * leaf, params.rates, gradient.start),
            optax.tree.zeros_like(gradient.rates),
        )

    return optax.stateless(update)
