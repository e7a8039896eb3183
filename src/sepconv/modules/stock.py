"""Makes a PyTorch network's modules PyTorch's own again, in place."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from sepconv.modules.selecting import OURS, stock_class

__all__ = ["to_stock"]


def to_stock(module: nn.Module) -> nn.Module:
    """Makes sepconv's modules in a PyTorch network `torch.nn`'s own again, in place.

    The inverse of `sepconv.modules.accelerate.accelerate`: only the classes of modules change. Do
    this before a network is pickled, exported (`torch.export`, `torch.onnx`) or compiled
    (`torch.jit`) for a machine or runtime without sepconv. A ``state_dict()`` is the same before
    and after.

    Args:
        module: a network, or one module.

    Returns:
        `module` itself.

    Raises:
        ValueError: a module of ours was parametrized since; the message names it. Nothing has
            changed then.

    Example:
        >>> import sepconv
        >>> module, _ = sepconv.accelerate(nn.Conv2d(8, 8, 3, groups=8))
        >>> type(sepconv.to_stock(module)) is nn.Conv2d
        True
    """
    parts = dict(module.named_modules())
    for name, part in parts.items():
        if parametrize.is_parametrized(part) and isinstance(part, tuple(OURS.values())):
            raise ValueError(
                f"The module {name!r} was parametrized after it became sepconv's. Remove that "
                "with torch.nn.utils.parametrize.remove_parametrizations, or call to_stock first."
            )
    for part in parts.values():
        kind = stock_class(type(part))
        if kind is not type(part):
            part.__class__ = kind
    return module
