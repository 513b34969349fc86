"""Park & Kang 2024, as far as its abstract goes: weights for the tasks of the outer loop, where some are outliers."""

import jax
import jax.numpy as jnp
import optax
from claim import Claim

import metalearn as ml
from metalearn import task_weights

OUTLIERS, FAR = 0.2, 10.0
WEIGHTS = {
    "uniform": None,
    "inverse": task_weights.inverse_loss(0.1),
    "agreement": task_weights.gradient_agreement(0.25),
    "softmax": task_weights.loss_softmax(1.0),
}
family = ml.tasks.Quadratic(dim=3)


def sample(key):
    """10 parabolas around 0, of curvature 1; every fifth, on average, has its minimum 10 further in each coordinate."""
    spread, which = jax.random.split(key)
    outlier = jax.random.bernoulli(which, OUTLIERS, (10, 1))
    batch = ml.tasks.QuadraticBatch(
        jnp.tile(jnp.eye(3), (10, 1, 1)), jax.random.normal(spread, (10, 3)) + FAR * outlier
    )
    return ml.Task(batch, batch)


def measure():
    """Distance from 0 to where 300 outer steps end, averaged over 32 runs; the tasks are the same for all weights."""

    def distance(weights):
        learner = ml.meta_learner(ml.maml(family.loss, optax.sgd(0.1), 1), optax.sgd(0.1), weights)

        def run(batches):
            end, _ = jax.lax.scan(learner.step, learner.init(jnp.zeros(3)), batches)
            return jnp.linalg.norm(end.params)

        return float(jax.jit(jax.vmap(run))(batches).mean())

    with jax.enable_x64(True):
        keys = jax.vmap(lambda key: jax.random.split(key, 300))(jax.random.split(jax.random.key(1), 32))
        batches = jax.jit(jax.vmap(jax.vmap(sample)))(keys)
        return {name: distance(weights) for name, weights in WEIGHTS.items()}


CLAIM = Claim(
    order=10,
    lessons=("11",),
    tests=("test_kernel_adaptation", "test_task_weights"),
    title="Kernel adaptation and task weights",
    system="`kernel_adaptation`, `task_weights`",
    paper="Park & Kang 2024, [2411.00404](https://arxiv.org/abs/2411.00404)",
    exact="kernel regression in closed form, which for the tangent kernel of a linear model is iMAML",
    finding=(
        "This is a reconstruction from the abstract; the paper's own kernel, weights and experiments were not "
        "available. In a population with 20 % outlier tasks, outer training with equal weights ends at a distance "
        "of {uniform:.2g} from the centre of the other tasks. Weights that are inverse to the loss bring it to "
        "{inverse:.2g}, and weights by agreement of gradients to {agreement:.2g}. Giving hard tasks more weight "
        "makes it worse, {softmax:.2g}."
    ),
    measure=measure,
    holds=lambda f: 10 * f["inverse"] < f["uniform"] and 2 * f["agreement"] < f["uniform"] < f["softmax"] / 1.5,
)
