"""vmap of sepconv.jax over inputs, over kernels and over both, against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configurations import normal

import sepconv.jax
from sepconv.engines.jax import composed as bilinear
from sepconv.geometry import conv_spec

pytestmark = pytest.mark.usefixtures("x64")

COUNT = 3


def assert_equal_to_a_loop(function, arrays, axes):
    """Holds jit(vmap(function)) against `function` called once for each of what is mapped over."""

    def one(i):
        taken = [
            a if axis is None else np.take(a, i, axis) for a, axis in zip(arrays, axes, strict=True)
        ]
        return function(*taken)

    loop = jax.tree.map(lambda *values: jnp.stack(values), *map(one, range(COUNT)))
    together = jax.jit(jax.vmap(function, axes))(*arrays)
    for found, expected in zip(jax.tree.leaves(together), jax.tree.leaves(loop), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def mapped(shape, axis, seed):
    if axis is None:
        return normal(seed, *shape)
    return normal(seed, *shape[:axis], COUNT, *shape[axis:])


FORMATS = ["channels_last", "channels_first"]


def shapes(data_format):
    first = data_format == "channels_first"
    x = (2, 4, 7, 6) if first else (2, 7, 6, 4)
    y = (2, 8, 4, 5) if first else (2, 4, 5, 8)
    return x, (3, 2, 4, 2), y


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (2, None), (None, 3), (4, 1)])
def test_bilinear_primitives(axes, data_format):
    spec = conv_spec((2, 1), ((1, 1), (0, 0)), 1, data_format)
    x, kernel, y = shapes(data_format)
    size = bilinear.spatial_size(x, spec)
    cases = [
        (x, kernel, lambda x, k: bilinear.depthwise(x, k, spec=spec)),
        (y, kernel, lambda y, k: bilinear.input_gradient(y, k, spec=spec, size=size)),
        (x, y, lambda x, y: bilinear.kernel_gradient(x, y, spec=spec, kernel_size=(3, 2))),
    ]
    for left, right, function in cases:
        arrays = [mapped(left, axes[0], 0), mapped(right, axes[1], 1)]
        assert_equal_to_a_loop(function, arrays, axes)


AXES = [
    (0, None, None, None),
    (1, None, None, None),
    (None, 0, None, None),
    (None, None, 0, None),
    (None, None, None, 0),
    (None, 4, 2, 1),
    (0, 0, 0, 0),
]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("axes", AXES)
def test_separable_convolution_and_its_gradients(axes, data_format):
    x, kernel, _ = shapes(data_format)
    operands = (x, kernel, (1, 1, 8, 5), (5,))
    arrays = [mapped(s, a, i) for i, (s, a) in enumerate(zip(operands, axes, strict=True))]

    def forward(x, kernel, pointwise, bias):
        return sepconv.jax.separable_conv2d(
            x, kernel, pointwise, bias, strides=(2, 1), data_format=data_format, activation="relu"
        )

    def loss(*operands):
        return jnp.sin(forward(*operands)).sum()

    assert_equal_to_a_loop(forward, arrays, axes)
    assert_equal_to_a_loop(jax.grad(loss, (0, 1, 2, 3)), arrays, axes)
    assert_equal_to_a_loop(jax.grad(loss), arrays, axes)


def test_nested_over_inputs_and_kernels():
    x, kernels = normal(0, 5, 2, 6, 6, 3), normal(1, 4, 3, 3, 3, 1)
    pairs = jax.vmap(jax.vmap(sepconv.jax.depthwise_conv2d, (None, 0)), (0, None))(x, kernels)
    assert pairs.shape == (5, 4, 2, 4, 4, 3)
    expected = sepconv.jax.depthwise_conv2d(x[3], kernels[2])
    np.testing.assert_allclose(pairs[3, 2], expected, rtol=1e-12)


def test_over_no_inputs():
    x = np.zeros((0, 2, 6, 6, 3))
    y = jax.vmap(sepconv.jax.depthwise_conv2d, (0, None))(x, normal(1, 3, 3, 3, 1))
    assert y.shape == (0, 2, 4, 4, 3)


def test_shared_operands_are_not_copied():
    """Over inputs one call over a larger batch; over kernels one call over the x that there is."""
    x, kernels = normal(0, 2, 6, 6, 3), normal(1, 4, 3, 3, 3, 1)
    over_kernels = jax.make_jaxpr(jax.vmap(sepconv.jax.depthwise_conv2d, (None, 0)))(x, kernels)
    (call,) = [e for e in over_kernels.eqns if e.primitive.name == "sepconv_depthwise"]
    assert call.invars[0].aval.shape == x.shape
    over_inputs = jax.make_jaxpr(jax.vmap(sepconv.jax.depthwise_conv2d, (0, None)))(
        normal(2, 5, *x.shape), kernels[0]
    )
    (call,) = [e for e in over_inputs.eqns if e.primitive.name == "sepconv_forward"]
    assert call.invars[0].aval.shape == (10, 6, 6, 3)


def test_per_example_gradients():
    x, kernel, pointwise = normal(0, 4, 6, 6, 3), normal(1, 3, 3, 3, 1), normal(2, 1, 1, 3, 5)

    def loss(kernel, pointwise, image):
        return (sepconv.jax.separable_conv2d(image[None], kernel, pointwise) ** 2).sum()

    each = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, None, 0)))(kernel, pointwise, x)
    whole = jax.grad(lambda k, p: sum(loss(k, p, image) for image in x), (0, 1))(kernel, pointwise)
    for found, expected in zip(each, whole, strict=True):
        np.testing.assert_allclose(found.sum(0), expected, rtol=1e-11)
