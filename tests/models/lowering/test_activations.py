"""Every activation of Keras', as a function, a layer, an operation and a layer's last part."""

from __future__ import annotations

import keras
import numpy as np
from helpers.keras_versions import is_since
from helpers.lowering import compare, compare_each, randomized
from keras import layers as L  # noqa: N812
from keras.src.activations import ALL_OBJECTS

from sepconv.models.lowering.activations import FUNCTIONS

#: Numbers on both sides of where functions change, and on these places themselves.
X = np.concatenate(
    [
        np.linspace(-8, 8, 41),
        [-6, -3, -1, -0.5, -0.0, 0.0, 0.25, 0.5, 1, 3, 6, 40],
        np.random.default_rng(0).normal(size=11),
    ]
)
X = np.tile(X, 3).reshape(4, 6, 8).astype("float32")

UNKNOWN = {"threshold", "sparsemax"}  # one has no defaults, one sorts


def test_every_function_of_keras_is_known():
    assert {function.__name__ for function in ALL_OBJECTS} - UNKNOWN == set(FUNCTIONS)


def test_activation_layers():
    # Keras takes the shape of glu's result for that of its input, as a layer.
    branches = {name: L.Activation(name) for name in FUNCTIONS if name != "glu"}
    compare_each((6, 8), branches, X)


def test_layers():
    branches = {
        "relu": L.ReLU(),
        "relu_6": L.ReLU(6.0),
        "relu_of_all": L.ReLU(max_value=2.0, negative_slope=0.3, threshold=0.25),
        "relu_threshold": L.ReLU(threshold=0.5),
        "relu_slope": L.ReLU(negative_slope=0.1, max_value=3.0),
        "leaky": L.LeakyReLU(0.3),
        "elu": L.ELU(0.5),
        "prelu": L.PReLU("uniform"),
        "prelu_shared": L.PReLU("uniform", shared_axes=[1]),
        "softmax": L.Softmax(axis=1),
        "softmax_list": L.Softmax(axis=[-1]),
        "operation": L.Activation(keras.ops.elu),
        "operation_gelu": L.Activation(keras.ops.gelu),
        "of_dense": L.Dense(4, activation=L.LeakyReLU(0.2)),
    }
    compare_each((6, 8), branches, X)


def test_operations():
    ops, functions = keras.ops, keras.activations
    branches = {
        "relu": ops.relu,
        "relu_function": lambda x: functions.relu(x, 0.1, 5.0, 0.5),
        "relu_below": lambda x: functions.relu(x, max_value=2.0, threshold=-1.0),
        "relu6": ops.relu6,
        "sigmoid": ops.sigmoid,
        "sparse_sigmoid": ops.sparse_sigmoid,
        "softplus": ops.softplus,
        "softsign": ops.softsign,
        "sparse_plus": ops.sparse_plus,
        "silu": ops.silu,
        "log_sigmoid": ops.log_sigmoid,
        "hard_sigmoid": ops.hard_sigmoid,
        "hard_silu": ops.hard_silu,
        "selu": ops.selu,
        "tanh_shrink": ops.tanh_shrink,
        "hard_tanh": ops.hard_tanh,
        "soft_shrink": lambda x: ops.soft_shrink(x, 0.7),
        "hard_shrink": lambda x: ops.hard_shrink(x, 0.7),
        "squareplus": lambda x: ops.squareplus(x, 3),
        "leaky": lambda x: ops.leaky_relu(x, 0.3),
        "elu": lambda x: ops.elu(x, 0.7),
        "celu": lambda x: ops.celu(x, 0.7),
        "threshold": lambda x: ops.threshold(x, 0.5, 3.0),
        "gelu": lambda x: ops.gelu(x, approximate=False),
        "gelu_tanh": ops.gelu,
        "softmax": lambda x: ops.softmax(x, 1),
        "log_softmax": ops.log_softmax,
    }
    if is_since("3.12"):  # before, Keras itself gives glu's result a wrong shape
        branches["glu"] = lambda x: ops.glu(x, 1)
    compare_each((6, 8), branches, X)


def test_what_kernels_apply_is_in_their_step():
    x = keras.Input((6, 8))
    for name in ("relu", "relu6", "silu", "hard_silu"):
        model = randomized(keras.Model(x, L.Activation(name)(L.Conv1D(4, 3, name="a")(x))))
        (step,) = compare(model, X).steps
        assert step.attributes["activation"] == name
