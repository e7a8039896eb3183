"""`torch.nn`'s activations that a normalization before them may have computed along with its own.

`sepconv.modules.pairing` says when. Then the result of the normalization is marked for one
activation, which returns it as it is.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sepconv.fused import BLOCK_ACTIVATIONS

__all__ = ["Activation", "Hardswish", "ReLU", "ReLU6", "SiLU", "code_of", "mark", "stock_of"]

_MARK = "_sepconv_activated_for"

_is_compiling = torch.compiler.is_compiling


def mark(activated: Tensor, activation: nn.Module) -> None:
    """Says that a tensor is what an activation of ours is going to be called for."""
    setattr(activated, _MARK, activation)


def code_of(module: Any) -> int | None:
    """The number in C++ of what an activation of ours computes; None of any other module.

    Example:
        >>> code_of(ReLU()), code_of(nn.ReLU())
        (1, None)
    """
    kind = type(module)
    # The class itself: what is derived from it may compute something else.
    name = vars(kind).get("_computes") if issubclass(kind, Activation) else None
    if name is None or stock_of(kind).forward is not kind._stock_forward:
        return None
    if name == "relu6" and (module.min_val, module.max_val) != (0, 6):
        return None
    return BLOCK_ACTIVATIONS[name]


def stock_of(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that one of ours is derived from."""
    return next(base for base in kind.__bases__ if base is not Activation)


class Activation(nn.Module):
    """What ours have in common: an input that is marked for one of them is returned as it is."""

    _computes: ClassVar[str]  # its name in programs
    _stock_forward: ClassVar[Any]  # that of the class which it is derived from, unless replaced

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._stock_forward = stock_of(cls).forward

    def forward(self, input: Tensor) -> Tensor:
        """The activated `input`."""
        # What compilers trace has no marks.
        if type(input) is Tensor and not _is_compiling() and _MARK in input.__dict__:
            if input.__dict__.pop(_MARK) is self:
                return input
            raise RuntimeError(
                "This activation got what a normalization had computed for another one, which "
                "should be impossible. Please report it; sepconv.to_stock(network) goes round it."
            )
        y: Tensor = super().forward(input)
        return y


class ReLU(Activation, nn.ReLU):
    """`torch.nn.ReLU`, which `BatchNorm2d` computes along with its own result where that is safe.

    Example:
        >>> import torch
        >>> ReLU()(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    _computes = "relu"


class ReLU6(Activation, nn.ReLU6):
    """`torch.nn.ReLU6`. Else as `ReLU`.

    Example:
        >>> import torch
        >>> ReLU6()(torch.tensor([-1.0, 8.0]))
        tensor([0., 6.])
    """

    _computes = "relu6"


class SiLU(Activation, nn.SiLU):
    """`torch.nn.SiLU`. Else as `ReLU`.

    Example:
        >>> import torch
        >>> SiLU()(torch.tensor([0.0]))
        tensor([0.])
    """

    _computes = "silu"


class Hardswish(Activation, nn.Hardswish):
    """`torch.nn.Hardswish`. Else as `ReLU`.

    Example:
        >>> import torch
        >>> Hardswish()(torch.tensor([-3.0, 3.0]))
        tensor([-0., 3.])
    """

    _computes = "hard_silu"


for _class in (ReLU, ReLU6, SiLU, Hardswish):
    _class.__module__ = "sepconv.modules"  # which files name
