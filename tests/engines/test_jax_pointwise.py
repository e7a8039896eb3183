"""The 1x1 convolution of JAX arrays: values, derivatives of every kind, batching, sharding."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configurations import assert_near
from jax.test_util import check_grads

from sepconv.engines.jax import pointwise as engine
from sepconv.engines.jax.composed import correlate
from sepconv.engines.jax.pointwise import pointwise
from sepconv.geometry import conv_spec

FORMATS = ("channels_last", "channels_first")


def arrays(data_format, dtype, batch=2, channels=5, filters=7, size=(3, 4)):
    rng = np.random.default_rng(0)
    shape = (
        (batch, channels, *size) if data_format == "channels_first" else (batch, *size, channels)
    )
    return [rng.standard_normal(s).astype(dtype) for s in (shape, (1, 1, channels, filters))]


def expected(x, kernel, data_format):
    if data_format == "channels_first":
        return np.einsum("nchw,cf->nfhw", x, kernel[0, 0])
    return x @ kernel[0, 0]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("channels", "filters"), [(5, 7), (64, 33), (1, 1)])
def test_values_and_gradients(x64, data_format, dtype, channels, filters):
    x, kernel = arrays(data_format, dtype, channels=channels, filters=filters)
    y, pull = jax.vjp(lambda *a: pointwise(*a, data_format=data_format), x, kernel)
    assert_near(y, expected(x, kernel, data_format), dtype)
    dy = np.cos(np.arange(y.size, dtype=dtype)).reshape(y.shape)
    dx, dkernel = pull(jnp.asarray(dy))
    assert_near(dx, expected(dy, kernel.swapaxes(2, 3), data_format), dtype)
    pixels = "nchw,nfhw->cf" if data_format == "channels_first" else "nhwc,nhwf->cf"
    assert_near(dkernel[0, 0], np.einsum(pixels, x, dy), dtype)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("channels", "filters"), [(5, 7), (64, 33)])
def test_half_types_are_summed_in_float32(x64, data_format, dtype, channels, filters):
    given = arrays(data_format, "float32", channels=channels, filters=filters)
    narrow = [jnp.asarray(a, dtype) for a in given]
    wide = [np.asarray(a, "float64") for a in narrow]
    function = lambda *a: pointwise(*a, data_format=data_format)  # noqa: E731

    def check(found, exact):
        assert found.dtype == dtype
        exact = np.asarray(exact)
        close = {"rtol": float(jnp.finfo(dtype).eps), "atol": 1e-5 * float(np.abs(exact).max())}
        np.testing.assert_allclose(np.asarray(found, "float64"), exact, **close)

    y, pull = jax.vjp(function, *narrow)
    exact, pull_exact = jax.vjp(function, *wide)
    check(y, exact)
    check(y, expected(*wide, data_format))
    dy = jnp.cos(exact).astype(dtype)
    for found, other in zip(pull(dy), pull_exact(jnp.asarray(dy, "float64")), strict=True):
        check(found, other)
    slope = lambda *a: jax.vjp(function, *a[:2])[1](a[2])[0]  # noqa: E731
    v = jnp.sin(narrow[0])
    second = jax.vjp(slope, *narrow, dy)[1](v)[1]
    other = jax.vjp(slope, *wide, jnp.asarray(dy, "float64"))[1](jnp.asarray(v, "float64"))[1]
    check(second, other)
    check(jax.vmap(function, (0, None))(narrow[0][None], narrow[1])[0], exact)


@pytest.mark.parametrize("data_format", FORMATS)
def test_derivatives_of_every_order_and_mode(x64, data_format):
    x, kernel = arrays(data_format, "float64")
    check_grads(lambda *a: jnp.sin(pointwise(*a, data_format=data_format)), (x, kernel), order=3)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (3, 1)])
def test_vmap_of_values_and_gradients(x64, data_format, axes):
    x, kernel = arrays(data_format, "float64")
    function = jax.value_and_grad(
        lambda *a: jnp.sin(pointwise(*a, data_format=data_format)).sum(), (0, 1)
    )
    mapped = [
        a if axis is None else np.stack([a, 2 * a, -a], axis)
        for a, axis in zip((x, kernel), axes, strict=True)
    ]
    found = jax.vmap(function, axes)(*mapped)
    for i in range(3):
        one = [
            a if axis is None else np.take(a, i, axis) for a, axis in zip(mapped, axes, strict=True)
        ]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(function(*one)), strict=True):
            assert_near(a[i], b, "float64")


def test_one_call_each_way():
    x, kernel = arrays("channels_last", "float32")
    gradient = jax.jit(
        lambda *a: jax.vjp(lambda *b: pointwise(*b, data_format="channels_last"), *a)[1](
            jnp.ones((2, 3, 4, 7))
        )
    )
    text = gradient.lower(x, kernel).as_text()
    assert text.count("sepconv_pointwise_backward") == 1
    assert "dot" not in text


def test_an_empty_batch(x64):
    x, kernel = arrays("channels_last", "float32", batch=0)
    y, pull = jax.vjp(lambda *a: pointwise(*a, data_format="channels_last"), x, kernel)
    assert y.shape == (0, 3, 4, 7)
    dx, dkernel = pull(y)
    assert dx.shape == x.shape
    assert not np.any(dkernel)


def test_elsewhere_it_is_composed(x64):
    for data_format, transposed in itertools.product(FORMATS, (False, True)):
        first = data_format == "channels_first"
        x, kernel = arrays(data_format, "float64")
        matrix = kernel[0, 0].T if transposed else kernel[0, 0]
        spec = conv_spec(data_format=data_format)
        y = engine._composed_product(x, matrix, spec=spec, transposed=transposed)
        assert_near(y, expected(x, kernel, data_format), "float64")
        dmatrix = correlate(x, y, spec)
        flat = [np.moveaxis(a, 1, 3) if first else np.asarray(a) for a in (x, y)]
        assert_near(dmatrix, np.einsum("nhwc,nhwf->cf", *flat), "float64")


SHARDED = """
import re
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from sepconv.engines.jax.pointwise import pointwise

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
x, kernel = rng.standard_normal((4, 3, 5, 6)), rng.standard_normal((1, 1, 6, 2))
mesh = Mesh(np.array(jax.devices()), ("data",))
xs = jax.device_put(x, NamedSharding(mesh, P("data")))
ks = jax.device_put(kernel, NamedSharding(mesh, P()))
loss = lambda x, k: jnp.sin(pointwise(x, k, data_format="channels_last")).sum()
compiled = jax.jit(jax.grad(loss, (0, 1))).lower(xs, ks).compile()
names = "all-gather|all-reduce|all-to-all|collective-permute"
found = set(re.findall(rf"({names})(?:-start)?[(]", compiled.as_text()))
assert found == {"all-reduce"}, found
dx, dk = compiled(xs, ks)
assert dx.sharding.is_equivalent_to(xs.sharding, 4)
dy = np.cos(x @ kernel[0, 0])
np.testing.assert_allclose(dx, dy @ kernel[0, 0].T, rtol=1e-11)
np.testing.assert_allclose(dk[0, 0], np.einsum("nhwc,nhwf->cf", x, dy), rtol=1e-11)
"""


def test_the_batch_stays_sharded():
    env = dict(os.environ) | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", SHARDED], check=True, env=env, timeout=120)
