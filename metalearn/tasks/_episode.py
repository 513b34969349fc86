"""How the image families draw a task: different classes in random order, and of each class different examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metalearn.task import Task


def draw(
    key: jax.Array,
    look_up: Callable[[jax.Array, jax.Array], jax.Array],
    num_classes: int,
    num_examples: int,
    num_ways: int,
    num_shots: int,
    num_query: int,
) -> Task:
    """A task of `num_ways` of the classes, each with `num_shots` and `num_query` of its `num_examples` examples.

    `look_up` gives uint8 images [num_ways, n, height, width] for classes [num_ways, 1] and examples [num_ways, n]. A
    task holds float32 images [num_ways * n, height, width, 1] in [0, 1] and labels [num_ways * n].
    """
    class_key, example_key = jax.random.split(key)
    classes = jax.random.permutation(class_key, num_classes)[:num_ways, None]
    examples = jax.vmap(lambda key: jax.random.permutation(key, num_examples))(jax.random.split(example_key, num_ways))

    def batch(columns):
        images = look_up(classes, columns).astype(jnp.float32) / 255
        return images.reshape(-1, *images.shape[2:], 1), jnp.repeat(jnp.arange(num_ways), columns.shape[1])

    return Task(support=batch(examples[:, :num_shots]), query=batch(examples[:, num_shots : num_shots + num_query]))
