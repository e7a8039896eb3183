"""TensorFlow: what a tape returns is the adjoint of each linear map, <A x, y> = <x, A* y>."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from sepconv import tensorflow as sep  # noqa: E402

CASES = {
    "valid": {},
    "same, stride": {"padding": "same", "strides": 2},
    "unequal strides": {"padding": "same", "strides": (3, 1)},
    "dilation": {"padding": "same", "dilation_rate": (2, 3)},
    "stride and dilation": {"strides": (2, 3), "dilation_rate": (1, 2)},
    "explicit": {"padding": ((4, 0), (1, 5)), "strides": (2, 1)},
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_adjoint_in_every_argument(case, dtype, separable, data_format):
    rng = np.random.default_rng(len(case))
    x_shape = (2, 9, 10, 3) if data_format == "channels_last" else (2, 3, 9, 10)
    shapes = [x_shape, (3, 4, 3, 2), (1, 1, 6, 5)][: 3 if separable else 2]
    arguments = [tf.constant(rng.standard_normal(s), dtype) for s in shapes]
    function = sep.separable_conv2d if separable else sep.depthwise_conv2d
    for place in range(len(arguments)):
        value = arguments[place]
        with tf.GradientTape() as tape:
            tape.watch(value)
            image = function(*arguments, data_format=data_format, **CASES[case])
        y = tf.constant(rng.standard_normal(image.shape), dtype)
        adjoint = tape.gradient(image, value, output_gradients=y).numpy().astype("float64")
        image, y, value = (a.numpy().astype("float64") for a in (image, y, value))
        left, right = np.vdot(image, y), np.vdot(value, adjoint)
        scale = np.linalg.norm(image) * np.linalg.norm(y)
        assert abs(left - right) <= (1e-6 if dtype == "float32" else 1e-14) * scale
