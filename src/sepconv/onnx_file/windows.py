"""Convolutions and pooling windows as ONNX has them: channels first, kernels with filters first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sepconv.onnx_file.call import Call
from sepconv.program.shapes import Shape

__all__ = ["arranged", "convolution", "window"]


def window(call: Call, x: Shape, size: Sequence[int], *, plain: bool = False) -> dict[str, Any]:
    """The attributes of a node that goes over an image in windows.

    Args:
        call: of a step with a spec.
        x: the image's shape, in the network's order.
        size: of a window, (height, width).
        plain: whether the window is one pixel at stride 1, whatever the spec.
    """
    spec, rank = call.spec, len(x) - 2
    strides, dilations = spec[0:2], spec[2:4]
    pads: list[tuple[int, int]] = [(spec[5], spec[6]), (spec[7], spec[8])]
    if plain:
        strides, dilations, pads = (1, 1), (1, 1), [(0, 0), (0, 0)]
    elif rank == 1 and (size[0] != 1 or any(pads[0])):
        call.refuse("it goes over an image one pixel high in windows that are higher")
    given = {
        "kernel_shape": list(size[2 - rank :]),
        "strides": list(strides[2 - rank :]),
        "dilations": list(dilations[2 - rank :]),
    }
    if not spec.same or plain:
        around = pads[2 - rank :]
    else:
        sizes = x[2:] if spec.channels_first else x[1:-1]
        if None in sizes:
            return given | {"auto_pad": "SAME_UPPER"}
        around = []
        for length, k, stride, dilation in zip(sizes, *given.values(), strict=True):
            assert length is not None
            reach = (k - 1) * dilation + 1
            total = max((-(-length // stride) - 1) * stride + reach - length, 0)
            around.append((total // 2, total - total // 2))
    return given | {"pads": [each[0] for each in around] + [each[1] for each in around]}


def arranged(kernel: np.ndarray, depthwise: bool, rank: int) -> np.ndarray:
    """A kernel with filters first: [H, W, C, M] or [H, W, C, F] as [filters, channels, H, W].

    Args:
        kernel: of 4 axes.
        depthwise: whether every channel has filters of its own.
        rank: of the image; with 3, the kernel has no height.

    Example:
        >>> arranged(np.zeros((3, 5, 4, 2)), True, 4).shape
        (8, 1, 3, 5)
    """
    if depthwise:
        height, width, channels, multiplier = kernel.shape
        kernel = kernel.reshape(height, width, 1, channels * multiplier)
    turned = kernel.transpose(3, 2, 0, 1)
    return turned[:, :, 0] if rank == 3 else turned


def convolution(
    call: Call,
    x: str,
    kernel: str,
    bias: str | None,
    shape: Sequence[int],
    *,
    depthwise: bool,
    plain: bool = False,
) -> str:
    """A Conv node.

    Args:
        call: of the step.
        x: the image, channels first.
        kernel: as `arranged` makes it.
        bias: a number a filter, or None.
        shape: the kernel's as the network has it: height, width, channels, and filters or, where
            every channel has its own, how many.
        depthwise: whether it has.
        plain: see `window`.
    """
    given = window(call, call.shape(), shape[:2], plain=plain)
    operands = [x, kernel] + ([] if bias is None else [bias])
    return call.node("Conv", *operands, group=shape[2] if depthwise else 1, **given)
