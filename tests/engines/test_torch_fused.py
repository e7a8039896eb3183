"""sepconv.torch.fused_conv2d: values, derivatives, torch.compile and vmap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.blocks import block_of, random_block, selecting_kernel
from helpers.configurations import assert_near
from torch.nn import functional

import sepconv.torch
from sepconv import reference
from sepconv.engines.torch import block
from sepconv.fused import Operands


def _tensors(arrays, grad=False):
    return {name: torch.tensor(a, requires_grad=grad) for name, a in arrays.items()}


@pytest.mark.parametrize("seed", range(80))
def test_values(seed):
    arrays, options = random_block(seed)
    y = sepconv.torch.fused_conv2d(**_tensors(arrays), **options)
    assert y.is_contiguous()
    assert_near(y, reference.fused_conv2d(**arrays, **options), str(arrays["x"].dtype), options)


def _composed(x, depthwise_kernel, pointwise_kernel, depthwise_bias, bias, residual, options):
    """The block in older, differentiable functions."""
    functions = {
        None: lambda y: y,
        "relu": functional.relu,
        "relu6": functional.relu6,
        "hard_silu": functional.hardswish,
        "silu": functional.silu,
    }
    geometry = {k: v for k, v in options.items() if not k.endswith("activation")}
    axis = 1 if options["data_format"] == "channels_first" else 3
    if depthwise_kernel is None:  # an ordinary convolution, as a depthwise one that selects
        *size, channels, filters = pointwise_kernel.shape
        depthwise_kernel = torch.tensor(selecting_kernel(*size, channels, "float64")).to(x.dtype)
        pointwise_kernel = pointwise_kernel.permute(2, 0, 1, 3).reshape(1, 1, -1, filters)
    first = bias if pointwise_kernel is None else depthwise_bias
    y = sepconv.torch.depthwise_conv2d(x, depthwise_kernel, first, **geometry)
    if pointwise_kernel is not None:
        y = functions[options.get("depthwise_activation")](y)
        y = y.movedim(axis, -1) @ pointwise_kernel[0, 0]
        y = (y if bias is None else y + bias).movedim(-1, axis)
        y = y if residual is None else y + residual
    return functions[options["activation"]](y)


@pytest.mark.parametrize("seed", [*range(24), 31, 51, 55])
def test_gradients(seed):
    arrays, options = random_block(seed, "float64")
    ours, theirs = _tensors(arrays, True), _tensors(arrays, True)
    y = sepconv.torch.fused_conv2d(**ours, **options)
    names = ("x", "depthwise_kernel", "pointwise_kernel", "depthwise_bias", "bias", "residual")
    expected = _composed(*(theirs.get(n) for n in names), options)
    assert_near(y.detach(), expected.detach(), "float64")
    dy = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    grads = torch.autograd.grad(y, list(ours.values()), dy)
    for name, ours_, theirs_ in zip(
        arrays, grads, torch.autograd.grad(expected, list(theirs.values()), dy), strict=True
    ):
        assert_near(ours_, theirs_, "float64", name)


def test_without_gradients_it_is_one_operation():
    arrays, options = random_block(0, "float32")
    tensors = _tensors(arrays, True)
    with torch.no_grad(), torch.profiler.profile() as profile:
        sepconv.torch.fused_conv2d(**tensors, **options)
    names = {event.key for event in profile.key_averages()}
    assert "sepconv::fused" in names
    assert "sepconv::forward" not in names
    assert "aten::matmul" not in names


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 19, 23])
def test_compile_without_breaks(seed):
    arrays, options = random_block(seed, "float32")
    tensors = _tensors(arrays)
    run = torch.compile(
        lambda t: sepconv.torch.fused_conv2d(**t, **options), fullgraph=True, backend="eager"
    )
    assert_near(run(tensors), reference.fused_conv2d(**arrays, **options), "float32")


@pytest.mark.parametrize("seed", [1, 19])
def test_the_registration_holds(seed):
    arrays, options = random_block(seed, "float32")
    tensors = _tensors(arrays, True)
    form = block_of(arrays, options)
    names = Operands._fields
    arguments = (*(tensors.get(n) for n in names), list(form.spec), *form[1:])
    torch.library.opcheck(torch.ops.sepconv.fused.default, arguments)


@pytest.mark.parametrize("seed", [*range(4), 19])
@pytest.mark.parametrize("kernels", [False, True])
def test_vmap(seed, kernels):
    arrays, options = random_block(seed)
    mapped = [kernels or name in ("x", "residual") for name in arrays]
    stacked = {
        n: np.stack([a, 2 * a]) if m else a
        for (n, a), m in zip(arrays.items(), mapped, strict=True)
    }
    y = torch.vmap(
        lambda *a: sepconv.torch.fused_conv2d(**dict(zip(arrays, a, strict=True)), **options),
        tuple(0 if m else None for m in mapped),
    )(*_tensors(stacked).values())
    for i in range(2):
        one = {n: a[i] if m else a for (n, a), m in zip(stacked.items(), mapped, strict=True)}
        assert_near(y[i], reference.fused_conv2d(**one, **options), str(arrays["x"].dtype))


def test_channels_last_memory_stays():
    arrays, options = random_block(5, "float32")
    assert options["data_format"] == "channels_first"
    tensors = _tensors(arrays)
    tensors["x"] = tensors["x"].to(memory_format=torch.channels_last)
    y = sepconv.torch.fused_conv2d(**tensors, **options)
    assert_near(y, reference.fused_conv2d(**arrays, **options), "float32")


@pytest.mark.parametrize("seed", [0, 19, 23])
def test_on_other_devices_it_is_composed(seed):
    arrays, options = random_block(seed, "float64")
    meta = {name: a.to("meta") for name, a in _tensors(arrays).items()}
    y = sepconv.torch.fused_conv2d(**meta, **options)
    assert y.shape == reference.fused_conv2d(**arrays, **options).shape
    tensors = _tensors(arrays)
    names = Operands._fields
    form = block_of(arrays, options)
    y = block._composed(*(tensors.get(n) for n in names), list(form.spec), *form[1:])
    assert_near(y, reference.fused_conv2d(**arrays, **options), "float64")


def test_the_operation_checks_what_it_is_given():
    x, spec = torch.ones(1, 2, 2, 3), [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    fused = torch.ops.sepconv.fused.default
    with pytest.raises(ValueError, match="pointwise_kernel must have"):
        fused(x, None, None, torch.ones(1, 1, 4, 2), None, None, spec, 0, 0)
    with pytest.raises(ValueError, match="There is no kernel"):
        fused(x, None, None, None, None, None, spec, 0, 0)
    with pytest.raises(ValueError, match="comes with a depthwise_kernel"):
        fused(x, None, torch.ones(3), torch.ones(1, 1, 3, 2), None, None, spec, 0, 0)
    with pytest.raises(ValueError, match="activation"):
        fused(x, None, None, torch.ones(1, 1, 3, 2), None, None, spec, 0, 9)
    with pytest.raises(TypeError, match="one dtype"):
        fused(x, None, None, torch.ones(1, 1, 3, 2, dtype=torch.float64), None, None, spec, 0, 0)
