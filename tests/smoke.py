"""Whether an installed sepconv works: `python smoke.py [jax] [torch] [tensorflow]`.

It needs neither pytest nor the sources, and without arguments only NumPy: it is what a built wheel
must pass in an environment that has nothing else.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np

import sepconv

OPTIONS = {"strides": (1, 2), "padding": "same"}


def arrays():
    rng = np.random.default_rng(0)
    shapes = (2, 8, 9, 3), (3, 3, 3, 2), (1, 1, 6, 5)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def check(name, found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-4, err_msg=name)


def smoke_numpy():
    x, depthwise, pointwise = arrays()
    y = sepconv.separable_conv2d(x, depthwise, pointwise, **OPTIONS)
    check("y", y, sepconv.reference.separable_conv2d(x, depthwise, pointwise, **OPTIONS))
    found = sepconv.separable_conv2d_grad(x, depthwise, pointwise, y, **OPTIONS)
    expected = sepconv.reference.separable_conv2d_grad(x, depthwise, pointwise, y, **OPTIONS)
    for name in ("x", "depthwise_kernel", "pointwise_kernel"):
        check(name, getattr(found, name), getattr(expected, name))


def gradients_jax(operands):
    import jax

    function = importlib.import_module("sepconv.jax").separable_conv2d
    return jax.jit(
        jax.value_and_grad(lambda *a: (function(*a, **OPTIONS) ** 2).sum() / 2, (0, 1, 2))
    )(*operands)


def gradients_torch(operands):
    import torch

    function = importlib.import_module("sepconv.torch").separable_conv2d
    tensors = [torch.tensor(value, requires_grad=True) for value in operands]
    loss = (function(*tensors, **OPTIONS) ** 2).sum() / 2
    return loss.detach(), torch.autograd.grad(loss, tensors)


def gradients_tensorflow(operands):
    import tensorflow as tf

    function = importlib.import_module("sepconv.tensorflow").separable_conv2d
    tensors = [tf.constant(value) for value in operands]

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = tf.reduce_sum(function(*tensors, **OPTIONS) ** 2) / 2
        return loss, tape.gradient(loss, tensors)

    return both()


ENGINES = {"jax": gradients_jax, "torch": gradients_torch, "tensorflow": gradients_tensorflow}


def smoke_engine(name):
    operands = arrays()
    loss, gradients = ENGINES[name](operands)
    y = sepconv.reference.separable_conv2d(*operands, **OPTIONS)
    check("loss", loss, (y.astype("float64") ** 2).sum() / 2)
    expected = sepconv.reference.separable_conv2d_grad(*operands, y, **OPTIONS)
    names = ("x", "depthwise_kernel", "pointwise_kernel")
    for field, gradient in zip(names, gradients, strict=True):
        check(field, gradient, getattr(expected, field))


def main(names):
    where = Path(sepconv.__file__).parent
    python = ".".join(map(str, sys.version_info[:3]))
    smoke_numpy()
    print(f"numpy {np.__version__}: ok (Python {python}, {sepconv.isa_name()}, {where})")
    for name in names:
        smoke_engine(name)
        print(f"{name} {importlib.import_module(name).__version__}: ok")


if __name__ == "__main__":
    main(sys.argv[1:])
