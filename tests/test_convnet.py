"""Conv4 against the same network on XLA's own convolution and pooling, and what makes it fit for adaptation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from problems import assert_clear_error

import metalearn as ml
from metalearn import models
from metalearn.models import networks

pytestmark = pytest.mark.filterwarnings("error")


def xla_convnet(params, images):
    """The network as one would write it without this library, from XLA's primitives and a module's parameters."""
    x = images
    for number in range(4):
        block = params["blocks"][number]
        kernel = block["convolution"]["kernel"][...]
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = block["scale"][...] * (x - mean) / jnp.sqrt(variance + 1e-5) + block["shift"][...]
        x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ params["head"]["kernel"][...] + params["head"]["bias"][...]


def network(channels=3, num_classes=4, image_shape=(16, 16, 1), seed=0):
    """(params, apply), with scales and shifts that are not 1 and 0, and a negative scale in every block."""
    params, apply = models.functional(
        models.ConvNet(channels=channels, num_classes=num_classes, image_shape=image_shape, rngs=nnx.Rngs(seed))
    )
    leaves, structure = jax.tree.flatten(params)
    random = np.random.default_rng(seed)
    moved = [leaf + jnp.asarray(0.1 * random.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves]
    params = jax.tree.unflatten(structure, moved)
    for number in range(4):
        scale = params["blocks"][number]["scale"]
        scale[...] = scale[...].at[0].multiply(-1)
    return params, apply


def batch(image_shape=(16, 16, 1), num_examples=6, num_classes=4, seed=0):
    """Images with a wide margin of exact zeros, as pictures of letters have: ties for the maxima to settle."""
    random = np.random.default_rng(seed)
    images = random.uniform(size=(num_examples, *image_shape))
    images[:, :5] = images[:, :, -4:] = 0
    return jnp.asarray(images), jnp.asarray(random.integers(0, num_classes, num_examples))


SHAPES = {"omniglot": ((28, 28, 1), 3), "odd_and_in_colour": ((19, 33, 3), 2)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_the_network_is_the_one_on_xlas_convolution(name, x64):
    """Logits, and the gradients of the loss in the parameters and the images, in float64: 28 -> 14 -> 7 -> 3 -> 1."""
    image_shape, channels = SHAPES[name]
    params, apply = network(channels, image_shape=image_shape)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    images, labels = batch(image_shape)

    def values(apply):
        def loss(params, images):
            return ml.losses.cross_entropy(apply)(params, (images, labels))

        return apply(params, images), jax.grad(loss, argnums=(0, 1))(params, images)

    ours, xlas = jax.jit(lambda: values(apply))(), jax.jit(lambda: values(xla_convnet))()
    assert ours[0].shape == (6, 4)
    chex.assert_trees_all_close(ours, xlas, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (2, 5)])
def test_patch_convolution_is_xlas(kernel_size, x64):
    random = np.random.default_rng(0)
    inputs = jnp.asarray(random.standard_normal((2, 6, 7, 3)))
    for options in ({}, {"use_bias": False}):
        layers = [
            nnx.Conv(3, 4, kernel_size, conv_general_dilated=convolution, rngs=nnx.Rngs(0), **options)
            for convolution in (models.patch_convolution, lax.conv_general_dilated)
        ]
        ours, xlas = (layer(inputs) for layer in layers)
        np.testing.assert_allclose(ours, xlas, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 7, 5, 2)])
def test_max_pool_is_xlas_with_ties_and_odd_sizes(shape):
    """Values and gradients; with few different values nearly every window has a tie."""
    x = jnp.asarray(np.random.default_rng(0).integers(-1, 2, shape), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((shape[0], shape[1] // 2, shape[2] // 2, shape[3])))

    def pulled(pool):
        return jax.value_and_grad(lambda x: (weights * pool(x)).sum())(x)

    chex.assert_trees_all_close(
        pulled(networks._max_pool), pulled(lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2))), rtol=1e-6
    )


# Fit for adaptation.


@pytest.mark.slow
def test_the_query_set_is_normalized_by_itself():
    """Its logits are those of a batch of its own, whatever the support set beside it; images within it do count."""
    params, apply = network()
    support, other, query = (batch(seed=seed)[0] for seed in range(3))
    both = jax.jit(lambda support, query: (apply(params, support), apply(params, query)))
    (_, logits), (_, again), (alone, _) = both(support, query), both(100 * other, query), both(query, support)
    chex.assert_trees_all_equal(logits, again)
    np.testing.assert_allclose(alone, logits, rtol=1e-5, atol=1e-5)
    _, mixed = both(support, query.at[0].set(other[0]))
    assert jnp.abs(mixed - logits)[1:].max() > 1e-3, "the statistics are those of the batch"


@pytest.mark.slow
def test_a_call_leaves_no_trace():
    """No running average: the module holds parameters and nothing else, and its second call equals its first."""
    module = models.ConvNet(channels=2, image_shape=(16, 16, 1), rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(module, nnx.BatchStat))
    assert len(jax.tree.leaves(nnx.state(module))) == len(jax.tree.leaves(nnx.state(module, nnx.Param)))
    images, _ = batch()
    before = jax.tree.map(jnp.copy, nnx.state(module))
    call = nnx.jit(lambda module, images: module(images))
    first = call(module, images)
    call(module, 100 + images)
    chex.assert_trees_all_equal(nnx.state(module), before)
    module.eval()
    chex.assert_trees_all_equal(call(module, images), first)
    params, apply = models.functional(module)
    np.testing.assert_allclose(jax.jit(apply)(params, images), first, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_contrast_does_not_matter():
    """What normalizing by the batch is for: another contrast gives the same logits, but for epsilon."""
    params, apply = network()
    images, apply = batch()[0], jax.jit(apply)
    np.testing.assert_allclose(apply(params, 50 * images), apply(params, 100 * images), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_per_task_weights_need_no_grouped_convolution():
    """The trap that this network avoids, seen first on XLA's own: a convolution with a feature group for each task."""
    params, apply = network()
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, network(seed=1)[0])
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), batch(), batch(seed=1))

    def program(apply):
        return jax.jit(jax.vmap(jax.grad(ml.losses.cross_entropy(apply)))).lower(both, batches).as_text()

    assert "stablehlo.convolution" in program(xla_convnet)
    assert "feature_group_count = 2" in program(xla_convnet)
    assert "stablehlo.convolution" not in program(apply)


@pytest.mark.slow
def test_one_network_for_each_task_is_the_network_of_each_task():
    params, apply = network()
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, network(seed=1)[0])
    images = jnp.stack([batch(seed=seed)[0] for seed in range(2)])
    mapped, looped = jax.jit(
        lambda: (jax.vmap(apply)(both, images), lax.map(lambda each: apply(*each), (both, images)))
    )()
    np.testing.assert_allclose(mapped, looped, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_second_derivatives_pass_through_a_block(x64):
    """What exact MAML needs: a Hessian-vector product against central differences of the gradient, in float64."""
    params, block = models.functional(networks._Block(2, 3, nnx.Rngs(0)))
    random = np.random.default_rng(0)
    params, direction = (
        jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.5 * random.standard_normal(leaf.shape)), params)
        for _ in range(2)
    )
    images = jnp.asarray(random.uniform(size=(3, 4, 5, 2)))
    gradient = jax.jit(jax.grad(lambda params: (block(params, images) ** 2).mean()))
    step = 1e-6
    ahead, behind = (
        gradient(jax.tree.map(lambda p, d, sign=sign: p + sign * step * d, params, direction)) for sign in (1, -1)
    )
    expected = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
    chex.assert_trees_all_close(jax.jvp(gradient, (params,), (direction,))[1], expected, rtol=1e-6, atol=1e-8)


def test_it_has_the_parameters_of_conv4():
    """A kernel of 3x3, a scale and a shift for each block, and the head on the one pixel that 28x28 leaves."""
    params, _ = models.functional(models.ConvNet(rngs=nnx.Rngs(0)))
    blocks = [9 * depth * 32 + 32 + 32 for depth in (1, 32, 32, 32)]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(blocks) + 32 * 5 + 5


def convnet(**arguments):
    return lambda: models.ConvNet(**arguments, rngs=nnx.Rngs(0))


def convolve(**options):
    arguments = dict(strides=(1, 1), padding="SAME") | options
    return lambda: models.patch_convolution(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), **arguments)


CASES = {
    "channels": (convnet(channels=0), "channels must be"),
    "num_classes": (convnet(num_classes=2.5), "num_classes must be"),
    "image_shape": (convnet(image_shape=(28, 28)), r"image_shape must be \(height, width, channels\)"),
    "image_shape_number": (convnet(image_shape=28), r"image_shape must be \(height, width, channels\)"),
    "small": (convnet(image_shape=(15, 28, 1)), "height .* must be .* at least 16"),
    "no_channels": (convnet(image_shape=(28, 28, 0)), "channels .* must be .* at least 1"),
    "images": (lambda: convnet()()(jnp.ones((2, 28, 28))), r"images must have shape \[num_examples, 28, 28, 1\]"),
    "other_images": (lambda: convnet()()(jnp.ones((2, 32, 32, 1))), "images must have shape"),
    "strides": (convolve(strides=(2, 2)), "strides of 1"),
    "padding": (convolve(padding="VALID"), 'padding="SAME"'),
    "dilation": (convolve(rhs_dilation=(2, 2)), "no dilation"),
    "groups": (convolve(feature_group_count=3), "no feature groups"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name):
    call, message = CASES[name]
    assert_clear_error(call, ValueError, message)
