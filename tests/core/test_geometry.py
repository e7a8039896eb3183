"""Geometry: specs, output sizes, padding, and the message of every error."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv import geometry
from sepconv.geometry import conv_spec, conv_spec_1d, resolve

X, KERNEL = (1, 8, 9, 3), (3, 3, 3, 2)


def test_spec_holds_ten_integers_in_order():
    spec = conv_spec((2, 3), ((1, 2), (3, 4)), (5, 6), "channels_first")
    assert tuple(spec) == (2, 3, 5, 6, 0, 1, 2, 3, 4, 1)
    assert spec.data_format == "channels_first"
    assert tuple(conv_spec()) == (1, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    assert conv_spec(padding="SAME").same == 1


def test_equal_arguments_give_equal_specs():
    spec = conv_spec([2, 1], [[1, 0], [0, 1]], (1, 1))
    assert spec == conv_spec((2, 1), ((1, 0), (0, 1)), 1)
    assert hash(spec) == hash(conv_spec((2, 1), ((1, 0), (0, 1)), 1))
    assert spec == geometry.build_spec([2, 1], [[1, 0], [0, 1]], (1, 1), "channels_last")
    assert conv_spec(np.int64(2), ((np.int32(1), 1), (1, 1))) == conv_spec(2, ((1, 1), (1, 1)))


def test_one_dimension():
    assert conv_spec_1d(4, padding="causal", dilation_rate=3).pad_left == 9
    assert conv_spec_1d(4, padding="causal").pad_right == 0
    assert conv_spec_1d(3, 2, (1, 5)) == conv_spec((1, 2), ((0, 0), (1, 5)))
    assert conv_spec_1d(3, (2,), ((1, 5),)) == conv_spec_1d(3, 2, (1, 5))
    assert conv_spec_1d(3, 2, "same").same == 1


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 8])
@pytest.mark.parametrize("dilation", [1, 2])
def test_sizes_and_pads(stride, kernel, dilation):
    for size in range(1, 12):
        reach = (kernel - 1) * dilation + 1
        shapes = (1, size, size, 1), (kernel, kernel, 1, 1)
        same = resolve(conv_spec(stride, "same", dilation), *shapes)
        outputs = -(-size // stride)
        assert same.output_shape(1) == (1, outputs, outputs, 1)
        (top, bottom), _ = same.pads
        total = max((outputs - 1) * stride + reach - size, 0)
        assert top == total // 2
        assert top + bottom == (outputs - 1) * stride + reach - size
        for pads in ((0, 0), (1, 0), (2, 3)):
            padded = size + sum(pads)
            spec = conv_spec(stride, (pads, pads), dilation)
            if padded < reach:
                with pytest.raises(ValueError, match="The output would be empty"):
                    resolve(spec, *shapes)
            else:
                outputs = (padded - reach) // stride + 1
                assert resolve(spec, *shapes).output_shape(7) == (1, outputs, outputs, 7)


def test_geometry_reports_its_shapes():
    spec = conv_spec((2, 1), "valid", 1, "channels_first")
    resolved = resolve(spec, (4, 3, 8, 9), KERNEL)
    assert resolved.x_shape == (4, 3, 8, 9)
    assert resolved.kernel_shape == KERNEL
    assert resolved.depthwise_channels == 6
    assert resolved.output_shape(6) == (4, 6, 3, 7)


ERRORS = [
    (lambda: conv_spec(strides=0), ValueError, r"strides must be positive\. Received: strides=0"),
    (lambda: conv_spec(strides=(1, -2)), ValueError, r"strides must be positive.*\(1, -2\)"),
    (lambda: conv_spec(strides=(1, 2, 3)), ValueError, r"strides must be an integer or 2 integers"),
    (lambda: conv_spec(strides="2"), TypeError, "strides must consist of integers"),
    (lambda: conv_spec(strides=2.0), TypeError, r"strides must consist of integers.*2\.0"),
    (lambda: conv_spec(strides=None), TypeError, "strides must consist of integers"),
    (lambda: conv_spec(strides=2**62), ValueError, "strides is too large"),
    (lambda: conv_spec(dilation_rate=0), ValueError, "dilation_rate must be positive"),
    (lambda: conv_spec(dilation_rate=(1.0, 1)), TypeError, "dilation_rate must consist of int"),
    (lambda: conv_spec(padding="full"), ValueError, "padding must be 'valid', 'same' or"),
    (lambda: conv_spec(padding="causal"), ValueError, "padding must be 'valid', 'same' or"),
    (lambda: conv_spec(padding=3), ValueError, r"padding must be .*Received: padding=3"),
    (lambda: conv_spec(padding=(1, 2)), ValueError, r"padding must be .*\(\(top, bottom\)"),
    (lambda: conv_spec(padding=((1, 2),)), ValueError, "padding must be"),
    (lambda: conv_spec(padding=((1, 2, 3), (1, 2))), ValueError, "padding must be"),
    (lambda: conv_spec(padding=((-1, 0), (0, 0))), ValueError, "of at least 0"),
    (lambda: conv_spec(padding=((2**62, 0), (0, 0))), ValueError, "padding must be"),
    (lambda: conv_spec(padding=((0.5, 0), (0, 0))), TypeError, "padding must consist of integers"),
    (lambda: conv_spec(data_format="NHWC"), ValueError, "data_format must be.*'NHWC'"),
    (lambda: conv_spec(data_format=None), ValueError, "data_format must be.*None"),
    (lambda: conv_spec_1d(3, (1, 2)), ValueError, "strides must be one integer"),
    (lambda: conv_spec_1d(3, padding="full"), ValueError, "'same', 'causal' or"),
    (lambda: conv_spec_1d(3, padding=2), ValueError, "'same', 'causal' or .left, right"),
    (lambda: conv_spec_1d(3, padding=(1, 2, 3)), ValueError, "padding must be"),
    (lambda: resolve(conv_spec(), X[1:], KERNEL), ValueError, "x must have 4 axes: .*batch"),
    (lambda: resolve(conv_spec(), X, KERNEL[1:]), ValueError, "depthwise_kernel must have 4 axes"),
    (lambda: resolve(conv_spec(), (1, 0, 9, 3), KERNEL), ValueError, "must be positive"),
    (lambda: resolve(conv_spec(), (1, 8, 9, 0), KERNEL), ValueError, "must be positive"),
    (lambda: resolve(conv_spec(), X, (0, 3, 3, 1)), ValueError, "depthwise_kernel must have pos"),
    (lambda: resolve(conv_spec(), X, (3, 3, 3, 0)), ValueError, "depthwise_kernel must have pos"),
    (
        lambda: resolve(conv_spec(), X, (3, 3, 4, 1)),
        ValueError,
        "third axis must equal.*3 channels",
    ),
    (
        lambda: resolve(conv_spec(data_format="channels_first"), X, KERNEL),
        ValueError,
        "channels_first', so 8 channels",
    ),
    (
        lambda: resolve(conv_spec(), X, (9, 3, 3, 1)),
        ValueError,
        "output would be empty.*height is 8",
    ),
    (
        lambda: resolve(conv_spec(), X, (3, 10, 3, 1)),
        ValueError,
        "output would be empty.*width is 9",
    ),
    (
        lambda: resolve(conv_spec(dilation_rate=2**61), X, (9, 1, 3, 1)),
        ValueError,
        "dilated kernel's height overflows",
    ),
    (
        lambda: resolve(conv_spec(padding=((2**61, 2**61), (0, 0))), (1, 2**62, 1, 3), KERNEL),
        ValueError,
        "overflows|memory can address",
    ),
    (
        lambda: resolve(conv_spec(), (2**40, 2**20, 3, 3), KERNEL),
        ValueError,
        "The input would have more elements than memory can address",
    ),
    (
        lambda: resolve(conv_spec(), (1, 8, 9, 2**40), (3, 3, 2**40, 2**20)),
        ValueError,
        "depthwise_kernel would have more elements",
    ),
    (
        lambda: resolve(conv_spec(padding=((2**31, 0), (2**31, 0))), (1, 3, 3, 3), KERNEL),
        ValueError,
        "The output would have more elements",
    ),
    (lambda: geometry.activation_code("gelu"), ValueError, "activation must be one of.*'gelu'"),
    (lambda: geometry.activation_code([]), ValueError, "activation must be one of"),
    (lambda: geometry.check_bias((3,), 4), ValueError, r"bias must have the shape \(4,\).*\(3,\)"),
    (
        lambda: geometry.check_pointwise_kernel((1, 1, 5, 2), 6),
        ValueError,
        r"pointwise_kernel must have the shape \(1, 1, 6, filters\)",
    ),
    (lambda: geometry.check_pointwise_kernel((1, 2, 6, 2), 6), ValueError, r"\(1, 2, 6, 2\)"),
    (lambda: geometry.check_pointwise_kernel((6, 2), 6), ValueError, "pointwise_kernel must have"),
    (lambda: geometry.check_pointwise_kernel((1, 1, 6, 0), 6), ValueError, "pointwise_kernel must"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=range(len(ERRORS)))
def test_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
