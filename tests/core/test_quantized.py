"""`prepare_conv2d` of int8: the bits of the reference, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sepconv
from sepconv import Quantization, reference

TABLES = ("silu", "hard_silu")
ACTIVATIONS = (None, "relu", "relu6", *TABLES)


def _drawn(seed: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray | None]:
    """Random arguments, an input, and maybe a residual."""
    draw = np.random.default_rng(seed)

    def choice(values: Any) -> Any:
        return values[int(draw.integers(len(values)))]

    def point(scale: float) -> tuple[float, int]:
        return float(draw.uniform(0.5, 2) * scale), choice((0, 255, int(draw.integers(256))))

    def whole(*shape: int) -> np.ndarray:
        return draw.integers(-127, 128, shape).astype(np.int8)

    kind = choice(("depthwise", "separable", "ordinary", "pointwise"))
    channels, filters = choice((1, 3, 16, 24, 64)), choice((1, 5, 17, 64))
    multiplier = choice((1, 1, 2)) if kind in ("depthwise", "separable") else 1
    size = 1 if kind == "pointwise" else choice((2, 3, 5))
    stride = choice((1, 1, 2, 3))
    given: dict[str, Any] = {
        "strides": stride,
        "dilation_rate": 1 if stride > 1 else choice((1, 1, 2)),
        "padding": choice(("same", "valid", ((1, 0), (0, 2)) if size > 1 else "valid")),
        "data_format": choice(("channels_last", "channels_last", "channels_first")),
        "activation": choice(ACTIVATIONS),
    }
    of: dict[str, Any] = {"input": point(0.02), "output": point(0.02)}
    of["dtype"] = choice(("uint8", "uint8", "float32"))
    products, middle = size * size * channels, channels * multiplier
    if kind in ("depthwise", "separable"):
        given["depthwise_kernel"] = whole(size, size, channels, multiplier)
        products = size * size
    if kind != "depthwise":
        last = (1, 1, middle) if kind == "separable" else (size, size, channels)
        given["pointwise_kernel"] = whole(*last, filters)
    if kind == "separable":
        given["depthwise_activation"] = choice(ACTIVATIONS)
        of["between"] = point(0.02)
        of["depthwise_kernel_scale"] = draw.uniform(0.5, 2, middle) / (60 * products**0.5)
        given["depthwise_bias"] = choice((None, draw.integers(-5000, 5000, middle, np.int32)))
        products = middle
        if given["depthwise_activation"] in TABLES:
            of["before_depthwise_activation"] = point(0.04)
    outputs = middle if kind == "depthwise" else filters
    scale = draw.uniform(0.5, 2, outputs) / (60 * products**0.5)
    of["kernel_scale"] = choice((scale, float(scale[0])))
    given["bias"] = choice((None, draw.integers(-5000, 5000, outputs, np.int32)))
    if given["activation"] in TABLES:
        of["before_activation"] = point(0.04)
    space = draw.integers(9, 14, 2).tolist()
    shape = (
        (2, channels, *space) if given["data_format"] == "channels_first" else (2, *space, channels)
    )
    x, residual = draw.integers(0, 256, shape).astype(np.uint8), None
    given["quantization"] = Quantization(**of)
    if kind != "depthwise" and draw.integers(2):
        given["quantization"] = given["quantization"]._replace(residual=point(0.02))
        plain = reference.quantized_conv2d(x, **given)
        residual = draw.integers(0, 256, plain.shape).astype(np.uint8)
    return given, x, residual


@pytest.mark.parametrize("part", range(4))
def test_the_references_bits(part: int) -> None:
    seen = set()
    for seed in range(60 * part, 60 * part + 60):
        given, x, residual = _drawn(seed)
        expected = reference.quantized_conv2d(x, residual=residual, **given)
        convolve = sepconv.prepare_conv2d(**given)
        found = convolve(x, residual)
        assert found.dtype == expected.dtype == convolve.dtype == given["quantization"].dtype
        np.testing.assert_array_equal(found, expected, strict=True, err_msg=str(seed))
        out = np.zeros_like(expected)
        assert convolve(x, residual, out=out) is out
        np.testing.assert_array_equal(out, expected)
        seen |= set(np.unique(expected).tolist())
    assert len(seen) > 200


def test_it_is_what_the_floats_say() -> None:
    """Within the roundings of x, of weights and of the result, of the convolution in float."""
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, (1, 9, 9, 8)).astype(np.float32)
    kernel = draw.uniform(-1, 1, (3, 3, 8, 4)).astype(np.float32)
    bias = draw.uniform(-1, 1, 4).astype(np.float32)
    scale = np.abs(kernel).max((0, 1, 2)) / 127
    of = Quantization((1 / 127, 128), (0.1, 0), scale, dtype="float32")
    convolve = sepconv.prepare_conv2d(
        pointwise_kernel=np.rint(kernel / scale).astype(np.int8),
        bias=np.rint(bias / (scale / 127)).astype(np.int32),
        activation="relu",
        padding="same",
        quantization=of,
    )
    q = (np.rint(x * 127) + 128).astype(np.uint8)
    expected = sepconv.fused_conv2d(x, None, kernel, bias=bias, activation="relu", padding="same")
    np.testing.assert_allclose(convolve(q), expected, atol=0.2)
    assert expected.max() > 3


def test_a_call_leaves_what_it_was_made_of() -> None:
    kernel = np.full((1, 1, 2, 1), 100, np.int8)
    of = Quantization((0.5, 10), (2.0, 0), 0.02)
    convolve = sepconv.prepare_conv2d(pointwise_kernel=kernel, quantization=of)
    kernel[:] = 0
    x = np.full((1, 1, 1, 2), 18, np.uint8)
    assert convolve(x).tolist() == [[[[8]]]]
    assert convolve(x[:0]).shape == (0, 1, 1, 1)


KERNEL = np.ones((3, 3, 4, 1), np.int8)
MIXING = np.ones((1, 1, 4, 5), np.int8)
OF = Quantization(input=(0.1, 3), output=(0.2, 0), kernel_scale=0.01)
BOTH = OF._replace(between=(0.1, 0), depthwise_kernel_scale=0.1)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"quantization": (1, 2)}, TypeError, "must be a sepconv.Quantization. Received: tuple"),
        ({"quantization": OF._replace(input=0.1)}, TypeError, r"quantization.input must be a pair"),
        ({"quantization": OF._replace(input=(0.0, 3))}, ValueError, "a finite scale above 0"),
        ({"quantization": OF._replace(output=(0.1, 256))}, ValueError, "a zero point of 0 to 255"),
        ({"quantization": OF._replace(output=(0.1, 0.5))}, ValueError, "a zero point of 0 to 255"),
        ({"quantization": OF._replace(kernel_scale=[1, 2])}, ValueError, r"one an output channel"),
        ({"quantization": OF._replace(kernel_scale=-1.0)}, ValueError, "finite and above 0"),
        ({"quantization": OF._replace(dtype="int8")}, ValueError, "must be 'uint8' or 'float32'"),
        ({"quantization": BOTH}, ValueError, "of a convolution with both kernels"),
        ({"quantization": OF._replace(residual=(1.0, 0))}, ValueError, "with a pointwise kernel"),
        (
            {"quantization": OF, "pointwise_kernel": MIXING},
            ValueError,
            "depthwise_kernel_scale is of a convolution with both kernels, and is needed there",
        ),
        (
            {"quantization": OF, "activation": "silu"},
            ValueError,
            "before_activation is needed for the activation 'silu'",
        ),
        (
            {"quantization": OF._replace(before_activation=(0.1, 0)), "activation": "relu"},
            ValueError,
            "of activations that are looked up, not of the activation 'relu'",
        ),
        (
            {"quantization": OF._replace(before_depthwise_activation=(0.1, 0))},
            ValueError,
            "before_depthwise_activation is of a convolution with both kernels",
        ),
        ({"quantization": OF, "activation": "tanh"}, ValueError, "activation must be one of"),
        ({"quantization": OF, "bias": np.zeros(4)}, TypeError, "bias must be int32"),
        ({"quantization": OF, "bias": np.zeros(3, np.int32)}, ValueError, "bias"),
        (
            {"quantization": OF, "depthwise_kernel": KERNEL.astype("float32")},
            TypeError,
            "depthwise_kernel must be int8 where there is a quantization",
        ),
        (
            {"quantization": OF, "bias": np.full(4, 2**31 - 1, np.int32)},
            ValueError,
            "sums of an int8 layer must stay within int32",
        ),
        ({"quantization": OF, "padding": "full"}, ValueError, "padding"),
    ],
)
def test_what_cannot_be_is_refused(given: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        sepconv.prepare_conv2d(**{"depthwise_kernel": KERNEL, **given})


def test_calls_are_checked() -> None:
    convolve = sepconv.prepare_conv2d(KERNEL, MIXING, quantization=BOTH)
    x = np.zeros((1, 5, 5, 4), np.uint8)
    with pytest.raises(TypeError, match="x must be uint8 where there is a quantization"):
        convolve(x.astype(np.float32))
    with pytest.raises(ValueError, match="channels"):
        convolve(x[..., :3])
    residual = np.zeros((1, 3, 3, 5), np.uint8)
    with pytest.raises(ValueError, match=r"there must be quantization\.residual"):
        convolve(x, residual)
    added = sepconv.prepare_conv2d(KERNEL, MIXING, quantization=BOTH._replace(residual=(1.0, 0)))
    assert added(x, residual).shape == (1, 3, 3, 5)
    with pytest.raises(ValueError, match="residual must have the shape of the output"):
        added(x, residual[:, :2])
    with pytest.raises(ValueError, match=r"of the shape .* and the dtype uint8"):
        convolve(x, out=np.zeros((1, 3, 3, 5), np.float32))
    of_four = MIXING[..., :4]
    same = sepconv.prepare_conv2d(pointwise_kernel=of_four, quantization=OF)
    with pytest.raises(ValueError, match="must not share memory"):
        same(x, out=x)
