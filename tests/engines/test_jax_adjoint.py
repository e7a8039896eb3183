"""<A x, y> = <x, A* y> for every linear operation of sepconv.jax."""

import jax
import numpy as np
import pytest

import sepconv.jax
from sepconv.engines.jax import composed as bilinear
from sepconv.geometry import conv_spec, resolve

pytestmark = pytest.mark.usefixtures("x64")


def random_case(seed):
    """(spec, x, kernel, dy) of random values."""
    rng = np.random.default_rng(seed)
    kernel_size, dilation = tuple(rng.integers(1, 5, 2)), tuple(rng.integers(1, 3, 2))
    size = tuple(rng.integers(9, 13, 2))
    data_format = ["channels_last", "channels_first"][seed % 2]
    padding = ["valid", "same", ((1, 2), (0, 3))][seed % 3]
    spec = conv_spec(
        tuple(map(int, rng.integers(1, 4, 2))), padding, tuple(map(int, dilation)), data_format
    )
    channels, multiplier = map(int, rng.integers(1, 5, 2))
    x_shape = tuple(map(int, bilinear.input_shape(spec, 2, size, channels)))
    kernel_shape = (*map(int, kernel_size), channels, multiplier)
    y_shape = resolve(spec, x_shape, kernel_shape).output_shape(channels * multiplier)
    return spec, *(rng.standard_normal(shape) for shape in (x_shape, kernel_shape, y_shape))


def assert_adjoint(operation, adjoint, x, y):
    left, right = np.vdot(operation(x), y), np.vdot(x, adjoint(y))
    scale = np.linalg.norm(operation(x)) * np.linalg.norm(y)
    assert abs(left - right) <= 1e-13 * scale
    assert abs(left) > 1e-6 * scale  # not 0 = 0


@pytest.mark.parametrize("seed", range(18))
def test_the_three_bilinear_operations_are_adjoint_to_each_other(seed):
    spec, x, kernel, dy = random_case(seed)
    size, kernel_size = bilinear.spatial_size(x.shape, spec), kernel.shape[:2]

    def depthwise(x, kernel):
        return bilinear.depthwise(x, kernel, spec=spec)

    def input_gradient(dy, kernel):
        return bilinear.input_gradient(dy, kernel, spec=spec, size=size)

    def kernel_gradient(x, dy):
        return bilinear.kernel_gradient(x, dy, spec=spec, kernel_size=kernel_size)

    assert_adjoint(lambda x: depthwise(x, kernel), lambda y: input_gradient(y, kernel), x, dy)
    assert_adjoint(lambda k: depthwise(x, k), lambda y: kernel_gradient(x, y), kernel, dy)
    assert_adjoint(lambda y: kernel_gradient(x, y), lambda k: depthwise(x, k), dy, kernel)
    for function, values in (
        (depthwise, (x, kernel)),
        (input_gradient, (dy, kernel)),
        (kernel_gradient, (x, dy)),
    ):
        for i in range(2):

            def along(v, i=i, function=function, values=values):
                return function(*values[:i], v, *values[i + 1 :])

            out = np.asarray(along(values[i]))
            ct = np.random.default_rng(seed).standard_normal(out.shape)
            transpose = jax.linear_transpose(along, values[i])
            assert_adjoint(along, lambda y, t=transpose: t(y)[0], values[i], ct)


@pytest.mark.parametrize("seed", range(6))
def test_the_fused_convolution_is_adjoint_to_its_backward_pass(seed):
    spec, x, kernel, dy = random_case(seed)
    channels = kernel.shape[2] * kernel.shape[3]
    rng = np.random.default_rng(seed)
    pointwise, bias = rng.standard_normal((1, 1, channels, 3)), rng.standard_normal(3)
    pads = ((spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right))

    def convolve(x, kernel, pointwise, bias):
        return sepconv.jax.separable_conv2d(
            x,
            kernel,
            pointwise,
            bias,
            strides=(spec.stride_h, spec.stride_w),
            dilation_rate=(spec.dilation_h, spec.dilation_w),
            padding="same" if spec.same else pads,
            data_format=spec.data_format,
        )

    operands = (x, kernel, pointwise, bias)
    y, backward = jax.vjp(convolve, *operands)
    dy = rng.standard_normal(y.shape)
    for i, gradient in enumerate(backward(dy)):
        direction = rng.standard_normal(operands[i].shape)
        tangents = [np.zeros_like(a) for a in operands]
        tangents[i] = direction
        t = jax.jvp(convolve, operands, tuple(tangents))[1]
        scale = np.linalg.norm(t) * np.linalg.norm(dy)
        assert abs(np.vdot(t, dy) - np.vdot(direction, gradient)) <= 1e-13 * scale
