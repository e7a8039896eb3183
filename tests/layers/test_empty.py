"""A batch without images: the result has none either, has the right size, and gradients are 0."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.keras_versions import convolves_channels_first
from keras import ops

from sepconv import layers
from sepconv.layers.empty import is_empty, lend_an_image

BACKEND = keras.backend.backend()

#: Layers by name -> their arguments and the channels of their inputs.
LAYERS = {
    "Conv2D 1x1": (layers.Conv2D, {"filters": 5, "kernel_size": 1}, 3),
    "Conv2D 1x1, of ours on JAX": (layers.Conv2D, {"filters": 16, "kernel_size": 1}, 8),
    "Conv2D": (layers.Conv2D, {"filters": 5, "kernel_size": 3, "activation": "relu"}, 3),
    "Conv2D, strides": (
        layers.Conv2D,
        {"filters": 5, "kernel_size": (3, 2), "strides": 2, "padding": "same"},
        3,
    ),
    "Conv2D, dilation": (layers.Conv2D, {"filters": 5, "kernel_size": 3, "dilation_rate": 2}, 3),
    "Conv2D, two groups": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, 4),
    "Conv2D, no bias": (layers.Conv2D, {"filters": 5, "kernel_size": 3, "use_bias": False}, 3),
    "Conv2D, one channel": (layers.Conv2D, {"filters": 17, "kernel_size": 3}, 1),
    "Conv2D, depthwise": (layers.Conv2D, {"filters": 8, "kernel_size": 3, "groups": 4}, 4),
    "DepthwiseConv2D": (layers.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}, 4),
    "SeparableConv2D": (layers.SeparableConv2D, {"filters": 5, "kernel_size": 3}, 4),
    "DepthwiseConv1D": (layers.DepthwiseConv1D, {"kernel_size": 3, "strides": 2}, 4),
    "SeparableConv1D": (layers.SeparableConv1D, {"filters": 5, "kernel_size": 3}, 4),
    "FusedConv2D": (layers.FusedConv2D, {"filters": 5, "kernel_size": 3, "activation": "relu"}, 4),
    "FusedConv2D 1x1": (layers.FusedConv2D, {"filters": 5, "strides": 2, "activation": "elu"}, 4),
}


@pytest.fixture(params=LAYERS)
def case(request):
    """A built layer, in channels_last, and inputs without images."""
    kind, arguments, channels = LAYERS[request.param]
    space = (9,) if kind.__name__.endswith("1D") else (9, 7)
    layer = kind(**arguments)
    layer.build((None, *space, channels))
    return layer, np.zeros((0, *space, channels), "float32")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_result_is_empty(name, data_format):
    kind, arguments, channels = LAYERS[name]
    keras_own = kind is layers.Conv2D and "groups" not in arguments
    if keras_own and data_format == "channels_first" and not convolves_channels_first():
        pytest.skip("Keras' own convolution does not take channels_first here")
    space = (9,) if kind.__name__.endswith("1D") else (9, 7)
    shape = (*space, channels) if data_format == "channels_last" else (channels, *space)
    layer = kind(**arguments, data_format=data_format)
    x = np.zeros((0, *shape), "float32")
    y = layer(x)
    assert tuple(y.shape) == ops.convert_to_numpy(y).shape == layer.compute_output_shape(x.shape)
    assert y.shape[0] == 0
    assert all(y.shape[1:])


def test_gradients_are_zeros(case, gradients):
    layer, x = case
    dy = np.zeros(layer.compute_output_shape(x.shape), "float32")
    ((y, dx, *dweights),) = gradients([layer], x, dy)
    assert y.shape == dy.shape
    assert dx.shape == x.shape
    assert [dw.shape for dw in dweights] == [tuple(w.shape) for w in layer.trainable_weights]
    assert not any(np.any(dw) for dw in dweights)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow alone has sizes of run time")
@pytest.mark.parametrize("known", ["nothing", "the image", "the batch"])
def test_a_number_of_images_that_a_graph_does_not_know(case, known):
    import tensorflow as tf

    layer, x = case
    channels, unknown = x.shape[-1], (None,) * (x.ndim - 2)
    shape = {
        "nothing": (None, *unknown, channels),
        "the image": (None, *x.shape[1:]),
        "the batch": x.shape,
    }[known]

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def differentiate(x):
        variables = [w.value for w in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * y)
        assert y.shape[-1] == layer.compute_output_shape(x.shape)[-1]  # static, for later layers
        return y, tape.gradient(loss, [x, *variables])

    y, (dx, *dweights) = differentiate(x)
    assert tuple(y.shape) == layer.compute_output_shape(x.shape)
    assert tuple(dx.shape) == x.shape
    assert all(
        tuple(dw.shape) == tuple(w.shape) and not np.any(dw)
        for dw, w in zip(dweights, layer.trainable_weights, strict=True)
    )
    if known != "the batch":
        some = np.random.default_rng(0).standard_normal((2, *x.shape[1:])).astype("float32")
        y, (dx, *dweights) = differentiate(some)
        np.testing.assert_allclose(y, layer(some), rtol=1e-4, atol=1e-5)
        assert tuple(dx.shape) == some.shape
        assert all(np.any(dw) for dw in dweights)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow alone has sizes of run time")
def test_images_that_are_there_are_not_copied(monkeypatch):
    import tensorflow as tf

    layer = layers.Conv2D(5, 3)
    layer.build((None, 9, 7, 3))
    monkeypatch.setattr(tf, "pad", None)
    monkeypatch.setattr(tf, "concat", None)
    assert layer(tf.zeros((2, 9, 7, 3))).shape == (2, 7, 5, 5)
    assert tf.function(layer)(tf.zeros((2, 9, 7, 3))).shape == (2, 7, 5, 5)


def test_it_is_known_whether_a_batch_is_empty():
    assert is_empty(np.zeros((0, 3)))
    assert is_empty(np.zeros((2, 3))) is False
    assert is_empty(keras.KerasTensor((None, 3))) is None
    assert is_empty(np.float32(1)) is False
    assert is_empty([]) is False


def test_what_is_symbolic_is_lent_nothing():
    symbolic = keras.KerasTensor((None, 3))
    assert lend_an_image(lambda x: x, symbolic) is symbolic
