"""PyTorch: wrong arguments raise before anything runs, also where an operation is called itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sepconv
from sepconv.torch import depthwise_conv1d, depthwise_conv2d, separable_conv1d, separable_conv2d

X, K, P, B = torch.ones(1, 4, 4, 2), torch.ones(3, 3, 2, 1), torch.ones(1, 1, 2, 5), torch.ones(5)

CASES = [
    (lambda: depthwise_conv2d(X[0], K), ValueError, "x must have 4 axes"),
    (lambda: depthwise_conv2d(X, K[0]), ValueError, "depthwise_kernel must have 4 axes"),
    (lambda: depthwise_conv2d(X, K[:, :, :1]), ValueError, "third axis must equal"),
    (lambda: depthwise_conv2d(X, torch.ones(5, 5, 2, 1)), ValueError, "output would be empty"),
    (lambda: depthwise_conv2d(X, K, strides=0), ValueError, "strides must be positive"),
    (lambda: depthwise_conv2d(X, K, strides=(1, 2, 3)), ValueError, "strides must be an integer"),
    (lambda: depthwise_conv2d(X, K, strides=1.5), TypeError, "strides must consist of integers"),
    (lambda: depthwise_conv2d(X, K, dilation_rate=-1), ValueError, "dilation_rate must be pos"),
    (lambda: depthwise_conv2d(X, K, padding="full"), ValueError, "padding must be 'valid'"),
    (lambda: depthwise_conv2d(X, K, padding=((0, -1), (0, 0))), ValueError, "padding must be"),
    (lambda: depthwise_conv2d(X, K, data_format="NHWC"), ValueError, "data_format must be"),
    (lambda: depthwise_conv2d(X, K, activation="gelu"), ValueError, "activation must be one"),
    (lambda: depthwise_conv2d(X, K, B), ValueError, r"bias must have the shape \(2,\)"),
    (lambda: depthwise_conv2d(X.int(), K), TypeError, "x must be of one of the dtypes"),
    (lambda: depthwise_conv2d(X, K.double()), TypeError, "depthwise_kernel must have the dtype"),
    (lambda: separable_conv2d(X, K, P.half()), TypeError, "pointwise_kernel must have the dtype"),
    (lambda: separable_conv2d(X, K, P, B.double()), TypeError, "bias must have the dtype"),
    (lambda: separable_conv2d(X, K, P[:, :, :1]), ValueError, "pointwise_kernel must have the sh"),
    (lambda: separable_conv2d(X, K, P[..., 0]), ValueError, "pointwise_kernel must have the sh"),
    (lambda: separable_conv2d(X, K, None), TypeError, "pointwise_kernel must be an array"),
    (lambda: depthwise_conv2d("image", K), TypeError, "A tensor was expected"),
    (lambda: depthwise_conv1d(X, K[0]), ValueError, "x must have 3 axes"),
    (lambda: depthwise_conv1d(X[0], K), ValueError, "depthwise_kernel must have 3 axes"),
    (lambda: separable_conv1d(X[0], K[0], P), ValueError, "pointwise_kernel must have 3 axes"),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[m for *_, m in CASES])
def test_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_messages_are_those_of_numpy():
    for kernel in (K[:, :, :1], torch.ones(5, 5, 2, 1)):
        with pytest.raises(ValueError) as ours:
            depthwise_conv2d(X, kernel)
        with pytest.raises(ValueError) as numpys:
            sepconv.depthwise_conv2d(np.asarray(X), np.asarray(kernel))
        assert str(ours.value) == str(numpys.value)


SPEC = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "arguments",
    [
        (X, K, P[:, :, :1], None, SPEC, 0),
        (X, K, P, B[:2], SPEC, 0),
        (X, K[:, :, :1], None, None, SPEC, 0),
        (X, K, None, None, SPEC[:9], 0),
        (X, K, None, None, [0, *SPEC[1:]], 0),
        (X, K, None, None, SPEC, 7),
        (X.int(), K.int(), None, None, SPEC, 0),
        (X, K.double(), None, None, SPEC, 0),
    ],
)
def test_the_operation_itself_never_reads_beyond_a_tensor(arguments):
    with pytest.raises((ValueError, TypeError)):
        torch.ops.sepconv.forward(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (X, K, P, torch.ones(1, 2, 2, 4), SPEC, [True] * 4),
        (X, K, None, torch.ones(1, 2, 2, 2), SPEC, [True] * 4),
        (X, K, P, torch.ones(1, 2, 2, 5), SPEC, [True] * 3),
        (X, K, P, torch.ones(1, 2, 2, 5).double(), SPEC, [True] * 4),
    ],
)
def test_the_gradient_itself_never_reads_beyond_a_tensor(arguments):
    with pytest.raises((ValueError, TypeError)):
        torch.ops.sepconv.backward(*arguments)
