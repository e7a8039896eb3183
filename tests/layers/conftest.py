"""Picks Keras' backend for these tests, and what they share: one step of an engine's autodiff."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from helpers.selection import import_keras, skip_unless_selected

keras = import_keras()

from helpers import quick  # noqa: E402 - it imports Keras, whose backend is chosen now

BACKEND = keras.backend.backend()


def pytest_collection_modifyitems(items):
    if BACKEND != "numpy":
        skip_unless_selected(items, __file__)


@pytest.fixture(autouse=True, scope="session")
def _short_compilations():
    """Hundreds of tiny layers and models are compiled once and run once."""
    with quick.short_compilations():
        yield


@pytest.fixture
def engine():
    return BACKEND


@pytest.fixture
def trains():
    """Skips where Keras' backend has no gradients."""
    if BACKEND == "numpy":
        pytest.skip("Keras' numpy backend does not train")


@pytest.fixture
def float64():
    """A context in which float64 is what it says, which JAX must be asked for."""
    if BACKEND != "jax":
        return contextlib.nullcontext
    from helpers.jax_versions import x64

    return x64


@pytest.fixture
def gradients(trains):
    """`gradients(layers, x, dy)` -> a list of arrays for each layer.

    They are its output, then the gradients of sum(output * dy) for the input and each weight.
    """
    return {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[BACKEND]


@pytest.fixture
def forward():
    """`forward(layer, x)` -> the output as an array."""
    if BACKEND == "jax":
        return lambda layer, x: np.asarray(
            _compile(lambda w, x: _apply(layer, w, x))(_values(layer), x)
        )
    return lambda layer, x: keras.ops.convert_to_numpy(layer(x))


def _values(layer):
    return [v.value for v in layer.trainable_variables]


def _compile(function):
    """One compilation of everything; an operation at a time would take several times as long."""
    import jax

    return jax.jit(function)


def _apply(layer, weights, x):
    return layer.stateless_call(weights, [], x)[0]


def _jax(layers, x, dy):
    import jax

    def differentiate(weights, x, dy):
        results = []
        for layer, values in zip(layers, weights, strict=True):
            y, pull = jax.vjp(lambda w, x, layer=layer: _apply(layer, w, x), values, x)
            dweights, dx = pull(dy)
            results.append([y, dx, *dweights])
        return results

    results = _compile(differentiate)([_values(layer) for layer in layers], x, dy)
    return [[np.asarray(a) for a in result] for result in results]


def _torch(layers, x, dy):
    import torch

    results = []
    for layer in layers:
        leaf = torch.tensor(x, requires_grad=True)
        y = layer(leaf)
        grads = torch.autograd.grad((y * torch.tensor(dy)).sum(), [leaf, *_values(layer)])
        results.append([a.detach().numpy() for a in (y, *grads)])
    return results


def _tensorflow(layers, x, dy):
    import tensorflow as tf

    x = tf.constant(x)
    results = []
    for layer in layers:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y * dy)
        results.append([a.numpy() for a in (y, *tape.gradient(total, [x, *_values(layer)]))])
    return results
