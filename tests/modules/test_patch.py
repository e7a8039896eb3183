"""patch_torch: which calls are served, what is handed on, and how it ends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812, as everybody calls it
from helpers.torch_networks import Small, assert_close, step
from torch import nn

import sepconv

ORIGINAL = F.conv2d


@pytest.fixture(autouse=True)
def _unpatched():
    yield
    sepconv.unpatch_torch()
    assert F.conv2d is ORIGINAL


def _served(y):
    return y.grad_fn.name() in ("_DepthwiseBackward", "_ProductBackward")


def test_a_network_trains_as_stock():
    torch.manual_seed(0)
    module, x = Small(), torch.randn(3, 3, 12, 10)
    expected = step(module, x)
    with sepconv.patch_torch():
        assert _served(module.block.depthwise(torch.randn(1, 32, 5, 5)))
        assert_close(step(module, x), expected)
    assert not _served(module.block.depthwise(torch.randn(1, 32, 5, 5)))


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((8, 1, 3, 3), {"groups": 8, "padding": 1, "stride": [2, 1]}),
        ((8, 1, 4, 3), {"groups": 8, "padding": "same", "dilation": 2}),
        ((16, 1, 3, 3), {"groups": 8, "padding": "valid"}),
        ((16, 8, 1, 1), {"stride": (2,)}),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_served_calls(kernel, options):
    torch.manual_seed(0)
    x, k = torch.randn(2, 8, 9, 9), torch.randn(kernel, requires_grad=True)
    bias = torch.randn(kernel[0])
    expected = ORIGINAL(x, k, bias, **options)
    with sepconv.patch_torch():
        y = F.conv2d(x, k, bias, **options)
    assert _served(y)
    assert_close([y], [expected], 1e-5)


def test_everything_else_is_handed_on():
    x, k = torch.randn(1, 8, 6, 6), torch.randn(8, 1, 3, 3, requires_grad=True)
    with sepconv.patch_torch():
        y = F.conv2d(x, torch.randn(8, 2, 3, 3, requires_grad=True), groups=4)
        assert y.grad_fn.name().startswith("Convolution")
        assert F.conv2d(x[0], k, groups=8).shape == (8, 4, 4)
        for options in (
            {"stride": 0},
            {"padding": -1},
            {"padding": "none"},
            {"padding": "same", "stride": 2},
            {"stride": (1, 1, 1)},
            {"dilation": "1"},
        ):
            with pytest.raises((RuntimeError, TypeError)):
                F.conv2d(x, k, groups=8, **options)
        module = nn.Conv2d(8, 8, 3, groups=8)
        exported = torch.export.export(module, (x,))
    assert not any("sepconv" in str(node.target) for node in exported.graph.nodes)


def test_compile_under_the_patch():
    torch._dynamo.reset()
    module, x = nn.Conv2d(8, 8, 3, groups=8), torch.randn(1, 8, 6, 6)
    expected, seen = module(x), []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    with sepconv.patch_torch():
        y = torch.compile(module, fullgraph=True, backend=backend)(x)
    # PyTorch 2.6 does not tell whether it compiles or exports.
    ours = hasattr(torch.compiler, "is_exporting")
    assert ("sepconv.forward.default" in seen) == ours, seen
    assert_close([y], [expected])


def test_nested_patches_end_with_the_last():
    first = sepconv.patch_torch()
    with sepconv.patch_torch():
        assert F.conv2d is not ORIGINAL
    assert F.conv2d is not ORIGINAL
    with first:
        pass
    assert F.conv2d is ORIGINAL


def test_a_hold_that_is_entered_again_patches_again():
    patch = sepconv.patch_torch()
    for _ in range(2):
        with patch, patch:
            assert F.conv2d is not ORIGINAL
        assert F.conv2d is ORIGINAL
