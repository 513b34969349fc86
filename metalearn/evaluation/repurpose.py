"""Adapting a checkpoint to tasks unlike its own.  (Kwon, Na, Huang & Lacoste-Julien 2021, arXiv 2103.09027)

Only an initialization θ and the support set (x, y) of a new task are at hand. E members, each a small perturbation of
θ, adapt. Where they disagree tells how large a learning rate each layer may have, and their adversarial examples become
training data.

::

    members      φ^e_0 = θ ∘ (1 + spread N(0, 1))                        element by element, e = 1 ... E
    FGSM         x + ε sign(∇_x h(φ; x, y))                              h: support loss
    UFGSM        x + ε d ∘ sign(∇_x h(θ; x, y)),                         d = std_e ∇_x h(φ^e; x, y),
                                                                         scaled to 0 ... 1 within each example
    USA          s_l = max u + min u - u_l,                              u_l = mean of std_e φ^e_l, l: layer
                 learning rate of layer l = α s_l / (mean of s over all parameters)

A member descends the mean of its losses on (x, y) and on its FGSM examples, from its second step on with the learning
rates of USA. Then θ adapts with the last learning rates of USA. It descends the mean of its losses on (x, y), on its
own FGSM examples, and on all FGSM and UFGSM examples that the members met. The authors' code adds these losses; here
they are averaged, so that a learning rate α means the same as without them.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metalearn import _require
from metalearn._cost import costs_in_words
from metalearn.adaptation import inner as inner_loop
from metalearn.evaluation import meta_test as evaluate
from metalearn.task import Batch, Loss, Number, Params, Task

_TASKS_AT_ONCE = 25
"""Tasks adapted side by side; more come in turn, so that memory stays bounded."""


@costs_in_words(
    "A task costs about (3 E + 4) K + (E + 1) K² gradients on a set as large as the support set, where plain "
    "adaptation costs K, and the memory of (E + 1) K adversarial copies of that set, E being the number of members."
)
def adaptation_curve(
    loss: Loss,
    inner: optax.GradientTransformation,
    params: Params,
    tasks: Task,
    num_steps: int,
    key: PRNGKeyArray,
    attack_size: Number,
    num_members: int = 5,
    spread: Number = 0.05,
    metric: Loss | None = None,
) -> Float[Array, "{num_steps}+1 num_tasks"]:
    """Query loss before adaptation and after each inner step, for each task: `evaluate.adaptation_curve` with all this.

    With `spread=0` the learning rates are those of `inner` and only the adversarial examples are new; with
    `attack_size=0` only the learning rates are. With both 0 this is `evaluate.adaptation_curve`.

    Args:
      loss: scalar of (params, (inputs, targets)); the inner loop descends it on the support set, and it is reported
        on the query set.
      inner: the inner optimizer with learning rate α, for instance optax.sgd(0.01). Its update of each layer is scaled.
      params: θ, the checkpoint, which is the initialization of every task.
      tasks: a batch of tasks whose batches are pairs (inputs, targets), inputs of a floating-point type.
      num_steps: K >= 0 inner steps, of the members and of θ.
      key: a jax.random.key for the members.
      attack_size: ε >= 0, by which each number of the inputs is moved, in their units; small against their spread.
      num_members: E >= 2.
      spread: relative standard deviation of the members' parameters, at least 0 and below 1.
      metric: scalar of (params, batch), measured on each query set, for instance losses.accuracy(apply); by default
        the loss.

    Returns:
      An array of shape [num_steps + 1, num_tasks], with NaN as in `evaluate.adaptation_curve`;
      evaluate.score(curve[-1]) says how sure it is. A warning tells if some tasks diverged.

    Example:
      >>> import jax, jax.numpy as jnp, metalearn as ml, optax
      >>> tasks = ml.tasks.Sinusoid(num_support=5, num_query=10)(jax.random.key(0), 8)
      >>> loss, key = ml.losses.mean_squared_error(lambda weight, x: weight * x), jax.random.key(1)
      >>> ml.repurpose.adaptation_curve(loss, optax.sgd(0.01), jnp.array(1.0), tasks, 3, key, attack_size=0.1).shape
      (4, 8)
    """
    metric = loss if metric is None else metric
    _require.takes("params", "batch", loss=loss, metric=metric)
    _require.transformation(inner=inner)
    _require.hashable(loss=loss, metric=metric, inner=inner)
    _require.count(num_steps=num_steps)
    _require.count(at_least=2, num_members=num_members)
    _require.not_negative(attack_size=attack_size)
    _require.fraction(spread=spread)
    _require.random_key(key=key)
    _require.float_params(params)
    _require.task_batch(tasks)
    evaluate.require_examples(tasks)
    _require_pair("tasks.support", tasks.support)
    curve = _compiled_curve(loss, metric, inner, num_steps, num_members, params, tasks, key, attack_size, spread)
    evaluate.warn_of_failures(curve)
    return curve


def fgsm(loss: Loss, params: Params, batch: Batch, attack_size: Number) -> Batch:
    """The batch (inputs, targets) with each number of its inputs moved by `attack_size`, the way the loss rises.

    Args:
      loss: scalar of (params, (inputs, targets)).
      params: whose loss is to rise.
      batch: (inputs, targets), inputs of a floating-point type.
      attack_size: ε >= 0, in units of the inputs.

    Returns:
      A batch like `batch`.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = ml.losses.mean_squared_error(lambda weight, x: weight * x)
      >>> batch = jnp.array([1.0, 2.0]), jnp.array([0.0, 6.0])  # the model gives 2 and 4
      >>> print(ml.repurpose.fgsm(loss, jnp.array(2.0), batch, attack_size=0.5)[0])
      [1.5 1.5]
    """
    loss = _checked(loss, params, batch, attack_size)
    inputs, targets = batch
    return inputs + attack_size * jnp.sign(_input_gradient(loss, params, batch)), targets


def ufgsm(loss: Loss, params: Params, members: Params, batch: Batch, attack_size: Number) -> Batch:
    """FGSM that moves each number the less, the better the members agree on its gradient.

    Args:
      loss: scalar of (params, (inputs, targets)).
      params: whose loss is to rise.
      members: params with one more leading axis, which counts the members.
      batch: (inputs, targets).
      attack_size: the distance where they agree least; it is zero where they agree best, in each example.

    Returns:
      A batch like `batch`.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = ml.losses.mean_squared_error(lambda weights, x: x @ weights)
      >>> batch, members = (jnp.array([[1.0, 2.0]]), jnp.array([0.0])), jnp.array([[1.0, 1.0], [1.0, 3.0]])
      >>> print(ml.repurpose.ufgsm(loss, jnp.array([1.0, 2.0]), members, batch, attack_size=0.5)[0])
      [[1.  2.5]]
    """
    loss = _checked(loss, params, batch, attack_size)
    _require_members(members)
    inputs, targets = batch
    doubt = _disagreement(jax.vmap(_input_gradient, in_axes=(None, 0, None))(loss, members, batch))
    within_example = tuple(range(1, doubt.ndim))
    low, high = (extreme(doubt, axis=within_example, keepdims=True) for extreme in (jnp.min, jnp.max))
    doubt = (doubt - low) / jnp.where(high > low, high - low, 1)
    return inputs + attack_size * doubt * jnp.sign(_input_gradient(loss, params, batch)), targets


def relative_step_sizes(members: Params) -> Params:
    """USA: the factor of the learning rate in each layer, larger where the members agree better.

    A layer is one array of params, a kernel and its bias being two, as in the authors' code. Where no members disagree
    at all, every factor is 1.

    Args:
      members: params with one more leading axis, which counts the members.

    Returns:
      A scalar for each array of params, in a pytree like params. Their mean, each counted as often as its array has
      elements, is 1.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> members = {"body": jnp.array([1.0, 3.0]), "head": jnp.array([2.0, 2.0])}  # two, which agree on the head
      >>> factors = ml.repurpose.relative_step_sizes(members)
      >>> print(factors["body"], factors["head"])
      0.0 2.0
    """
    _require_members(members)
    leaves, structure = jax.tree.flatten(members)
    disagreement = jnp.stack([_disagreement(leaf).mean() for leaf in leaves])
    sizes = disagreement.max() + disagreement.min() - disagreement
    mean = jnp.average(sizes, weights=jnp.array([leaf[0].size for leaf in leaves]))
    factors = jnp.where(mean > 0, sizes / mean, 1)
    return jax.tree.unflatten(
        structure, [factor.astype(leaf.dtype) for factor, leaf in zip(factors, leaves, strict=True)]
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _compiled_curve(loss, metric, inner, num_steps, num_members, params, tasks, key, attack_size, spread):
    loss, metric = _require.scalar(loss), _require.metric(metric)

    def one_task(task_and_key):
        task, key = task_and_key
        members = jax.vmap(lambda key: _neighbour(params, key, spread))(jax.random.split(key, num_members))
        factors, met = _adapt_members(loss, inner, params, members, task.support, num_steps, attack_size, spread)
        layerwise = _layerwise(inner, factors)

        def step(state, _):
            batches = (task.support, fgsm(loss, state.params, task.support, attack_size), met)
            state = inner_loop.step(lambda phi: _mean_loss(loss, phi, batches), layerwise, state)
            return state, evaluate.finite_metric(loss, metric, state.params, task.query)

        _, values = jax.lax.scan(step, inner_loop.init(layerwise, params), length=num_steps)
        return jnp.concatenate([evaluate.finite_metric(loss, metric, params, task.query)[None], values])

    keys = jax.random.split(key, len(jax.tree.leaves(tasks)[0]))
    return jax.lax.map(one_task, (tasks, keys), batch_size=_TASKS_AT_ONCE).T


def _neighbour(params, key, spread):
    """The initialization of a member, params ∘ (1 + spread N(0, 1))."""
    return jax.tree.map(lambda leaf, noise: leaf * (1 + spread * noise), params, optax.tree.random_like(key, params))


def _adapt_members(loss, inner, params, members, support, num_steps, attack_size, spread):
    """What the members leave behind: their last factors of learning rates, and a batch of all that attacked them."""
    differ = spread > 0  # equal members still disagree by rounding, which USA and UFGSM would magnify

    def step(carry, _):
        states, factors = carry
        attacks = jax.vmap(lambda phi: fgsm(loss, phi, support, attack_size))(states.params)
        uncertain = ufgsm(loss, params, states.params, support, jnp.where(differ, attack_size, 0))

        def one_member(state, attack):
            return inner_loop.step(
                lambda phi: _mean_loss(loss, phi, (support, attack)), _layerwise(inner, factors), state
            )

        states = jax.vmap(one_member)(states, attacks)
        met = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), attacks, uncertain)
        factors = optax.tree.where(differ, relative_step_sizes(states.params), even)
        return (states, factors), met

    even = jax.tree.map(lambda leaf: jnp.ones((), leaf.dtype), params)
    states = jax.vmap(lambda phi: inner_loop.init(_layerwise(inner, even), phi))(members)
    (_, factors), met = jax.lax.scan(step, (states, even), length=num_steps)
    return factors, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), met)  # [step, member, example, ...]


def _layerwise(inner, factors):
    """That optimizer, with each layer's update times its factor."""
    return optax.chain(inner, optax.stateless(lambda updates, _: optax.tree.mul(updates, factors)))


def _mean_loss(loss, params, batches):
    return sum(loss(params, batch) for batch in batches) / len(batches)


def _input_gradient(loss, params, batch):
    inputs, targets = batch
    return jax.grad(lambda inputs: loss(params, (inputs, targets)))(inputs)


def _disagreement(members):
    """Standard deviation over the leading axis; without the shift, rounding would make equal members disagree."""
    return jnp.std(members - members[0], axis=0)


def _require_pair(name, batch):
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise TypeError(f"{name} must be a pair (inputs, targets), but it is a {type(batch).__name__}.")
    dtype = getattr(batch[0], "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        came = type(batch[0]).__name__ if dtype is None else dtype
        raise TypeError(
            f"The inputs of {name} must be one array of floating-point numbers, for FGSM moves them; they are {came}."
        )


def _checked(loss, params, batch, attack_size):
    _require.float_params(params)
    _require_pair("batch", batch)
    _require.not_negative(attack_size=attack_size)
    return _require.scalar(loss)


def _require_members(members):
    _require.float_params(members)
    num_members = _require.same_leading_axis("members", members)
    if num_members < 2:
        raise ValueError(f"members must hold at least 2 members, along the leading axis, but it holds {num_members}.")
