"""PyTorch: the computation for other devices gives what ours gives on the CPU."""

from __future__ import annotations

import pytest
import torch
from helpers.configurations import TOLERANCE, configurations

from sepconv.engines.torch import composed
from sepconv.geometry import ACTIVATIONS, conv_spec
from sepconv.torch import depthwise_conv2d


@pytest.mark.parametrize("chunk", range(4))
def test_values(chunk):
    for c in configurations(15, seed=900 + chunk, dtypes=("float64",)):
        arrays = {k: torch.from_numpy(a) for k, a in c.arrays().items()}
        x, k, p, b = (arrays.get(n) for n in ("x", "depthwise_kernel", "pointwise_kernel", "bias"))
        spec = list(conv_spec(**c.options))
        arguments = (x, k, p, b, spec, ACTIVATIONS[c.activation])
        expected = torch.ops.sepconv.forward(*arguments)
        y = composed.forward(*arguments)
        assert y.stride() == expected.stride()
        bound = {"rtol": TOLERANCE["float64"], "atol": TOLERANCE["float64"]}
        torch.testing.assert_close(y, expected, **bound)
        dy = torch.from_numpy(c.gradient(y.shape))
        for wanted in ([True, True, p is not None, True], [False, True, False, False]):
            arguments = (x, k, p, dy, spec, wanted)
            grads = composed.backward(*arguments)
            for grad, other in zip(grads, torch.ops.sepconv.backward(*arguments), strict=True):
                assert grad.stride() == other.stride()
                torch.testing.assert_close(grad, other, **bound)


def test_the_meta_device_has_shapes():
    x, k = torch.empty(2, 9, 9, 3, device="meta"), torch.empty(3, 3, 3, 2, device="meta")
    y = depthwise_conv2d(x, k.requires_grad_(), strides=2)
    assert y.device.type == "meta"
    assert y.shape == (2, 4, 4, 6)
    y.sum().backward()
    assert k.grad.shape == k.shape
