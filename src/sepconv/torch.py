"""Depthwise and separable convolution of PyTorch tensors, on the CPU by sepconv's kernels.

Differentiable to any order, and usable under ``torch.compile``, ``torch.export``, ``torch.func``
and autocast. Tensors on another device than the CPU are computed by PyTorch's own operations, with
the same result.

A tensor that is contiguous in its `data_format` is used in place, and so is a ``channels_first``
tensor in ``torch.channels_last`` memory, whose result is in that memory format too.

Example:
    >>> import torch
    >>> from sepconv.torch import separable_conv2d
    >>> x = torch.ones(1, 4, 4, 2)
    >>> depthwise = torch.ones(3, 3, 2, 1, requires_grad=True)
    >>> y = separable_conv2d(x, depthwise, torch.ones(1, 1, 2, 5), padding="same", strides=(1, 2))
    >>> y.shape
    torch.Size([1, 4, 2, 5])
    >>> y.sum().backward()
    >>> depthwise.grad.shape
    torch.Size([3, 3, 2, 1])
"""

from __future__ import annotations

from sepconv.engines.front import functions, fused_function, program_function
from sepconv.engines.torch import engine
from sepconv.engines.torch.memory import keep_memory

__all__ = [
    "depthwise_conv1d",
    "depthwise_conv2d",
    "fused_conv2d",
    "keep_memory",
    "run_program",
    "separable_conv1d",
    "separable_conv2d",
]

depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d = functions(engine)

fused_conv2d = fused_function(engine)

run_program = program_function(engine)
