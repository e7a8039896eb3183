"""Keras' own convolutions of a batch without images, while a patch is on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import sepconv

CASES = {
    "1x1": (lambda: keras.layers.Conv2D(5, 1), (8, 7, 3)),
    "ordinary": (lambda: keras.layers.Conv2D(5, 3, strides=2, padding="same"), (8, 7, 3)),
    "one channel": (lambda: keras.layers.Conv2D(17, 3), (8, 7, 1)),
    "dilation": (lambda: keras.layers.Conv2D(5, 3, dilation_rate=2), (8, 7, 3)),
    "1-D": (lambda: keras.layers.Conv1D(5, 3, padding="causal"), (8, 3)),
    "3-D": (lambda: keras.layers.Conv3D(5, 2), (5, 6, 7, 3)),
    "depthwise": (lambda: keras.layers.DepthwiseConv2D(3), (8, 7, 3)),
    "separable": (lambda: keras.layers.SeparableConv1D(5, 3), (8, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_empty_and_so_are_gradients(case, engine):
    make, shape = CASES[case]
    layer, x = make(), ops.zeros((0, *shape))
    layer.build((None, *shape))
    with sepconv.patch_keras():
        y = layer(x)
        assert ops.convert_to_numpy(y).shape == layer.compute_output_shape(x.shape)
        if engine == "tensorflow":
            import tensorflow as tf

            variables = [w.value for w in layer.trainable_weights]
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x))
            for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True):
                assert gradient.shape == variable.shape
                assert not np.any(gradient)
            y = tf.function(layer)(x)  # a graph that knows the number of images
            assert tuple(y.shape) == layer.compute_output_shape(x.shape)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_function_of_an_empty_batch(kernel_size):
    x, kernel = ops.zeros((0, 8, 7, 3)), ops.ones((kernel_size, kernel_size, 3, 5))
    with sepconv.patch_keras():
        y = ops.conv(x, kernel, padding="valid")
    assert ops.convert_to_numpy(y).shape == (0, 9 - kernel_size, 8 - kernel_size, 5)
