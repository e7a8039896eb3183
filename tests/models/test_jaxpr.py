"""A traced program computed by NumPy gives what XLA makes of it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("programs that JAX traced", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax import lax

import sepconv.jax
from sepconv.models import jaxpr, jaxpr_rules


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def names(program):
    """Of all operations in a program, however deep."""
    for equation in program.eqns:
        inner = jaxpr._inner(equation)
        yield equation.primitive.name
        if inner is not None:
            yield from names(inner.jaxpr)


def agree(function, *arguments, by_numpy=True):
    """Computes by both; unless told otherwise, NumPy must know every operation."""
    program = jax.make_jaxpr(function)(*arguments)
    strangers = set()
    jaxpr._find_strangers(program.jaxpr, strangers)
    assert bool(strangers) != by_numpy, strangers
    expected = jax.tree.leaves(function(*map(jnp.asarray, arguments)))
    found = jaxpr.evaluate(program, arguments)
    for a, b in zip(expected, found, strict=True):
        assert isinstance(b, np.ndarray)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    return set(names(program.jaxpr))


X = numbers(2, 8, 7, 6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.relu6(x) + jax.nn.silu(x) + jax.nn.hard_silu(x) + jax.nn.elu(x),
        lambda x: jax.nn.softplus(x) + jax.nn.leaky_relu(x) + jnp.tanh(x) + jnp.abs(x) ** 0.5,
        lambda x: jax.nn.softmax(x) + jax.nn.log_softmax(x, axis=1) + lax.rsqrt(x**2 + 1),
        lambda x: jnp.round(x * 3) + jnp.floor(x) + jnp.sign(x) + jnp.clip(x, -0.5, 0.5),
        lambda x: (x.mean(1), x.var((0, 2)), x.max(-1), x.min(), jnp.prod(x[0, 0]), x.argmax(2)),
        lambda x: ((x > 0).any(1), (x > -3).all(), jnp.where(x > 0, x, 7), jnp.isfinite(x)),
        lambda x: (jnp.concatenate([x, x[:, ::-1]], 1)[:, 1:14:3], x.T, x.reshape(4, -1)),
        lambda x: (jnp.cumsum(x, 1), lax.cumsum(x, 1, reverse=True), jnp.arange(3.0) + 1),
        lambda x: jnp.einsum("bhwc,bhwd->bwcd", x, x[..., :2]),
        lambda x: x[0, 0] @ x[1, 0].T,
        lambda x: lax.dynamic_slice(x, (1, 5, jnp.int32(9), 0), (1, 2, 3, 4)),
        lambda x: (jnp.squeeze(x[:, :1], 1), jnp.expand_dims(x, (0, 3)), jnp.tile(x, (1, 2, 1, 1))),
    ],
)
def test_operations(function):
    agree(function, X)


@pytest.mark.parametrize(
    "config", [(0, 0, 0), (2, 1, 0), (-1, 3, 0), (1, -2, 2), (-3, -1, 1), (-8, 0, 0)]
)
def test_padding(config):
    agree(lambda x: lax.pad(x, 5.0, [(0, 0, 0), config, (0, 0, 0), (0, 0, 0)]), X)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pooling(padding):
    def pool(x):
        window = (1, 3, 2, 1), (1, 2, 2, 1), padding
        return (
            lax.reduce_window(x, -jnp.inf, lax.max, *window),
            lax.reduce_window(x, 0.0, lax.add, *window),
            lax.reduce_window(x, jnp.inf, lax.min, *window, window_dilation=(1, 2, 1, 1)),
        )

    assert "reduce_window_max" in agree(pool, X)


@pytest.mark.parametrize(
    ("groups", "kernel", "arguments"),
    [
        (1, (3, 2, 6, 5), {}),
        (1, (1, 1, 6, 5), {"window_strides": (2, 3)}),
        (6, (3, 3, 1, 12), {"window_strides": (2, 2)}),
        (6, (3, 3, 1, 6), {"rhs_dilation": (2, 1)}),
        (2, (3, 3, 3, 4), {"padding": [(1, 2), (0, 3)]}),
        (3, (2, 2, 2, 9), {"padding": [(-1, 0), (2, -1)]}),
        (1, (3, 3, 6, 5), {"lhs_dilation": (2, 3), "padding": [(1, 1), (2, 2)]}),
        (1, (7, 7, 6, 40), {"padding": "SAME"}),
    ],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_convolutions(groups, kernel, arguments, layout):
    def convolve(x, k):
        return lax.conv_general_dilated(
            x,
            k,
            **{"window_strides": (1, 1), "padding": "VALID", **arguments},
            dimension_numbers=(layout, "HWIO", layout),
            feature_group_count=groups,
        )

    x = X if layout == "NHWC" else X.transpose(0, 3, 1, 2)
    agree(convolve, x, numbers(*kernel, seed=1))


def test_looking_up():
    table, at = numbers(10, 3), np.array([[0, 9], [3, 12]])
    assert "gather" in agree(lambda t, i: jnp.take(t, i, axis=0), table, at)
    agree(lambda t, i: jnp.take(t, i, axis=1, mode="clip"), table, at)
    agree(lambda x: x[1, :, np.array([0, 3, 5])], X)


def test_a_place_does_not_matter():
    assert "device_put" in agree(lambda x: jax.device_put(x) + 1, X)


def test_sepconvs_own_operations():
    depthwise, pointwise = numbers(3, 3, 6, 2, seed=1), numbers(1, 1, 12, 5, seed=2)
    bias = numbers(5, seed=3)

    def compute(x, depthwise, pointwise, bias):
        y = sepconv.jax.separable_conv2d(
            x, depthwise, pointwise, bias, padding="same", activation="relu"
        )
        z = sepconv.jax.depthwise_conv2d(x, depthwise, strides=2)
        return (
            y,
            z,
            sepconv.jax.fused_conv2d(
                x, depthwise, pointwise, bias=bias, activation="silu", residual=y, padding="same"
            ),
        )

    assert "sepconv_forward" in agree(compute, X, depthwise, pointwise, bias)


def test_what_numpy_does_not_know_jax_computes():
    agree(lambda x: jnp.sort(x) + lax.erf(x), X, by_numpy=False)
    agree(lambda x: lax.scan(lambda a, b: (a + b, a * b), x[0], x), X, by_numpy=False)
    agree(lambda x: jax.random.normal(jax.random.key(3), (4,)) + x[0, 0, 0, 0], X, by_numpy=False)
    half = X.astype(jnp.bfloat16)
    program = jax.make_jaxpr(lambda x: jnp.exp(x) * 2)(half)
    assert jaxpr_rules.rule("exp", {}, program.jaxpr.invars) is np.exp
    assert jaxpr._rule(program.jaxpr.eqns[0]) is None


def test_many_unknown_operations_are_compiled_together(monkeypatch):
    def alone(*_):
        raise AssertionError("compiled by itself")

    monkeypatch.setattr(jaxpr, "_apply_by_jax", alone)

    def many(x):
        for i in range(jaxpr._MOST_COMPILED + 1):
            x = jnp.sort(x[..., : 6 - i % 3], axis=i % 4) + i
        for axis in range(4):
            x = jnp.sort(jnp.concatenate([x, x], axis), axis)
        return x

    agree(many, X, by_numpy=False)
