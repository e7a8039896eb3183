"""sepconv.jax.fused_conv2d: values, derivatives and batching against what it is composed of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.blocks import ARRAYS, block_of, random_block, selecting_kernel
from helpers.configurations import assert_near

import sepconv.jax
from sepconv import reference
from sepconv.engines.jax import block
from sepconv.fused import Operands


def _apply(names, options):
    return lambda *arrays: sepconv.jax.fused_conv2d(
        **dict(zip(names, arrays, strict=True)), **options
    )


@pytest.mark.parametrize("seed", range(40))
def test_values(x64, seed):
    arrays, options = random_block(seed)
    y = jax.jit(_apply(arrays, options))(*arrays.values())
    expected = reference.fused_conv2d(**arrays, **options)
    assert y.dtype == arrays["x"].dtype
    assert_near(y, expected, str(y.dtype), (seed, options))


def _composed(names, options):
    """The block in JAX's and our older, differentiable functions."""
    activations = {
        None: lambda y: y,
        "relu": jax.nn.relu,
        "relu6": jax.nn.relu6,
        "hard_silu": jax.nn.hard_silu,
        "silu": jax.nn.silu,
    }
    geometry = {k: v for k, v in options.items() if not k.endswith("activation")}
    axis = 1 if options["data_format"] == "channels_first" else 3

    def run(*arrays):
        given = dict.fromkeys(ARRAYS) | dict(zip(names, arrays, strict=True))
        y, pointwise = given["x"], given["pointwise_kernel"]
        kernel = given["depthwise_kernel"]
        if kernel is None:  # an ordinary convolution, as a depthwise one that selects
            *size, channels, filters = pointwise.shape
            kernel = jnp.asarray(selecting_kernel(*size, channels, y.dtype))
            pointwise = pointwise.transpose(2, 0, 1, 3).reshape(1, 1, -1, filters)
        bias = given["bias"] if pointwise is None else given["depthwise_bias"]
        y = sepconv.jax.depthwise_conv2d(y, kernel, bias, **geometry)
        if pointwise is not None:
            y = activations[options.get("depthwise_activation")](y)
            y = jnp.moveaxis(y, axis, 3) @ pointwise[0, 0]
            y = jnp.moveaxis(y if given["bias"] is None else y + given["bias"], 3, axis)
            y = y if given["residual"] is None else y + given["residual"]
        return activations[options["activation"]](y)

    return run


@pytest.mark.parametrize("seed", [*range(20), 23, 31, 51])
def test_gradients(x64, seed):
    arrays, options = random_block(seed, "float64")
    ours, composed = _apply(arrays, options), _composed(arrays, options)
    values = [jnp.asarray(a) for a in arrays.values()]
    y, pull = jax.vjp(ours, *values)
    dy = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
    expected, pull_composed = jax.vjp(composed, *values)
    assert_near(y, expected, "float64")
    for name, ours_, theirs in zip(arrays, pull(dy), pull_composed(dy), strict=True):
        assert_near(ours_, theirs, "float64", name)
    tangents = [jnp.sin(1 + v) for v in values]
    assert_near(
        jax.jvp(ours, values, tangents)[1], jax.jvp(composed, values, tangents)[1], "float64"
    )


@pytest.mark.parametrize("seed", range(8))
def test_vmap_over_images_is_one_call(x64, seed):
    arrays, options = random_block(seed)
    images = [name in ("x", "residual") for name in arrays]
    stacked = [np.stack([a, 2 * a, -a]) if i else a for a, i in zip(arrays.values(), images)]  # noqa: B905
    axes = tuple(0 if i else None for i in images)
    mapped = jax.vmap(_apply(arrays, options), axes)
    expected = [
        reference.fused_conv2d(
            **{n: a[i] if m else a for (n, m), a in zip(zip(arrays, images), stacked)},  # noqa: B905
            **options,
        )
        for i in range(3)
    ]
    assert_near(mapped(*stacked), np.stack(expected), str(arrays["x"].dtype))
    assert str(jax.make_jaxpr(mapped)(*stacked)).count("sepconv_forward") == 1


@pytest.mark.parametrize("seed", [0, 19])
def test_vmap_over_everything(x64, seed):
    arrays, options = random_block(seed)
    stacked = [np.stack([a, 0.5 * a]) for a in arrays.values()]
    y = jax.vmap(_apply(arrays, options))(*stacked)
    for i in range(2):
        one = {n: a[i] for n, a in zip(arrays, stacked, strict=True)}
        assert_near(y[i], reference.fused_conv2d(**one, **options), str(arrays["x"].dtype))


def test_half_types_are_computed_in_float32():
    arrays, options = random_block(0, "float32")
    half = {name: jnp.asarray(a, "bfloat16") for name, a in arrays.items()}
    y = sepconv.jax.fused_conv2d(**half, **options)
    assert y.dtype == jnp.bfloat16
    rounded = {name: np.asarray(a, "float32") for name, a in half.items()}
    expected = reference.fused_conv2d(**rounded, **options)
    assert np.abs(np.asarray(y, "float32") - expected).max() <= 0.01 * np.abs(expected).max()


def test_one_custom_call():
    x, kernel = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 8, 1))
    compiled = jax.jit(
        lambda x: sepconv.jax.fused_conv2d(
            x, kernel, jnp.ones((1, 1, 8, 8)), residual=x, padding="same", activation="silu"
        )
    )
    text = compiled.lower(x).as_text()
    assert text.count("sepconv_forward") == 1
    assert "dot" not in text


@pytest.mark.parametrize("seed", [1, 19, 23])
def test_elsewhere_it_is_composed(x64, seed):
    arrays, options = random_block(seed)
    expected = reference.fused_conv2d(**arrays, **options)
    names = Operands._fields
    given = tuple(name in arrays for name in names)
    shape = block._composed(
        *(jnp.asarray(arrays[n]) for n in names if n in arrays),
        params=block._Params(block_of(arrays, options), given),
    )
    assert_near(shape, expected, str(arrays["x"].dtype))
