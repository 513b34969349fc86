"""How the task distributions of classification draw tasks: classes in random order, and of each different examples."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt8

from metalearn.task import Task

LookUp = Callable[
    [UInt8[Array, "..."], Int[Array, "num_ways 1"], Int[Array, "num_ways n"]], Shaped[Array, "num_ways n ..."]
]


def draw(
    key: PRNGKeyArray,
    look_up: Callable[[Int[Array, "num_ways 1"], Int[Array, "num_ways n"]], Shaped[Array, "num_ways n ..."]],
    num_classes: int,
    num_examples: int,
    num_ways: int,
    num_shots: int,
    num_query: int,
) -> Task:
    """A task of `num_ways` of the classes, each with `num_shots` and `num_query` of its `num_examples` examples.

    `look_up` gives inputs [num_ways, n, ...] for classes [num_ways, 1] and examples [num_ways, n]. A task holds inputs
    [num_ways * n, ...] and labels [num_ways * n], 0 ... num_ways - 1.
    """
    class_key, example_key = jax.random.split(key)
    classes = jax.random.permutation(class_key, num_classes)[:num_ways, None]
    examples = jax.vmap(lambda key: jax.random.permutation(key, num_examples))(jax.random.split(example_key, num_ways))

    return _task(look_up, classes, examples, num_shots, num_query)


@functools.partial(
    jax.jit, static_argnums=(1, 2), static_argnames=("num_classes", "num_ways", "num_shots", "num_query")
)
def draw_batch(
    key: PRNGKeyArray,
    num_tasks: int,
    look_up: LookUp,
    pictures: UInt8[Array, "num_rows num_examples ..."],
    *,
    num_classes: int,
    num_ways: int,
    num_shots: int,
    num_query: int,
) -> Task:
    """Tasks as `draw` draws them, by one program that compiles faster, with other random numbers.

    `look_up` gives inputs [num_ways, n, ...] for the pictures, classes [num_ways, 1] and examples [num_ways, n]. A task
    holds inputs [num_ways * n, ...] and labels [num_ways * n], 0 ... num_ways - 1.
    """
    num_examples = pictures.shape[1]

    def one(key):
        # Sorting random bits is what jax.random.permutation does too. All of them are drawn at once, since each call of
        # the generator takes as long to compile as all the rest.
        bits = jax.random.bits(key, (num_classes + num_ways * num_examples,))
        classes = jnp.argsort(bits[:num_classes])[:num_ways, None]
        examples = jnp.argsort(bits[num_classes:].reshape(num_ways, num_examples), axis=1)

        return _task(functools.partial(look_up, pictures), classes, examples, num_shots, num_query)

    return jax.vmap(one)(jax.random.split(key, num_tasks))


def _task(look_up, classes, examples, num_shots, num_query):
    def batch(columns):
        inputs = look_up(classes, columns)
        return inputs.reshape(-1, *inputs.shape[2:]), jnp.repeat(jnp.arange(len(classes)), columns.shape[1])

    return Task(support=batch(examples[:, :num_shots]), query=batch(examples[:, num_shots : num_shots + num_query]))


def to_images(pictures: UInt8[Array, "*shape"]) -> Float[Array, "*shape 1"]:
    """uint8 [..., height, width] -> float32 [..., height, width, 1] in [0, 1]."""
    return pictures.astype(jnp.float32)[..., None] / 255
