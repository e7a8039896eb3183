"""Which of PyTorch's modules become ours, and why others do not."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from sepconv.modules.activation import Activation, Hardswish, ReLU, ReLU6, SiLU, stock_of
from sepconv.modules.batch_norm import BatchNorm2d
from sepconv.modules.convolution import Conv1d, Conv2d, geometry_of
from sepconv.modules.convolving import kernels_refusal
from sepconv.modules.foreign import foreign_class, foreign_squeeze
from sepconv.modules.squeeze import SqueezeExcite

__all__ = ["OURS", "our_activation", "our_squeeze", "refusal", "stock_class"]

#: Our classes by PyTorch's.
OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.BatchNorm2d: BatchNorm2d,
}

_STOCK = {ours: theirs for theirs, ours in OURS.items()}

_ACTIVATIONS: dict[type[nn.Module], type[nn.Module]] = {
    nn.ReLU: ReLU,
    nn.ReLU6: ReLU6,
    nn.SiLU: SiLU,
    nn.Hardswish: Hardswish,
}


def our_activation(kind: type[nn.Module]) -> type[nn.Module] | None:
    """Our class for an activation's: they become ours where they follow a normalization of ours.

    Example:
        >>> our_activation(nn.ReLU).__module__, our_activation(nn.Tanh)
        ('sepconv.modules', None)
    """
    return _ACTIVATIONS.get(kind) or foreign_class(kind)


def our_squeeze(module: nn.Module) -> type[nn.Module] | None:
    """Our class for a squeeze-and-excite module of another package; None for any other.

    Example:
        >>> our_squeeze(nn.Identity())
    """
    return None if "forward" in vars(module) else foreign_squeeze(type(module))


def stock_class(kind: type[nn.Module]) -> type[nn.Module]:
    """PyTorch's class, or another package's, for ours; any other class itself.

    Example:
        >>> stock_class(Conv2d) is nn.Conv2d, stock_class(ReLU) is nn.ReLU
        (True, True)
    """
    if Activation in kind.__bases__:
        return stock_of(kind)
    if SqueezeExcite in kind.__bases__:
        return next(base for base in kind.__bases__ if base is not SqueezeExcite)
    return _STOCK.get(kind, kind)


def refusal(module: nn.Module) -> str | None:
    """Why a module of one of PyTorch's classes, or derived from one, is left alone; else None.

    Example:
        >>> refusal(nn.Conv2d(8, 8, 3, groups=8))
        >>> refusal(nn.Conv2d(8, 8, 3, groups=8, padding_mode="reflect"))
        "pads by 'reflect', not by zeros"
    """
    if type(module) in OURS.values():
        return "sepconv's already"
    if isinstance(module, LazyModuleMixin):
        return "lazy: its channels are known after its first call"
    if hasattr(module, "parametrizations"):
        return "parametrized: its weight is computed from others"
    if type(module) not in OURS:
        return "a class of its own, which may compute something else"
    if {"forward", "_conv_forward"} & set(vars(module)):
        return "its forward was replaced"
    if isinstance(module, nn.BatchNorm2d):
        return _normalization_refusal(module)
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    return _convolution_refusal(module)


def _convolution_refusal(conv: nn.Conv1d | nn.Conv2d) -> str | None:
    weight = conv._parameters.get("weight")
    if weight is None:
        return "its weight is computed from others, such as by weight norm"
    if weight.device.type != "cpu":
        return f"on the device {weight.device.type}"
    if conv.padding_mode != "zeros":
        return f"pads by {conv.padding_mode!r}, not by zeros"
    shape = tuple(weight.shape)
    shape = shape if len(shape) == 4 else (*shape[:2], 1, *shape[2:])
    found = geometry_of(conv)
    if found is None:
        return "of a stride, padding or dilation that PyTorch refuses"
    return kernels_refusal(shape, conv.groups, found[1], weight.dtype)


def _normalization_refusal(norm: nn.BatchNorm2d) -> str | None:
    weight = norm._parameters.get("weight")
    if weight is None:
        return "has no parameters"
    if weight.device.type != "cpu":
        return f"on the device {weight.device.type}"
    return "averages all batches alike" if norm.momentum is None else None
