"""PyTorch's operation ``sepconv::fused``: a block of an inference network in one call.

Its derivatives, and what it is on another device than the CPU, are those of what it is composed
of: ``sepconv::forward`` and PyTorch's own operations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from sepconv import _native
from sepconv.engines.torch.composed import ordinary
from sepconv.engines.torch.convolution import (
    CODES,
    fake_result,
)
from sepconv.engines.torch.transforms import leading
from sepconv.fused import BLOCK_ACTIVATIONS, BlockSpec, Operands, check_block, is_product
from sepconv.geometry import ConvSpec, Geometry, plan

__all__ = ["fuse"]

_NONE = BLOCK_ACTIVATIONS[None]
_FUNCTIONS = {
    BLOCK_ACTIVATIONS["relu"]: functional.relu,
    BLOCK_ACTIVATIONS["relu6"]: functional.relu6,
    BLOCK_ACTIVATIONS["hard_silu"]: functional.hardswish,
    BLOCK_ACTIVATIONS["silu"]: functional.silu,
}

_library = torch.library.Library("sepconv", "FRAGMENT")
_library.define(
    "fused(Tensor x, Tensor? depthwise_kernel, Tensor? depthwise_bias, Tensor? pointwise_kernel, "
    "Tensor? bias, Tensor? residual, int[] spec, int depthwise_activation, int activation) "
    "-> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_fused = torch.ops.sepconv.fused.default
_forward = torch.ops.sepconv.forward.default
Maybe = Tensor | None


def _activate(y: Tensor, code: int) -> Tensor:
    return y if code == _NONE else _FUNCTIONS[code](y)


def _composed(
    x: Tensor,
    depthwise_kernel: Maybe,
    depthwise_bias: Maybe,
    pointwise_kernel: Maybe,
    bias: Maybe,
    residual: Maybe,
    spec: list[int],
    depthwise_activation: int,
    activation: int,
) -> Tensor:
    axis = -3 if spec[9] else -1
    y = x
    if depthwise_kernel is not None:
        only = bias if pointwise_kernel is None else depthwise_bias
        y = _forward(y, depthwise_kernel, None, only, spec, _NONE)
    if pointwise_kernel is not None:
        y = _activate(y, depthwise_activation)
        alone = depthwise_kernel is None
        if alone and not is_product(pointwise_kernel.shape, ConvSpec(*spec)):
            y = ordinary(y, pointwise_kernel, spec)
        else:
            y = (y.movedim(axis, -1) @ pointwise_kernel[0, 0]).movedim(-1, axis)
        if bias is not None:
            y = y + (bias[:, None, None] if spec[9] else bias)
        if residual is not None:
            y = y + residual
    return _activate(y, activation).contiguous()


@lru_cache(maxsize=4096)
def _plan(
    spec: tuple[int, ...], activations: tuple[int, int], dtype: torch.dtype, *shapes: Any
) -> tuple[Geometry, int, tuple[int, ...]]:
    """The geometry, the dtype's number and the output's shape, all checked once."""
    if dtype not in CODES:
        raise TypeError(f"Tensors of one of {[*CODES]} were expected. Received: {dtype}")
    if not all(code == _NONE or code in _FUNCTIONS for code in activations):
        raise ValueError(f"There is no activation of such a number. Received: {activations}")
    conv, operands = ConvSpec(*spec), Operands(*shapes)
    if operands.depthwise_kernel is None and operands.pointwise_kernel is None:
        raise ValueError("There is no kernel.")
    if operands.depthwise_kernel is None and operands.depthwise_bias is not None:
        raise ValueError("depthwise_bias comes with a depthwise_kernel.")
    shape = check_block(operands, conv)
    x, kernel, _, pointwise, *_ = (None if s is None else tuple(s) for s in shapes)
    assert x is not None
    return plan(conv, x, kernel, pointwise)[0], CODES[dtype], shape


def _fused_cpu(
    x: Tensor,
    depthwise_kernel: Maybe,
    depthwise_bias: Maybe,
    pointwise_kernel: Maybe,
    bias: Maybe,
    residual: Maybe,
    spec: list[int],
    depthwise_activation: int,
    activation: int,
) -> Tensor:
    operands = Operands(x, depthwise_kernel, depthwise_bias, pointwise_kernel, bias, residual)
    dtype = x.dtype
    shapes = [None if a is None else a.shape for a in operands]
    geometry, code, shape = _plan(tuple(spec), (depthwise_activation, activation), dtype, *shapes)
    if any(a is not None and a.dtype != dtype for a in operands):
        raise TypeError(f"Tensors of one dtype, {dtype}, were expected.")
    operands = operands.map(Tensor.contiguous)  # kept until the kernel has returned
    addresses = operands.map(Tensor.data_ptr)
    y = torch.empty(shape, dtype=dtype)
    _native.forward(
        geometry,
        code,
        *addresses,
        y.data_ptr(),
        0 if pointwise_kernel is None else shape[1 if spec[9] else 3],
        depthwise_activation,
        activation,
    )
    return y


def _fused_fake(
    x: Tensor,
    depthwise_kernel: Maybe,
    depthwise_bias: Maybe,
    pointwise_kernel: Maybe,
    bias: Maybe,
    residual: Maybe,
    spec: list[int],
    depthwise_activation: int,
    activation: int,
) -> Tensor:
    conv = ConvSpec(*spec)
    operands = Operands(x, depthwise_kernel, depthwise_bias, pointwise_kernel, bias, residual)
    return fake_result(x, check_block(operands.shapes(), conv), conv)


def _fused_autograd(x: Tensor, *rest: Any) -> Tensor:
    if forward_ad._current_level >= 0 or (
        torch.is_grad_enabled()
        and (x.requires_grad or any(a is not None and a.requires_grad for a in rest[:5]))
    ):
        return _composed(x, *rest)
    with torch._C._AutoDispatchBelowAutograd():
        return _fused(x, *rest)


def _map_fused(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> tuple[Tensor, int]:
    """What ``torch.vmap`` makes of it: a mapped axis of x or residual joins the batch."""
    count = info.batch_size

    if all(axis is None for axis in in_dims[1:5]):
        images = leading(x, in_dims[0], count).flatten(0, 1)
        residual = rest[4] if rest[4] is None else leading(rest[4], in_dims[5], count).flatten(0, 1)
        y = _fused(images, *rest[:4], residual, *rest[5:])
        return y.unflatten(0, (count, -1)), 0

    def part(a: Maybe, axis: int | None, i: int) -> Maybe:
        return a if a is None or axis is None else a.select(axis, i)

    arrays = [x, *rest[:5]]
    parts = [
        _fused(*(part(a, axis, i) for a, axis in zip(arrays, in_dims, strict=False)), *rest[5:])
        for i in range(count)
    ]
    return torch.stack(parts), 0


_library.impl("fused", _fused_cpu, "CPU")
_library.impl("fused", _composed, "CompositeExplicitAutograd")
_library.impl("fused", _fused_autograd, "Autograd")
torch.library.register_fake("sepconv::fused", _fused_fake, lib=_library)
torch.library.register_vmap("sepconv::fused", _map_fused, lib=_library)


def fuse(operands: Operands, block: BlockSpec) -> Tensor:
    """See `sepconv.engines.front`."""
    x = operands.x
    spec, between, last = block
    # As in sepconv.engines.torch: a channels_first tensor in channels_last memory.
    permuted = False
    if spec.channels_first and not x.is_contiguous():
        permuted = x.permute(0, 2, 3, 1).is_contiguous()
        if permuted:
            spec = spec.for_channels_last()
            images = Operands(operands.x, residual=operands.residual)
            images = images.map(lambda a: a.permute(0, 2, 3, 1))
            operands = operands.with_images(images.x, images.residual)
    y = _fused(*operands.map(Tensor.contiguous), spec, between, last)
    return y.permute(0, 3, 1, 2) if permuted else y
