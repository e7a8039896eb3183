"""Batch normalization of JAX arrays: values, derivatives of every kind, batching, sharding."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configurations import assert_near
from jax.test_util import check_grads

from sepconv.engines.jax import batch_norm as engine
from sepconv.engines.jax.batch_norm import batch_norm

SHAPES = [((4, 3, 5, 6), 3), ((4, 6, 3, 5), 1), ((40, 70), 1), ((3, 2, 70), 1), ((7,), 0)]

PARAMS = engine._Params(1, 1e-3)


def operands(shape, axis, dtype="float64"):
    rng = np.random.default_rng(0)
    vectors = (shape[axis],)
    return [
        (rng.standard_normal(s) + offset).astype(dtype)
        for s, offset in ((shape, 3), (vectors, 2), (vectors, 0))
    ]


def plain(x, gamma, beta, axis, epsilon=1e-3):
    others = [i for i in range(x.ndim) if i != axis]
    mean = x.mean(others, keepdims=True)
    variance = ((x - mean) ** 2).mean(others, keepdims=True)
    vector = [-1 if i == axis else 1 for i in range(x.ndim)]
    y = (x - mean) / jnp.sqrt(variance + epsilon)
    return y * gamma.reshape(vector) + beta.reshape(vector)


def expected(axis):
    return lambda *a: plain(*a, axis)


def ours(axis, epsilon=1e-3):
    return lambda *a: batch_norm(*a, axis=axis, epsilon=epsilon)[0]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients(x64, shape, axis, dtype):
    given = operands(shape, axis, dtype)
    wide = [a.astype("float64") for a in given]
    y, pull = jax.vjp(ours(axis), *given)
    other_y, other = jax.vjp(expected(axis), *wide)
    assert_near(y, other_y, dtype)
    dy = np.cos(np.arange(y.size)).reshape(shape)
    for a, b in zip(pull(jnp.asarray(dy, dtype)), other(jnp.asarray(dy)), strict=True):
        assert a.dtype == dtype
        assert_near(a, b, dtype)
    _, mean, variance = batch_norm(*given, axis=axis, epsilon=1e-3)
    others = tuple(i for i in range(len(shape)) if i != axis)
    assert_near(mean, wide[0].mean(others), dtype)
    assert_near(variance, wide[0].var(others), dtype)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_type_is_computed_in_float32(x64, shape, axis, dtype):
    x, *vectors = operands(shape, axis, "float32")
    x = jnp.asarray(x, dtype)
    narrow = x, *vectors
    wide = x.astype("float32"), *vectors
    unit = float(jnp.finfo(dtype).eps)
    dy = jnp.cos(jnp.arange(x.size).reshape(shape)).astype(dtype)

    def check(found, exact):
        assert found.dtype == dtype
        close = {"rtol": unit, "atol": unit / 100}
        np.testing.assert_allclose(found.astype("float32"), exact, **close)

    (y, mean, variance), pull = jax.vjp(lambda *a: batch_norm(*a, axis=axis, epsilon=1e-3), *narrow)
    exact, pull_exact = jax.vjp(lambda *a: batch_norm(*a, axis=axis, epsilon=1e-3), *wide)
    check(y, exact[0])
    assert mean.dtype == variance.dtype == "float32"
    assert_near(mean, exact[1], "float32")
    assert_near(variance, exact[2], "float32")
    zero = jnp.zeros_like(mean)
    dx, *rest = pull((dy, zero, zero))
    dx_exact, *others = pull_exact((dy.astype("float32"), zero, zero))
    check(dx, dx_exact)
    for a, b in zip(rest, others, strict=True):
        assert a.dtype == "float32"
        assert_near(a, b, "float32")
    tangents = dy, *map(np.cos, vectors)
    _, change = jax.jvp(ours(axis), narrow, tangents)
    _, change_exact = jax.jvp(ours(axis), wide, (dy.astype("float32"), *tangents[1:]))
    check(change, change_exact)
    mapped = jax.vmap(lambda x: ours(axis)(x, *vectors))(jnp.stack([x, 2 * x]))
    check(mapped[0], exact[0])
    composed = engine._composed_forward(*narrow, params=engine._Params(axis, 1e-3))
    check(composed[0], exact[0])
    gradients = engine._composed_gradients(
        narrow[0], narrow[1], mean, variance, dy, params=engine._Params(axis, 1e-3)
    )
    check(gradients[0], dx_exact)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4), 2), ((3, 2, 4), 1)])
def test_derivatives_of_every_order_and_mode(x64, shape, axis):
    given = operands(shape, axis)
    check_grads(lambda *a: jnp.sin(ours(axis)(*a)), given, order=2)

    def third(function):
        total = lambda *a: jnp.sin(function(*a)).sum()  # noqa: E731
        slope = lambda *a: jnp.sin(jax.grad(total)(*a)).sum()  # noqa: E731
        return jax.jacfwd(jax.grad(slope, (0, 1)), (0, 1))(*given)

    for a, b in zip(*map(jax.tree.leaves, (third(ours(axis)), third(expected(axis)))), strict=True):
        assert_near(a, b, "float64")


def test_the_statistics_carry_no_gradient(x64):
    x, gamma, beta = operands((4, 3), 1)
    composed = functools.partial(engine._composed_forward, params=PARAMS)
    for function in (functools.partial(batch_norm, axis=1, epsilon=1e-3), composed):
        change = jax.grad(lambda x, f=function: sum(a.sum() for a in f(x, gamma, beta)[1:]))(x)
        assert not np.any(change)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 0), (2, 0, None)])
def test_vmap_of_values_and_gradients(x64, axes):
    given = operands((4, 3), 1)
    function = jax.value_and_grad(lambda *a: jnp.sin(ours(1)(*a)).sum(), (0, 1, 2))
    mapped = [
        a if axis is None else np.stack([a, 2 * a, -a], axis)
        for a, axis in zip(given, axes, strict=True)
    ]
    found = jax.vmap(function, axes)(*mapped)
    for i in range(3):
        one = [
            a if axis is None else np.take(a, i, axis) for a, axis in zip(mapped, axes, strict=True)
        ]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(function(*one)), strict=True):
            assert_near(a[i], b, "float64")


def test_a_linear_transpose_of_the_gradients(x64):
    x, gamma, beta = operands((4, 3), 1)
    _, mean, variance = batch_norm(x, gamma, beta, axis=1, epsilon=1e-3)
    gradients = lambda dy: engine._gradients.bind(  # noqa: E731
        x, gamma, mean, variance, dy, params=PARAMS
    )
    tangents = np.cos(x), np.sin(gamma), np.sin(beta)
    (found,) = jax.linear_transpose(gradients, x)([jnp.asarray(t) for t in tangents])
    _, change = jax.jvp(ours(1), (x, gamma, beta), tangents)
    assert_near(found, change, "float64")


def test_our_kernels_make_the_sums():
    given = operands((4, 3, 5, 6), 3, "float32")
    gradient = jax.jit(lambda *a: jax.vjp(ours(3), *a)[1](jnp.ones((4, 3, 5, 6))))
    text = gradient.lower(*given).as_text()
    assert text.count("sepconv_moments") == 1
    assert text.count("sepconv_batch_norm_sums") == 1
    assert "reduce" not in text


SHARDED = """
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from sepconv.engines.jax.batch_norm import batch_norm

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
x, gamma, beta = rng.standard_normal((4, 3, 5, 6)), rng.standard_normal(6), rng.standard_normal(6)
mesh = Mesh(np.array(jax.devices()), ("data",))
cut, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
loss = lambda *a: jnp.sin(batch_norm(*a, axis=3, epsilon=1e-3)[0]).sum()
gradient = jax.grad(loss, (0, 1, 2))
expected = gradient(x, gamma, beta)  # on one device, by the kernels
operands = jax.device_put(x, cut), jax.device_put(gamma, whole), jax.device_put(beta, whole)
compiled = jax.jit(gradient).lower(*operands).compile()
assert "all-gather" not in compiled.as_text()
for a, b in zip(compiled(*operands), expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)  # statistics of the whole batch
"""


def test_the_statistics_of_a_sharded_batch_are_those_of_all_of_it():
    env = dict(os.environ) | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", SHARDED], check=True, env=env, timeout=120)
