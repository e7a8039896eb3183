"""Squeeze-and-excite modules whose gradients need less memory than PyTorch's own.

For ``x * gate(x.mean((2, 3)))`` PyTorch makes three arrays of x's size: what is summed up for the
gate, the product's gradient and the mean's. Here the product's is made in the memory of the sum's
operand, and the mean's is added to it without an array of its own. Each number is computed as
PyTorch computes it, to the bit.
"""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from sepconv.modules.eager import apply_of, is_eager, once

__all__ = ["SqueezeExcite", "runs"]

_DTYPES = (torch.float32, torch.float64)
_function_modes = torch._C._len_torch_function_stack


def runs(function: Any, source: str) -> bool:
    """Whether a function does what the source of a function says, instruction by instruction.

    Example:
        >>> runs(lambda x: x + 1, "def add(x): return x + 1"), runs(len, "def f(): pass")
        (True, False)
    """
    if not isinstance(function, FunctionType):
        return False
    module = compile(source, "<expected>", "exec", dont_inherit=True)
    expected = next(each for each in module.co_consts if isinstance(each, CodeType))
    names = ("co_code", "co_names", "co_varnames", "co_consts", "co_freevars", "co_argcount")
    return all(getattr(function.__code__, n) == getattr(expected, n) for n in names)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        _, _, height, width = ctx.shape
        return (dy / (height * width)).expand(ctx.shape)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, gate = ctx.saved_tensors
        for_x, for_gate = ctx.needs_input_grad
        if not for_gate:
            return dy * gate, None
        product = dy * x
        dgate = product.sum((2, 3), keepdim=True)
        if not for_x:
            return None, dgate
        if once(dy) and is_eager(x, gate) and product.dtype is dy.dtype is gate.dtype:
            return torch.mul(dy, gate, out=product), dgate
        return dy * gate, dgate


_apply_mean, _apply_gated = apply_of(_Mean), apply_of(_Gated)


class SqueezeExcite(nn.Module):
    """What ours have in common; each is derived from another package's class, too."""

    conv_reduce: nn.Module
    act1: nn.Module
    conv_expand: nn.Module
    gate_fn: Any

    def forward(self, x: Tensor) -> Tensor:
        """The gated `x`."""
        if not _is_served(x):
            y: Tensor = super().forward(x)
            return y
        gate = self.gate_fn(self.conv_expand(self.act1(self.conv_reduce(_apply_mean(x)))))
        if not _fits(gate, x):
            return x * gate
        gated: Tensor = _apply_gated(x, gate)
        return gated


def _is_served(x: Any) -> bool:
    """Whether images get a gradient by eager autograd alone."""
    return (
        is_eager(x)
        and isinstance(x, Tensor)
        and torch.is_grad_enabled()
        and x.requires_grad
        and _function_modes() == 0
        and not torch.is_autocast_enabled("cpu")
        and x.is_cpu
        and x.layout is torch.strided
        and x.dtype in _DTYPES
        and x.dim() == 4
        and x.numel() > 0
    )


def _fits(gate: Any, x: Tensor) -> bool:
    """Whether there is a gate for each channel of each image."""
    return (
        isinstance(gate, Tensor)
        and is_eager(gate)
        and gate.is_cpu
        and gate.layout is torch.strided
        and gate.dtype is x.dtype
        and gate.shape == (*x.shape[:2], 1, 1)
    )
