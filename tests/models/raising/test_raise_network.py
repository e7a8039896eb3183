"""Models of Keras' own layers of networks, against the reference."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import programs
from helpers.float_networks import Drawn, data

from sepconv.geometry import conv_spec
from sepconv.models.raising import raise_network
from sepconv.program import reference


def check(network, x, kinds=None):
    """Holds a model against its network, and returns it."""
    model = raise_network(network, "made")
    found = keras.tree.flatten(model(x))
    for y, expected in zip(found, reference.run(network, x), strict=True):
        found_array = keras.ops.convert_to_numpy(y)
        np.testing.assert_allclose(found_array, expected, rtol=1e-4, atol=1e-4)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Layer)]
    assert all(type(layer) is getattr(keras.layers, type(layer).__name__) for layer in layers)
    if kinds is not None:
        assert [type(each).__name__ for each in model.operations[1:]] == kinds
    return model


def test_every_operation(tmp_path):
    network = programs.without_casts(programs.every_operation())
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    model = check(network, x)
    model.save(tmp_path / "made.keras")
    again = keras.models.load_model(tmp_path / "made.keras")
    for one, other in zip(again(x), model(x), strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))


def test_blocks_are_few_layers():
    drawn = Drawn()
    y = drawn.separable(drawn.depthwise(0, "relu6"), 8, residual=0, middle="silu")
    y = drawn.dense(drawn.reduce(drawn.ordinary(y, 6, strides=2), "mean", [1, 2], False), 5, "relu")
    network = drawn.network(drawn.softmax(y, 1))
    check(
        network,
        data(network),
        [
            *("DepthwiseConv2D", "DepthwiseConv2D", "Conv2D", "Add", "Activation", "Conv2D"),
            *("GlobalAveragePooling2D", "Dense", "Softmax"),
        ],
    )


def test_padding_and_moves():
    drawn = Drawn()
    y = drawn.ordinary(0, 6, padding=((2, 1), (0, 3)))
    y = drawn.slice(drawn.pad(y, [(0, 0), (1, 2), (0, 1), (0, 0)], 0.0), {1: (1, -2, 1)})
    spec = conv_spec(2, ((1, 0), (0, 1)))
    y = drawn.emit("pool", [y], {"function": "max", "window": (2, 2), "spec": spec})
    y = drawn.reshape(drawn.transpose(y, [0, 3, 1, 2]), [0, 6, -1])
    network = drawn.network(drawn.unary(y, "clip", -1.0, 1.0))
    check(
        network,
        data(network),
        [
            *("ZeroPadding2D", "Conv2D", "ZeroPadding2D", "Cropping2D", "Pad", "MaxPooling2D"),
            *("Permute", "Reshape", "Activation"),
        ],
    )


def test_rows():
    drawn = Drawn(shape=(None, 20, 8))
    weights = {"depthwise_kernel": drawn.weights(1, 3, 8, 2), "bias": drawn.weights(8)}
    weights["pointwise_kernel"] = drawn.weights(1, 1, 16, 8)
    given = {"depthwise_activation": "relu", "activation": "silu"}
    spec = (2, 2, 1, 1, 0, 0, 0, 2, 0, 0)
    y = drawn.emit("convolution", [0], {"spec": spec, **given}, weights)
    network = drawn.network(y)
    check(network, data(network), ["ZeroPadding1D", "DepthwiseConv1D", "Conv1D"])


def test_functions_without_a_layer_are_operations():
    drawn = Drawn(shape=(None, 6))
    y = drawn.binary("divide", drawn.unary(0, "square"), drawn.constant(np.full(6, 2.0)))
    y = drawn.unary(drawn.unary(y, "linear", 2.0, 1.0), "sqrt")
    network = drawn.network(y, 0)
    model = check(network, data(network))
    kinds = {type(each).__name__ for each in model.operations}
    assert {"Square", "Divide", "Rescaling", "Sqrt", "Identity"} <= kinds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2, 1), "depthwise": True}, r"strides \(2, 1\), which differ"),
        ({"strides": 2, "dilation_rate": 2}, r"strides \(2, 2\) beside dilations \(2, 2\)"),
    ],
)
def test_what_keras_does_not_compute_is_refused(options, message):
    drawn = Drawn()
    depthwise = options.pop("depthwise", False)
    y = drawn.depthwise(0, **options) if depthwise else drawn.ordinary(0, 4, **options)
    with pytest.raises(ValueError, match=f"has no counterpart among Keras' layers.*{message}"):
        raise_network(drawn.network(y), "made")
