"""Convolutions in one and two dimensions, and products with a constant matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.modules.lowering.call import Call
from sepconv.modules.lowering.values import Value

__all__ = ["OPERATIONS"]

_NONE = {"depthwise_activation": "none", "activation": "none"}


def _pairs(given: Any, axes: int) -> list[int]:
    sizes = list(given) if isinstance(given, (list, tuple)) else [given]
    return [int(size) for size in (sizes * axes if len(sizes) == 1 else sizes)]


def _pads(call: Call, window: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    """What is padded before and after, for every spatial axis."""
    padding = call["padding"]
    if padding == "valid":
        return [(0, 0)] * len(window)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(window, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(pad, pad) for pad in _pairs(padding, len(window))]


def _convolution(call: Call) -> Value:
    weight, bias = call.array("weight"), call.array("bias")
    assert weight is not None  # which its schema demands
    spatial = weight.ndim - 2
    if call.rank != weight.ndim:
        call.refuse(f"its input has {call.rank} axes: give it a batch")
    image, builder = call.writer.image(call.x), call.builder
    stride, dilation = (_pairs(call[name], spatial) for name in ("stride", "dilation"))
    pads = _pads(call, list(weight.shape[2:]), dilation)
    # [F, C, height, width] to [height, width, C, F], of an image that may be a pixel high.
    kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
    if spatial == 1:
        kernel = kernel[None]
        stride, dilation, pads = [1, *stride], [1, *dilation], [(0, 0), *pads]
    x, height_and_width = image.number, kernel.shape[:2]
    if height_and_width == (1, 1):
        dilation = [1, 1]
        if any(any(pair) for pair in pads):  # which kernels of one pixel know nothing of
            x = builder.pad(x, [(0, 0), *pads[-spatial:], (0, 0)])
            pads = [(0, 0), (0, 0)]
    spec = ConvSpec._make([*stride, *dilation, 0, *pads[0], *pads[1], 0])
    return Value(_grouped(call, x, list(spec), kernel, bias), image.axes)


def _grouped(
    call: Call, x: int, spec: list[int], kernel: np.ndarray, bias: np.ndarray | None
) -> int:
    builder, groups = call.builder, call["groups"]
    height, width, depth, filters = kernel.shape
    attributes = {"spec": spec, **_NONE}
    if groups == 1:
        weights = {"pointwise_kernel": kernel, "bias": bias}
        return builder.emit("convolution", [x], attributes, weights)
    each = filters // groups
    if depth == 1:
        depthwise = kernel.reshape(height, width, groups, each)
        weights = {"depthwise_kernel": depthwise, "bias": bias}
        return builder.emit("convolution", [x], attributes, weights)
    axis, parts = builder.rank(x) - 1, []
    for group in range(groups):
        part = builder.slice(x, {axis: (group * depth, (group + 1) * depth, 1)})
        outputs = slice(group * each, (group + 1) * each)
        weights = {
            "pointwise_kernel": kernel[..., outputs],
            "bias": None if bias is None else bias[outputs],
        }
        parts.append(builder.emit("convolution", [part], attributes, weights))
    return builder.concatenate(parts, axis)


def _product(call: Call, x: Value, kernel: np.ndarray, bias: np.ndarray | None) -> Value:
    """X @ kernel + bias, over PyTorch's last axis."""
    last = len(x.axes) - 1
    if len(x.axes) < 2:
        call.refuse("its input has one axis: give it a batch")
    if x.axes[-1] != last:
        x = call.writer.as_plain(call.writer.plain(x))
    weights = {"kernel": kernel, "bias": bias}
    return Value(call.builder.emit("dense", [x.number], {"activation": "none"}, weights), x.axes)


def _linear(call: Call) -> Value:
    weight = call.array("weight")
    assert weight is not None  # which its schema demands
    return _product(call, call.x, weight.T, call.array("bias"))


def _matmul(call: Call) -> Value:
    second = call["other"] if "other" in call.args else call["mat2"]
    if isinstance(second, Value) or second.ndim != 2:
        call.refuse("the second factor must be a matrix that does not depend on the inputs")
    return _product(call, call.x, second.detach().cpu().numpy(), None)


def _addmm(call: Call) -> Value:
    call.only(beta=1, alpha=1)
    bias, kernel = call.array("self"), call.array("mat2")
    assert bias is not None  # as its schema demands
    assert kernel is not None
    if not isinstance(call["mat1"], Value):
        call.refuse("the first factor must depend on the inputs")
    return _product(call, call["mat1"], kernel, np.broadcast_to(bias, kernel.shape[1:]))


OPERATIONS: dict[str, Callable[[Call], Any]] = {
    "aten.conv1d.default": _convolution,
    "aten.conv1d.padding": _convolution,
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.linear.default": _linear,
    "aten.matmul.default": _matmul,
    "aten.mm.default": _matmul,
    "aten.addmm.default": _addmm,
}
