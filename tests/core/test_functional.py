"""NumPy: values and gradients against the float64 reference, on 2,000 random convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.configurations import Configuration, assert_near, configurations
from hypothesis import given, settings
from hypothesis import strategies as st

import sepconv
from sepconv import reference

CHUNKS, CHUNK = 100, 20


def _check(c: Configuration) -> None:
    arrays = c.arrays()
    kernels = [a for name, a in arrays.items() if name != "bias"]
    kind = "depthwise" if c.filters is None else "separable"
    y = getattr(sepconv, f"{kind}_conv2d")(*arrays.values(), activation=c.activation, **c.options)
    assert y.dtype == c.dtype
    expected = getattr(reference, f"{kind}_conv2d")(
        *arrays.values(), activation=c.activation, **c.options
    )
    assert_near(y, expected, c.dtype, c)
    dy = c.gradient(y.shape)
    grads = getattr(sepconv, f"{kind}_conv2d_grad")(*kernels, dy, **c.options)
    others = getattr(reference, f"{kind}_conv2d_grad")(*kernels, dy, **c.options)
    for name, grad, other in zip(grads._fields, grads, others, strict=True):
        assert grad.dtype == c.dtype
        assert_near(grad, other, c.dtype, (name, c))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_configurations(chunk):
    for c in configurations(CHUNK, seed=chunk):
        _check(c)


def _large(size, channels, kernel, multiplier=1, filters=None, batch=1, **more):
    values = {
        "strides": (1, 1),
        "padding": "same",
        "dilation_rate": (1, 1),
        "data_format": "channels_last",
        "dtype": "float32",
        "bias": True,
        "activation": "relu",
        "seed": 11,
    } | more
    return Configuration(batch, size, channels, kernel, multiplier, filters, **values)


LARGE = [
    _large((28, 28), 64, (k, k), filters=f, strides=s, data_format=d)
    for k in (3, 5)
    for f, s in ((None, (1, 1)), (64, (2, 2)), (96, (1, 2)))
    for d in ("channels_last", "channels_first")
] + [
    _large((14, 14), 128, (7, 7), filters=40),
    _large((28, 28), 64, (31, 31), batch=1),
    _large((28, 27), 72, (3, 3), filters=129, batch=2),
    _large((19, 19), 91, (3, 3), filters=64, dtype="float64"),
    _large((28, 28), 64, (3, 3), dilation_rate=(2, 4), filters=64),
    _large((28, 28), 96, (5, 5), strides=(2, 2), dilation_rate=(2, 2), filters=24),
    _large((33, 31), 64, (3, 5), multiplier=2, filters=48),
    # EEGNet: over the electrodes with a depth multiplier, then along time.
    _large((22, 64), 8, (22, 1), multiplier=2, padding="valid", activation=None, batch=2),
    _large((1, 64), 16, (1, 16), filters=16, activation=None, batch=4),
    _large(
        (8, 22, 64)[1:], 8, (22, 1), multiplier=2, padding="valid", data_format="channels_first"
    ),
    _large((1, 257), 16, (1, 16), filters=16, batch=2, data_format="channels_first"),
    _large((1, 500), 64, (1, 31), dilation_rate=(1, 3), filters=65),
]


@pytest.mark.parametrize("c", LARGE, ids=range(len(LARGE)))
def test_large_shapes(c):
    _check(c)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.integers(1, 20),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    multiplier=st.integers(1, 3),
    filters=st.one_of(st.none(), st.integers(1, 20)),
    batch=st.integers(0, 2),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation_rate=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(
        st.sampled_from(["same", "valid"]),
        st.tuples(*[st.tuples(st.integers(0, 8), st.integers(0, 8))] * 2),
    ),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_configuration(**values):
    c = Configuration(**values, bias=True, activation=None, seed=0)
    if c.has_output():
        _check(c)
    else:
        with pytest.raises(ValueError, match="The output would be empty"):
            sepconv.depthwise_conv2d(*list(c.arrays().values())[:2], **c.options)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same", "causal", (3, 1)])
@pytest.mark.parametrize(("strides", "dilation_rate"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_one_dimension(data_format, padding, strides, dilation_rate):
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 11, 3))
    kernel, pointwise = random.standard_normal((3, 3, 2)), random.standard_normal((1, 6, 4))
    bias, pads = random.standard_normal(4), padding
    if padding == "causal":
        pads = ((0, 0), (2 * dilation_rate, 0))
    elif not isinstance(padding, str):
        pads = ((0, 0), padding)
    options = {"strides": (1, strides), "dilation_rate": (1, dilation_rate), "padding": pads}
    expected = reference.separable_conv2d(
        x[:, None], kernel[None], pointwise[None], bias, **options
    )
    dy = random.standard_normal(expected.shape)
    others = reference.separable_conv2d_grad(
        x[:, None], kernel[None], pointwise[None], dy, **options
    )
    middle = reference.depthwise_conv2d(x[:, None], kernel[None], **options)
    dmiddle = random.standard_normal(middle.shape)
    depthwise_others = reference.depthwise_conv2d_grad(x[:, None], kernel[None], dmiddle, **options)

    def layout(a):
        return a[:, 0] if data_format == "channels_last" else a[:, 0].transpose(0, 2, 1)

    one = {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "data_format": data_format,
    }
    x = layout(x[:, None])
    y = sepconv.separable_conv1d(x, kernel, pointwise, bias, **one)
    assert_near(y, layout(expected), "float64")
    out = np.empty_like(y)
    assert np.shares_memory(
        sepconv.separable_conv1d(x, kernel, pointwise, bias, out=out, **one), out
    )
    assert np.array_equal(out, y)
    assert_near(sepconv.depthwise_conv1d(x, kernel, **one), layout(middle), "float64")
    grads = sepconv.separable_conv1d_grad(x, kernel, pointwise, layout(dy), **one)
    assert_near(grads.x, layout(others.x), "float64")
    assert_near(grads.depthwise_kernel, others.depthwise_kernel[0], "float64")
    assert_near(grads.pointwise_kernel, others.pointwise_kernel[0], "float64")
    assert_near(grads.bias, others.bias, "float64")
    grads = sepconv.depthwise_conv1d_grad(x, kernel, layout(dmiddle), **one)
    assert_near(grads.x, layout(depthwise_others.x), "float64")
    assert_near(grads.depthwise_kernel, depthwise_others.depthwise_kernel[0], "float64")


def test_causal_outputs_see_no_later_input():
    x = np.zeros((1, 8, 1))
    x[0, 5] = 1
    y = sepconv.depthwise_conv1d(x, np.ones((3, 1, 1)), padding="causal", dilation_rate=2)
    assert y.shape == x.shape
    assert np.flatnonzero(y).tolist() == [5, 7]


# --- how arrays come in and go out -----------------------------------------------------------


def _arrays(dtype="float32"):
    random = np.random.default_rng(3)
    shapes = (2, 6, 5, 3), (3, 2, 3, 2), (1, 1, 6, 4), (4,)
    return [random.standard_normal(s).astype(dtype) for s in shapes]


def test_out_is_written_and_returned():
    arrays = _arrays()
    expected = sepconv.separable_conv2d(*arrays)
    out = np.full_like(expected, np.nan)
    assert sepconv.separable_conv2d(*arrays, out=out) is out
    assert np.array_equal(out, expected)
    one = sepconv.depthwise_conv2d(*arrays[:2])
    out = np.full_like(one, np.nan)
    assert sepconv.depthwise_conv2d(*arrays[:2], out=out) is out
    assert np.array_equal(out, one)


class _OnlyDLPack:
    """An array that offers nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_arrays():
    arrays = _arrays()
    expected = sepconv.separable_conv2d(*arrays)
    assert np.array_equal(sepconv.separable_conv2d(*map(_OnlyDLPack, arrays)), expected)
    dy = np.ones_like(expected)
    grads = sepconv.separable_conv2d_grad(*map(_OnlyDLPack, (*arrays[:3], dy)))
    for grad, other in zip(grads, sepconv.separable_conv2d_grad(*arrays[:3], dy), strict=True):
        assert np.array_equal(grad, other)


def test_lists_take_the_dtype_of_x():
    x = np.ones((1, 2, 2, 1), "float32")
    y = sepconv.depthwise_conv2d(x, [[[[2.0]]]], [1.0])
    assert y.dtype == np.float32
    assert np.array_equal(y, np.full((1, 2, 2, 1), 3, "float32"))


def _strided(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _unaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    "change",
    [
        _strided,
        np.asfortranarray,
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.astype(a.dtype.newbyteorder()),
        _unaligned,
        _read_only,
    ],
    ids=["strided", "Fortran", "reversed", "byte-swapped", "unaligned", "read-only"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_any_memory_give_the_same(change, dtype):
    arrays = _arrays(dtype)
    changed = [change(a) for a in arrays]
    expected = sepconv.separable_conv2d(*arrays)
    y = sepconv.separable_conv2d(*changed)
    assert y.dtype == np.dtype(dtype)
    assert y.dtype.isnative
    assert np.array_equal(y, expected)
    dy = np.arange(y.size, dtype=dtype).reshape(y.shape)
    grads = sepconv.separable_conv2d_grad(*changed[:3], change(dy))
    for grad, other in zip(grads, sepconv.separable_conv2d_grad(*arrays[:3], dy), strict=True):
        assert np.array_equal(grad, other)


def test_inputs_are_not_written_to():
    arrays = _arrays()
    copies = [a.copy() for a in arrays]
    y = sepconv.separable_conv2d(*arrays, activation="relu")
    sepconv.separable_conv2d_grad(*arrays[:3], y)
    assert all(np.array_equal(a, c) for a, c in zip(arrays, copies, strict=True))


def test_not_a_number_and_infinity_pass_through():
    x = np.ones((1, 3, 3, 1), "float32")
    x[0, 0, 0] = np.nan
    x[0, 2, 2] = np.inf
    y = sepconv.depthwise_conv2d(x, np.ones((2, 2, 1, 1), "float32"))[0, :, :, 0]
    assert np.isnan(y[0, 0])
    assert y[1, 1] == np.inf
    assert y[0, 1] == y[1, 0] == 4
