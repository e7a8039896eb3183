"""Convolutions on arrays of any memory, with any numbers, and calls that make no sense.

Held by `check_valid` and `check_arbitrary`: nothing crashes, inputs are never changed, NaN and
infinities propagate as in the reference, and what cannot be computed raises an error of ours. The
tests draw a few of them, ``tests/fuzz/api.py`` as many as there is time for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from helpers.configurations import Configuration, assert_near, configurations
from sepconv import reference


class Engine(NamedTuple):
    """How an engine's functions are called with NumPy arrays."""

    #: forward(kind, arrays, options) -> NumPy array
    forward: Callable[[str, dict[str, Any], dict[str, Any]], np.ndarray]
    #: gradients(kind, arrays, dy, options) -> NumPy arrays for x, kernels and bias, in order
    gradients: Callable[[str, dict[str, Any], np.ndarray, dict[str, Any]], Sequence[np.ndarray]]
    dtypes: tuple[str, ...]
    #: what a call may raise
    errors: tuple[type[Exception], ...]


# --- memory ------------------------------------------------------------------------------------


def _strided(a: np.ndarray) -> np.ndarray:
    wide = np.zeros((*a.shape[:-1], 3 * a.shape[-1]), a.dtype)
    wide[..., 1::3] = a
    return wide[..., 1::3]


def _reversed(a: np.ndarray) -> np.ndarray:
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def _unaligned(a: np.ndarray) -> np.ndarray:
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _swapped(a: np.ndarray) -> np.ndarray:
    """In the other byte order; NumPy has none of bfloat16."""
    return a if a.dtype.kind == "V" else a.astype(a.dtype.newbyteorder())


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def _broadcast(a: np.ndarray) -> np.ndarray:
    """Zero strides: the last index of the first axis for all of it."""
    return np.broadcast_to(a[-1:], a.shape) if a.shape[0] else a


MEMORY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": np.ascontiguousarray,
    "strided": _strided,
    "reversed": _reversed,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "byte-swapped": _swapped,
    "unaligned": _unaligned,
    "read-only": _read_only,
    "broadcast": _broadcast,
    "subclass": lambda a: a.view(np.memmap) if a.size else a,
}

# --- numbers -----------------------------------------------------------------------------------

NUMBERS = {
    "ordinary": (),
    "nonfinite": (np.inf, -np.inf, np.nan, 0.0),
    "denormal": (5e-324, 1e-310, 1e-42, -1e-42, 1e-39, -6e-8, -0.0),
}


def sprinkle(array: np.ndarray, values: Sequence[float], seed: int) -> np.ndarray:
    """`array` with a few of its numbers replaced."""
    if not values or not array.size:
        return array
    random = np.random.default_rng(seed)
    array = array.copy()
    count = 1 + min(array.size // 40, 5)
    array.flat[random.integers(array.size, size=count)] = random.choice(values, count)
    return array


def assert_like_reference(actual: np.ndarray, expected: np.ndarray, dtype: str, what: Any) -> None:
    """NaN and infinities in the same places, the rest near."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, what
    assert np.array_equal(np.isnan(actual), np.isnan(expected)), f"NaN elsewhere: {what}"
    infinite = np.isinf(expected)
    assert np.array_equal(infinite, np.isinf(actual)), f"infinities elsewhere: {what}"
    assert np.array_equal(actual[infinite], expected[infinite]), f"infinities' signs: {what}"
    finite = np.isfinite(expected)
    assert_near(actual[finite], expected[finite], dtype, what)


# --- calls that make sense ---------------------------------------------------------------------


@st.composite
def valid_calls(draw: Any, dtypes: tuple[str, ...]) -> tuple[Configuration, dict[str, str], str]:
    """A convolution, the memory of each of its arrays, and the numbers in one of them."""
    seed = draw(st.integers(0, 2**31))
    (c,) = configurations(1, seed, channels=(1, 2, 3, 4, 7, 8, 17, 33), dtypes=dtypes)
    memory = {name: draw(st.sampled_from(sorted(MEMORY))) for name in ("dy", *replace(c).arrays())}
    return c, memory, draw(st.sampled_from(sorted(NUMBERS)))


def check_valid(engine: Engine, call: tuple[Configuration, dict[str, str], str]) -> None:
    """The call's results and gradients are the reference's, and its arrays as they were."""
    c, memory, numbers = call
    kind = "depthwise" if c.filters is None else "separable"
    arrays = c.arrays()
    special = ("x", "depthwise_kernel", "dy")[c.seed % 3]
    if special in arrays:
        arrays[special] = sprinkle(arrays[special], NUMBERS[numbers], c.seed)
    arrays = {name: MEMORY[memory[name]](array) for name, array in arrays.items()}
    native = {n: np.array(a, a.dtype.newbyteorder("="), order="C") for n, a in arrays.items()}
    before = {name: array.tobytes() for name, array in arrays.items()}
    with np.errstate(all="ignore"):
        y = engine.forward(kind, arrays, c.options | {"activation": c.activation})
        expected = getattr(reference, f"{kind}_conv2d")(
            *native.values(), activation=c.activation, **c.options
        )
        assert_like_reference(y, expected, c.dtype, call)
        dy = c.gradient(expected.shape)
        if special == "dy":
            dy = sprinkle(dy, NUMBERS[numbers], c.seed)
        dy = MEMORY[memory["dy"]](dy)
        dy_before = dy.tobytes()
        kernels = [a for name, a in native.items() if name != "bias"]
        others = getattr(reference, f"{kind}_conv2d_grad")(
            *kernels, np.asarray(dy, c.dtype), **c.options
        )
        grads = engine.gradients(kind, arrays, dy, c.options)
        wanted = others if c.bias else others[:-1]
        for name, grad, other in zip(arrays, grads, wanted, strict=False):
            assert_like_reference(grad, other, c.dtype, (name, call))
    assert {name: array.tobytes() for name, array in arrays.items()} == before
    assert dy.tobytes() == dy_before


# --- calls that need not make sense ------------------------------------------------------------

_SIZES = st.one_of(
    st.integers(-2, 6),
    st.integers(2**40, 2**70),
    st.sampled_from([None, 1.5, "2", True, 2.0, np.int64(2), (1,), (2, 1), [1, 2], (1, 2, 3)]),
    st.tuples(st.integers(-1, 3), st.integers(0, 3)),
)
_PADDING = st.one_of(
    st.sampled_from(["valid", "same", "SAME", "causal", "full", None, 3, (1, 2), ((1, 1),)]),
    st.tuples(*[st.tuples(*[st.one_of(st.integers(-1, 20), st.integers(2**40, 2**70))] * 2)] * 2),
)
_DTYPES = ("float32", "float32", "float64", "float16", "int32", "bool", "complex64", "O", "U3")
_SHAPES = st.lists(st.integers(0, 6), min_size=0, max_size=5)


@st.composite
def arbitrary_calls(draw: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A function's name, arrays and options, of which few calls fit together."""
    kind = draw(st.sampled_from(["depthwise", "separable"]))
    channels, multiplier = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    shapes = {
        "x": [draw(st.integers(0, 3)), *draw(st.tuples(*[st.integers(0, 8)] * 2)), channels],
        "depthwise_kernel": [*draw(st.tuples(*[st.integers(0, 4)] * 2)), channels, multiplier],
    }
    if kind == "separable":
        shapes["pointwise_kernel"] = [1, 1, channels * multiplier, draw(st.integers(0, 4))]
    if draw(st.booleans()):
        shapes["bias"] = [shapes[list(shapes)[-1]][-1] * (1 if kind == "separable" else channels)]
    dtype = draw(st.sampled_from(_DTYPES))
    arrays = {}
    for name, shape in shapes.items():
        if draw(st.integers(0, 9)) == 0:
            shape = draw(_SHAPES)
        own = draw(st.sampled_from(_DTYPES)) if draw(st.integers(0, 9)) == 0 else dtype
        array = np.ones(shape, own)
        if array.ndim and own not in ("O", "U3"):
            array = MEMORY[draw(st.sampled_from(sorted(MEMORY)))](array)
        arrays[name] = array
    options = {}
    if draw(st.booleans()):
        options["strides"] = draw(_SIZES)
    if draw(st.booleans()):
        options["dilation_rate"] = draw(_SIZES)
    if draw(st.booleans()):
        options["padding"] = draw(_PADDING)
    if draw(st.booleans()):
        formats = ["channels_last", "channels_first", "NHWC", None, 1]
        options["data_format"] = draw(st.sampled_from(formats))
    if draw(st.booleans()):
        options["activation"] = draw(st.sampled_from([None, "relu", "relu6", "tanh", 3, []]))
    return kind, arrays, options


def check_arbitrary(engine: Engine, call: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    """The call returns or raises one of the engine's errors, and leaves its arrays as they were."""
    kind, arrays, options = call
    before = {name: array.tobytes() for name, array in arrays.items()}
    try:
        y = engine.forward(kind, arrays, options)
        dy = np.ones(y.shape, y.dtype)
        options = {name: value for name, value in options.items() if name != "activation"}
        engine.gradients(kind, arrays, dy, options)
    except engine.errors as error:
        if not str(error):
            raise AssertionError("an error without a message") from error
    assert {name: array.tobytes() for name, array in arrays.items()} == before
