"""USA and UFGSM against vanilla adaptation over two decades of base steps, on letters of scripts never trained on.

Pictures are 14 x 14. With 28 x 28 the first layer holds nearly all parameters, USA slows the others down, and what
is gained at large base steps is lost at small ones.
"""

import jax
import jax.numpy as jnp
import optax
from claim import Claim
from flax import nnx

import metalearn as ml

BASE_STEPS = jnp.logspace(-2, 0, 5)
NUM_STEPS, SIZE = 10, 14
train_tasks = ml.tasks.Glyphs(size=SIZE)
test_tasks = ml.tasks.Glyphs(size=SIZE, scripts=ml.tasks.glyphs.TEST_SCRIPTS)


def measure():
    """Accuracy of one MAML checkpoint (trained with the base step 0.1), 5-way 1-shot."""
    params, apply = ml.models.functional(ml.models.MLP((SIZE**2, 64, 64, 5), rngs=nnx.Rngs(0)))

    def classify(params, images):
        return apply(params, images.reshape(len(images), -1))

    loss, accuracy = ml.losses.cross_entropy(classify), ml.losses.accuracy(classify)
    learner = ml.meta_learner(ml.maml(loss, optax.sgd(0.1), 5), optax.adam(1e-3))
    params = ml.fit(learner, params, train_tasks, 600, 4, jax.random.key(0), progress=False).params
    tasks = test_tasks(jax.random.key(1), 50)

    def vanilla(step):
        return ml.evaluate.adaptation_curve(loss, optax.sgd(step), params, tasks, NUM_STEPS, accuracy)

    def repurposed(step):
        return ml.repurpose.adaptation_curve(
            loss, optax.sgd(step), params, tasks, NUM_STEPS, jax.random.key(2), attack_size=0.05, metric=accuracy
        )

    figures = {}
    for name, curve in (("vanilla", vanilla), ("repurposed", repurposed)):
        scores = jax.jit(lambda steps, curve=curve: jax.lax.map(lambda step: curve(step)[-1].mean(), steps))(BASE_STEPS)
        figures |= {f"{name}_mean": float(scores.mean()), f"{name}_best": float(scores.max())}
    return figures


CLAIM = Claim(
    order=8,
    lessons=("13",),
    tests=("test_repurpose",),
    title="RePurpose",
    system="`repurpose.adaptation_curve`",
    paper="Kwon, Na, Huang & Lacoste-Julien, ICLR 2021, [2103.09027](https://arxiv.org/abs/2103.09027)",
    exact="the authors' procedure, except that loss terms are averaged and not added",
    finding=(
        "The claim that adaptation out of domain becomes robust to the base learning rate hardly reproduces here. "
        "On scripts that training has not seen, the mean accuracy over base learning rates from 0.01 to 1 is "
        "{vanilla_mean:.2f} for plain adaptation and {repurposed_mean:.2f} with the paper's step sizes and "
        "adversarial examples. At the best learning rate it is {vanilla_best:.2f} and {repurposed_best:.2f}. This "
        "is one of several settings that were tried; in others the gain was at other learning rates, or negative "
        "at some."
    ),
    measure=measure,
    holds=lambda figures: (
        -0.01 < figures["repurposed_mean"] - figures["vanilla_mean"] < 0.06
        and -0.01 < figures["repurposed_best"] - figures["vanilla_best"] < 0.06
    ),
)
