"""PyTorch's convolutions of its own tensors and weights, by our kernels where these serve them.

What `torch.nn` and `torch.nn.functional` take is taken here: channels come second, and a kernel is
[filters, channels / groups, height, width]. Memory may be contiguous or ``torch.channels_last``,
and the result is as the input is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sepconv.engines.thresholds import MOST_FILTERS, ORDINARY, few_channels
from sepconv.engines.torch.convolution import CODES, as_array, is_traced
from sepconv.geometry import ACTIVATIONS, ConvSpec, build_spec
from sepconv.modules import eager, joint

__all__ = [
    "SEQUENCES",
    "Geometry",
    "Pads",
    "convolve_image",
    "geometry",
    "is_depthwise",
    "kernels_refusal",
    "on_cpu",
]

#: For `isinstance` in what `torch.compile` reads: PyTorch 2.6's knows no ``tuple | list``.
SEQUENCES = (tuple, list)

#: (top, bottom), (left, right).
Pads = tuple[tuple[int, int], tuple[int, int]]

#: Stride, pads and dilation.
Geometry = tuple[tuple[int, int], Pads, tuple[int, int]]

_POINTWISE_DTYPES = (torch.float32, torch.float64)

_NO_PADS = ((0, 0), (0, 0))

_forward = torch.ops.sepconv.forward.default
_product = torch.ops.sepconv.pointwise.default


def is_depthwise(kernel_shape: Sequence[Any], groups: int) -> bool:
    """Whether a kernel [filters, channels / groups, ...] is a depthwise convolution's.

    Example:
        >>> is_depthwise((8, 1, 3, 3), 4), is_depthwise((8, 2, 3, 3), 4)
        (True, False)
    """
    return kernel_shape[1] == 1 and kernel_shape[0] % groups == 0


def geometry(stride: Any, padding: Any, dilation: Any, kernel: Sequence[int]) -> Geometry | None:
    """What `torch.nn.functional.conv2d` makes of its arguments; None where it may raise.

    Args:
        stride: an integer, or one or two.
        padding: likewise, or ``"same"`` or ``"valid"``.
        dilation: as `stride`.
        kernel: (height, width).

    Example:
        >>> geometry(1, "same", (2, 1), (3, 4))
        ((1, 1), ((2, 2), (1, 2)), (2, 1))
    """
    steps, holes = _pair(stride), _pair(dilation)
    if steps is None or holes is None or min(steps) < 1 or min(holes) < 1:
        return None
    if padding == "same":
        if steps != (1, 1):
            return None
        down, right = holes[0] * (kernel[0] - 1), holes[1] * (kernel[1] - 1)
        return steps, ((down // 2, down - down // 2), (right // 2, right - right // 2)), holes
    around = (0, 0) if padding == "valid" else _pair(padding)
    if around is None or min(around) < 0:
        return None
    rows, columns = around
    return steps, ((rows, rows), (columns, columns)), holes


def _pair(value: Any) -> tuple[int, int] | None:
    """One integer, or two; None for anything else."""
    if type(value) is int:
        return value, value
    if isinstance(value, SEQUENCES) and len(value) in (1, 2):
        first, last = value[0], value[-1]
        if type(first) is int and type(last) is int:
            return first, last
    return None


def kernels_refusal(
    kernel_shape: Sequence[Any], groups: int, pads: Pads, dtype: torch.dtype
) -> str | None:
    """Why our kernels do not compute a convolution; None where they do.

    Args:
        kernel_shape: (filters, channels / groups, height, width).
        groups: how many parts the channels are cut into.
        pads: the rows and columns of zeros around an image.
        dtype: that of image and kernel.

    Example:
        >>> kernels_refusal((8, 1, 3, 3), 8, ((1, 1), (1, 1)), torch.float32)
        >>> kernels_refusal((8, 8, 3, 3), 1, ((1, 1), (1, 1)), torch.float32)
        'an ordinary convolution, neither a depthwise nor a 1x1 one'
    """
    filters, depth, height, width = kernel_shape
    name = str(dtype).removeprefix("torch.")
    if is_depthwise(kernel_shape, groups):
        if groups == 1 and filters > MOST_FILTERS["torch"]:
            return f"{filters} filters on one channel, which are quicker as an ordinary convolution"
        return None if dtype in CODES else f"computes in {name}"
    if groups != 1 or height != 1 or width != 1:
        return ORDINARY
    if pads != _NO_PADS:
        return "a 1x1 convolution with padding"
    few = few_channels(depth, filters)
    if few is None and dtype not in _POINTWISE_DTYPES:
        return f"a 1x1 convolution in {name}"
    return few


def on_cpu(*tensors: Tensor | None) -> bool:
    """Whether all are ordinary tensors on the CPU."""
    strided = torch.strided
    for tensor in tensors:
        if tensor is not None and not (tensor.is_cpu and tensor.layout is strided):
            return False
    return True


def convolve_image(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    groups: int,
    norm: nn.Module | None = None,
) -> Tensor | None:
    """A convolution of images [batch, channels, height, width], differentiable to any order.

    Args:
        x: the images.
        weight: [filters, channels / groups, height, width].
        bias: None, or one number a filter.
        stride: (height, width).
        pads: the rows and columns of zeros around each image.
        dilation: (height, width).
        groups: how many parts the channels are cut into.
        norm: the normalization that alone gets the result, which is offered to it (see `joint`).

    Returns:
        The result; None where our kernels do not serve the convolution, or PyTorch's own raises.
    """
    if not on_cpu(x, weight, bias):
        return None
    if torch.is_autocast_enabled("cpu"):
        bias = None if bias is None else as_array(bias)
        x, weight = as_array(x), as_array(weight)
    if x.dtype != weight.dtype or (bias is not None and bias.dtype != weight.dtype):
        return None
    if eager.is_eager(x, weight, bias):
        plan = _plan(x.shape, x.stride(), weight.shape, stride, pads, dilation, groups, x.dtype)
        if plan is None:
            return None
        if not plan.depthwise and stride != (1, 1):
            x = _strided(x, stride)
            plan = _plan(x.shape, x.stride(), weight.shape, (1, 1), pads, dilation, groups, x.dtype)
            assert plan is not None
        y = eager.convolve(plan, x, weight, bias)
        if norm is not None and bias is None:
            joint.offer(y, plan, x, weight, norm)
        return y
    # While a compiler traces, sizes may be symbols, which neither hashes nor tests may tie down.
    traced = is_traced()
    choose: Any = _choice if traced or type(x.shape[0]) is not int else _cached_choice
    spec = choose(
        tuple(x.shape), tuple(weight.shape), stride, pads, dilation, groups, weight.dtype, traced
    )
    if spec is None:
        return None
    if is_depthwise(weight.shape, groups):
        return _depthwise(x, weight, bias, spec, groups)
    if stride != (1, 1):
        x = _strided(x, stride)
    y = _pointwise(x, weight)
    return y if bias is None else y + bias[:, None, None]


def _choice(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    groups: int,
    dtype: torch.dtype,
    traced: bool,
) -> ConvSpec | None:
    """The spec of a convolution that our kernels compute; None where PyTorch is to compute it."""
    if len(image) != 4 or image[1] != kernel[1] * groups:
        return None
    if kernels_refusal(kernel, groups, pads, dtype) is not None:
        return None
    if not traced and not _fits(image, kernel, pads, dilation):
        return None  # PyTorch raises
    return build_spec(stride, pads, dilation, "channels_first")


_cached_choice = lru_cache(maxsize=4096)(_choice)


@lru_cache(maxsize=4096)
def _plan(
    image: tuple[int, ...],
    memory: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    groups: int,
    dtype: torch.dtype,
) -> eager.Plan | None:
    """How our kernels compute a convolution eagerly; None where PyTorch is to compute it."""
    image, kernel = tuple(image), tuple(kernel)
    spec = _choice(image, kernel, stride, pads, dilation, groups, dtype, False)
    if spec is None:
        return None
    depthwise = is_depthwise(kernel, groups)
    return eager.Plan(image, memory, kernel, spec, groups, depthwise, dtype)


def _fits(image: Sequence[int], kernel: Sequence[int], pads: Pads, dilation: Sequence[int]) -> bool:
    """Whether an image holds the kernel, so that the result is not empty."""
    sizes = zip(image[2:], kernel[2:], pads, dilation, strict=True)
    return all(size > 0 and size + sum(pad) > (k - 1) * d for size, k, pad, d in sizes)


def _strided(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """The pixels of images that a 1x1 convolution with this stride sees, in the same format."""
    down, right = stride
    nhwc = eager.channels_last_view(x)
    if nhwc is None:
        return x[:, :, ::down, ::right].contiguous()
    return nhwc[:, ::down, ::right].contiguous().permute(0, 3, 1, 2)


# --- by the registered operations, where more than eager autograd looks on ---------------------


def _depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, spec: ConvSpec, channels: int
) -> Tensor:
    kernel, nhwc = eager.depthwise_kernel(weight, channels), eager.channels_last_view(x)
    rest = kernel, None, bias
    if nhwc is None:
        return _forward(x.contiguous(), *rest, list(spec), ACTIVATIONS[None])
    spec = spec.for_channels_last()
    return _forward(nhwc, *rest, list(spec), ACTIVATIONS[None]).permute(0, 3, 1, 2)


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    matrix, nhwc = weight.flatten(1), eager.channels_last_view(x)
    if nhwc is None:
        return _product(x.contiguous(), matrix, True, True)
    return _product(nhwc, matrix, False, True).permute(0, 3, 1, 2)
