"""A convolutional network on arrays of one's own, meta-trained by FO-B-MAML."""

import jax
import numpy as np
import optax
from flax import nnx

import metalearn as ml


def my_data(num_classes=40, per_class=30):
    """Noisy pictures [n, 14, 14, 1] and their classes [n]: return your own arrays here."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), per_class)
    patterns = np.kron(rng.normal(size=(num_classes, 4, 4, 1)), np.ones((1, 4, 4, 1)))[:, :14, :14]
    noise = rng.normal(size=(len(labels), 14, 14, 1))
    return (patterns[labels] + 2 * noise).astype(np.float32), labels


def block(channels, features, rngs):
    """A convolution, as patches for speed on a CPU, and pooling to half the height and width."""
    patches = ml.models.patch_convolution
    yield nnx.Conv(channels, features, (3, 3), conv_general_dilated=patches, rngs=rngs)
    yield from (nnx.GroupNorm(features, num_groups=2, rngs=rngs), nnx.relu)
    yield lambda x: nnx.avg_pool(x, (2, 2), strides=(2, 2))


pictures, labels = my_data()
known = labels < 30  # the other ten classes are for the meta-test alone
seen = ml.tasks.Episodes(pictures[known], labels[known], 5, num_support=5, num_query=5)  # 5-way
unseen = ml.tasks.Episodes(pictures[~known], labels[~known], 5, num_support=5, num_query=5)

rngs = nnx.Rngs(0)
head = (lambda x: x.reshape(len(x), 3 * 3 * 8), nnx.Linear(3 * 3 * 8, 5, rngs=rngs))
params, apply = ml.models.functional(nnx.Sequential(*block(1, 8, rngs), *block(8, 8, rngs), *head))
loss, inner = ml.losses.cross_entropy(apply), optax.sgd(0.4)
meta_gradient = ml.fo_b_maml(loss, inner, num_steps=5, proximal_strength=1.0, perturbation=0.1)
learner = ml.meta_learner(meta_gradient, ml.outer.clipped_sgd(0.3, max_norm=1.0))
theta = ml.fit(learner, params, seen, 100, meta_batch_size=4, key=jax.random.key(0)).params

# Adapt as in meta-training, with the same proximal strength.
tasks, accuracy = unseen(jax.random.key(1), 100), ml.losses.accuracy(apply)
score = ml.evaluate.meta_test(loss, inner, theta, tasks, 5, accuracy, proximal_strength=1.0)
print("accuracy", score)

task = jax.tree.map(lambda x: x[0], tasks)
adapted = ml.adapt(loss, inner, theta, task.support, 5, proximal_strength=1.0)
print("predicted", apply(adapted, task.query[0]).argmax(-1), "truly", task.query[1])
