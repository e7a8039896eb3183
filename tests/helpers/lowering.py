"""Lowered models held against Keras, by the reference of programs and by programs themselves."""

from __future__ import annotations

import keras
import numpy as np

from sepconv.models.lowering import lower
from sepconv.program import reference, shapes
from sepconv.program.program import Program


def randomized(model, seed=0):
    """The model with weights that change something: statistics of batch normalization, biases."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(recursive=True, include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            weights = [rng.uniform(0.5, 1.5, n)] if layer.scale else []
            weights += [rng.normal(0, 0.3, n)] if layer.center else []
            layer.set_weights([*weights, rng.normal(0, 0.3, n), rng.uniform(0.5, 1.5, n)])
        elif not getattr(layer, "_layers", None):
            layer.set_weights([w + rng.normal(0, 0.05, w.shape) for w in layer.get_weights()])
    return model


def compare(model, *inputs, dtype=None):
    """Lowers a model, and holds outputs against Keras' and shapes against real ones.

    Keras calls it twice where the model has several inputs of its own names.
    """
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    expected = keras.tree.flatten(model.predict_on_batch(given))
    network = lower(model, dtype)
    values = reference.values(network, *inputs)
    names = list(network.output_names)
    assert names == list(getattr(model, "output_names", names))
    for name, number, want in zip(names, network.outputs, expected, strict=True):
        got = values[number].astype(network.dtype)
        assert got.shape == want.shape, name
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), name
    outputs = Program(network)(*inputs)
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    for name, number, got in zip(names, network.outputs, found, strict=True):
        want = values[number]
        assert got.shape == want.shape, name
        assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max(), name
    for shape, value in zip(shapes.shapes(network), values, strict=True):
        assert len(shape) == value.ndim
        assert all(size in (None, n) for size, n in zip(shape, value.shape, strict=True))
    return network


def compare_each(shape, branches, x=None):
    """Holds many layers or functions of one input against Keras, as one model of many outputs.

    Args:
        shape: of the input, without the batch.
        branches: by name, a layer or a function of a tensor; results must be tensors.
        x: the input; random numbers where None.
    """
    inputs = keras.Input(shape)
    outputs = {name: branch(inputs) for name, branch in branches.items()}
    model = randomized(keras.Model(inputs, outputs))
    if x is None:
        x = np.random.default_rng(1).normal(0, 2, (2, *(n or 7 for n in shape))).astype("float32")
    return compare(model, x)
