"""Activations of other packages that compute what one of PyTorch's does, as classes of ours.

They are made when they are asked for, since the packages need not be installed. Files name them by
this module, which makes them anew when a file is loaded.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache

from torch import nn

from sepconv.modules.activation import Activation

__all__ = ["foreign_class"]

#: The names of the activations, by package, module and class.
_KNOWN = {
    "geffnet": {
        "geffnet.activations.activations": {"Swish": "silu", "HardSwish": "hard_silu"},
        "geffnet.activations.activations_me": {"SwishMe": "silu", "HardSwishMe": "hard_silu"},
    }
}


def foreign_class(kind: type[nn.Module]) -> type[nn.Module] | None:
    """Our class for one of another package's; None where that is not known.

    Example:
        >>> from geffnet.activations import HardSwishMe
        >>> foreign_class(HardSwishMe).__qualname__
        'geffnet_HardSwishMe'
        >>> foreign_class(nn.Tanh)
    """
    package = kind.__module__.partition(".")[0]
    name = _KNOWN.get(package, {}).get(kind.__module__, {}).get(kind.__name__)
    if name is None or getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
        return None
    return _made(kind, name)


@cache
def _made(kind: type[nn.Module], name: str) -> type[nn.Module]:
    # Printed as the package's, and found by `__getattr__` below.
    package = kind.__module__.partition(".")[0]
    own = {
        "__module__": __name__,
        "__qualname__": f"{package}_{kind.__name__}",
        "__doc__": f"`{package}`'s {kind.__name__}. Else as `sepconv.modules.ReLU`.",
        "_computes": name,
    }
    return type(kind.__name__, (Activation, kind), own)


def __getattr__(name: str) -> type[nn.Module]:
    package, _, class_name = name.partition("_")
    for module, classes in _KNOWN.get(package, {}).items():
        if class_name in classes:
            found = foreign_class(getattr(importlib.import_module(module), class_name))
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
