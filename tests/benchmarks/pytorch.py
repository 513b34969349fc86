"""The same meta-gradients in PyTorch, to compare with, where it is installed."""

import functools
import importlib.util
import os
from collections.abc import Callable

import jax
import numpy as np


def installed() -> bool:
    """Whether there is something to compare with."""
    return importlib.util.find_spec("torch") is not None


def sinusoid_meta_gradients(layers, tasks, num_steps, rate) -> dict[str, Callable]:
    """Name -> a function that computes the meta-gradient of a batch of tasks."""
    import torch

    torch.set_num_threads(1)  # with arrays as small as these, threads mostly wait for each other

    weights = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in jax.tree.leaves(layers)]
    batch = [torch.tensor(np.asarray(leaf)) for leaf in jax.tree.leaves(tasks)]

    def loss(weights, x, y):
        x = torch.relu(x @ weights[0] + weights[1])
        x = torch.relu(x @ weights[2] + weights[3])
        return ((x @ weights[4] + weights[5] - y) ** 2).mean()

    def functional(weights, x, y, query_x, query_y):
        for _ in range(num_steps):
            gradient = torch.func.grad(loss)(weights, x, y)
            weights = [w - rate * g for w, g in zip(weights, gradient, strict=True)]
        return loss(weights, query_x, query_y)

    def vmapped():
        per_task = torch.func.vmap(torch.func.grad(functional), in_dims=(None, 0, 0, 0, 0))
        return [gradient.mean(0) for gradient in per_task(weights, *batch)]

    def loop():
        return second_order_loop(loss, weights, zip(*batch, strict=True), num_steps, rate)

    return {"`torch.func`, vmapped": vmapped, "PyTorch, task by task": loop}


def second_order_loop(loss, weights, tasks, num_steps, rate):
    """The sum of the tasks' meta-gradients, a task at a time and with autograd, as in higher and learn2learn."""
    import torch

    total = 0.0
    for x, y, query_x, query_y in tasks:
        phi = weights
        for _ in range(num_steps):
            gradient = torch.autograd.grad(loss(phi, x, y), phi, create_graph=True)
            phi = [w - rate * g for w, g in zip(phi, gradient, strict=True)]
        total = total + loss(phi, query_x, query_y)
    return torch.autograd.grad(total, weights)


def conv4_meta_gradients(params, tasks, num_steps, rate) -> dict[str, Callable]:
    """Name -> a function that computes the meta-gradient of a batch of tasks with Conv4-32, with one thread or all."""
    import torch
    from torch.nn import functional

    blocks = [params["blocks"][number] for number in range(4)]
    arrays = [
        *(
            leaf
            for block in blocks
            for leaf in (block["convolution"]["kernel"][...].transpose(3, 2, 0, 1), block["scale"], block["shift"])
        ),
        params["head"]["kernel"][...].T,
        params["head"]["bias"],
    ]
    weights = [torch.tensor(np.array(leaf), requires_grad=True) for leaf in arrays]

    def loss(weights, images, labels):
        x = images
        for kernel, scale, shift in zip(weights[:12:3], weights[1:12:3], weights[2:12:3], strict=True):
            x = functional.batch_norm(functional.conv2d(x, kernel, padding=1), None, None, scale, shift, training=True)
            x = functional.max_pool2d(functional.relu(x), 2)
        return functional.cross_entropy(functional.linear(x.flatten(1), *weights[12:]), labels)

    def as_torch(batch):
        images, labels = map(np.array, batch)
        return torch.tensor(images.transpose(0, 1, 4, 2, 3)), torch.tensor(labels).long()

    batch = *as_torch(tasks.support), *as_torch(tasks.query)

    def on_threads(number):
        torch.set_num_threads(number)
        return second_order_loop(loss, weights, zip(*batch, strict=True), num_steps, rate)

    counts = sorted({1, os.cpu_count() or 1})
    return {f"PyTorch, task by task, threads: {number}": functools.partial(on_threads, number) for number in counts}
