"""Derivatives of sepconv.jax of every order and kind, and under JAX's other transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configurations import normal
from jax import lax
from jax.test_util import check_grads

import sepconv.jax

pytestmark = pytest.mark.usefixtures("x64")

OPTIONS = {"strides": (2, 1), "dilation_rate": (1, 2), "padding": ((1, 0), (2, 1))}


def operands(data_format="channels_last"):
    x = normal(0, 2, 5, 4, 3)
    if data_format == "channels_first":
        x = x.transpose(0, 3, 1, 2)
    return x, normal(1, 2, 2, 3, 2), normal(2, 1, 1, 6, 4), normal(3, 4)


def stock(x, kernel, pointwise, bias):
    y = lax.conv_general_dilated(
        x,
        kernel.reshape(2, 2, 1, 6),
        OPTIONS["strides"],
        OPTIONS["padding"],
        rhs_dilation=OPTIONS["dilation_rate"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    return y @ pointwise[0, 0] + bias


def ours(x, kernel, pointwise, bias):
    return sepconv.jax.separable_conv2d(x, kernel, pointwise, bias, **OPTIONS)


def close(found, expected, tolerance=1e-11):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", [None, "relu6"])
def test_separable_against_finite_differences_twice(data_format, activation):
    def function(*arrays):
        return sepconv.jax.separable_conv2d(
            *arrays, data_format=data_format, activation=activation, **OPTIONS
        )

    check_grads(function, operands(data_format), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("bias", [None, normal(3, 6)])
def test_depthwise_against_finite_differences_twice(bias):
    x, kernel, _, _ = operands()

    def function(x, kernel):
        return sepconv.jax.depthwise_conv2d(x, kernel, bias, padding="same", strides=2)

    check_grads(function, (x, kernel), order=2, modes=("fwd", "rev"))


def test_third_order():
    x, kernel, pointwise, bias = operands()
    check_grads(lambda k, p: ours(x, k, p, bias) ** 2, (kernel, pointwise), 3, modes=("rev",))


def along(function):
    """A function of one number that goes through every operand, with no derivative that is zero."""
    arrays, directions = operands(), [normal(i, *a.shape) for i, a in enumerate(operands(), 7)]

    def of(t):
        moved = [a + jnp.sin(t) * d for a, d in zip(arrays, directions, strict=True)]
        return jnp.sin(function(*moved)).sum()

    return of


def test_jit_of_grad_of_grad_equals_stock():
    first, second = (jax.jit(jax.grad(jax.grad(along(f)))) for f in (ours, stock))
    close(first(0.3), second(0.3))
    first, second = (jax.jit(jax.grad(jax.grad(jax.grad(along(f))))) for f in (ours, stock))
    close(first(0.3), second(0.3), 1e-10)


@pytest.mark.parametrize("argument", range(4))
def test_hessian_vector_products_equal_stock(argument):
    arrays, v = operands(), normal(9, *operands()[argument].shape)

    def products(function):
        def loss(*arrays):
            return jnp.sin(function(*arrays)).sum()

        def gradient(value):
            moved = [*arrays[:argument], value, *arrays[argument + 1 :]]
            return jax.grad(loss, (0, 1, 2, 3))(*moved)

        def reverse(value):
            return jax.grad(lambda a: jnp.vdot(jax.grad(loss, argument)(*a), v))(value)

        over = jax.jvp(gradient, (arrays[argument],), (v,))[1]
        return over, reverse(arrays)

    close(jax.jit(lambda: products(ours))(), jax.jit(lambda: products(stock))())


@pytest.mark.parametrize("arguments", [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (2, 3)])
def test_jvp_and_vjp_along_some_operands(arguments):
    arrays = operands()

    def partial(function):
        def of(*values):
            moved = list(arrays)
            for i, value in zip(arguments, values, strict=True):
                moved[i] = value
            return function(*moved)

        values = [arrays[i] for i in arguments]
        tangents = [normal(i, *a.shape) for i, a in enumerate(values, 5)]
        y, t = jax.jvp(of, values, tangents)
        again, backward = jax.vjp(of, *values)
        _, linear = jax.linearize(of, *values)
        # The cotangent of a cotangent: the backward pass transposed.
        there_and_back = jax.linear_transpose(backward, y)(backward(y))
        return y, t, again, backward(y), linear(*tangents), there_and_back

    close(partial(ours), partial(stock))


def test_jacobians():
    x, kernel, pointwise, bias = operands()
    for mode in (jax.jacfwd, jax.jacrev):
        for argument in range(4):
            found, expected = (mode(f, argument)(x, kernel, pointwise, bias) for f in (ours, stock))
            close(found, expected)


def test_linear_transpose():
    x, kernel, pointwise, bias = operands()
    y = normal(5, *ours(*operands()).shape)

    def no_bias(function):
        return lambda x: function(x, kernel, pointwise, 0 * bias)

    def linear(x):
        return sepconv.jax.separable_conv2d(x, kernel, pointwise, **OPTIONS)

    close(jax.linear_transpose(linear, x)(y), jax.vjp(no_bias(stock), x)[1](y))
    with pytest.raises(NotImplementedError, match="not linear"):
        jax.linear_transpose(lambda x: ours(x, kernel, pointwise, bias), x)(y)


def test_only_wanted_gradients_are_asked_for():
    arrays = operands()
    program = str(jax.make_jaxpr(jax.grad(lambda *a: ours(*a).sum(), 1))(*arrays))
    assert "wanted=(False, True, False, False)" in program
    assert "sepconv_tangent" not in program


def test_scan_and_checkpoint():
    x, kernel = normal(0, 2, 6, 6, 3), normal(1, 3, 3, 3, 1) / 3
    pointwise = normal(2, 4, 1, 1, 3, 3) / 3

    def block(x, pointwise):
        return sepconv.jax.separable_conv2d(x, kernel, pointwise, padding="same", activation="relu")

    @jax.jit
    def scanned(x, pointwise):
        body = jax.checkpoint(lambda x, p: (block(x, p), None))
        return lax.scan(body, x, pointwise)[0].sum()

    def unrolled(x, pointwise):
        for p in pointwise:
            x = block(x, p)
        return x.sum()

    found = jax.value_and_grad(scanned, (0, 1))(x, pointwise)
    close(found, jax.value_and_grad(unrolled, (0, 1))(x, pointwise))


def test_cond_and_no_jit():
    arrays = operands()
    branch = jax.jit(lambda flag, *a: lax.cond(flag, ours, lambda *a: -ours(*a), *a))
    close(branch(False, *arrays), -stock(*arrays))
    with jax.disable_jit():
        close(
            jax.grad(lambda *a: ours(*a).sum())(*arrays),
            jax.grad(lambda *a: stock(*a).sum())(*arrays),
        )
