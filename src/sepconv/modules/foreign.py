"""Activations and squeeze-and-excite modules of other packages, as classes of ours.

They are made when they are asked for, since the packages need not be installed. Files name them by
this module, which makes them anew when a file is loaded.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import Any

from torch import nn

from sepconv.modules.activation import Activation
from sepconv.modules.squeeze import SqueezeExcite, runs

__all__ = ["foreign_class", "foreign_squeeze"]

#: The names of the activations, by package, module and class.
_KNOWN = {
    "geffnet": {
        "geffnet.activations.activations": {"Swish": "silu", "HardSwish": "hard_silu"},
        "geffnet.activations.activations_me": {"SwishMe": "silu", "HardSwishMe": "hard_silu"},
    }
}

#: The squeeze-and-excite modules, by package and module, and what their `forward` is.
_SQUEEZES = {"geffnet": {"geffnet.efficientnet_builder": ("SqueezeExcite",)}}
_SQUEEZE_FORWARD = """
def forward(self, x):
    x_se = x.mean((2, 3), keepdim=True)
    x_se = self.conv_reduce(x_se)
    x_se = self.act1(x_se)
    x_se = self.conv_expand(x_se)
    x = x * self.gate_fn(x_se)
    return x
"""


def foreign_squeeze(kind: type[nn.Module]) -> type[nn.Module] | None:
    """Our class for another package's squeeze-and-excite module; None where that is not known.

    Example:
        >>> from geffnet.efficientnet_builder import SqueezeExcite
        >>> foreign_squeeze(SqueezeExcite).__qualname__
        'geffnet_SqueezeExcite'
        >>> foreign_squeeze(nn.Identity)
    """
    package = kind.__module__.partition(".")[0]
    known = _SQUEEZES.get(package, {}).get(kind.__module__, ())
    own = _as_imported(kind) if kind.__name__ in known else None
    # Looked at each time, since a class may be changed after it was imported.
    if own is None or not runs(vars(kind).get("forward"), _SQUEEZE_FORWARD):
        return None
    return _made_squeeze(own)


@cache
def _made_squeeze(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (SqueezeExcite, kind), _named(kind))


def _as_imported(kind: type[nn.Module]) -> Any:
    """A class itself; None where its module has another by its name."""
    found = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
    return found if found is kind else None


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
    own = None if name is None else _as_imported(kind)
    return None if name is None or own is None else _made(own, name)


@cache
def _made(kind: type[nn.Module], name: str) -> type[nn.Module]:
    return type(kind.__name__, (Activation, kind), _named(kind) | {"_computes": name})


def _named(kind: type[nn.Module]) -> dict[str, Any]:
    """What a class of ours is called: printed as the package's, and found by `__getattr__`."""
    package = kind.__module__.partition(".")[0]
    return {
        "__module__": __name__,
        "__qualname__": f"{package}_{kind.__name__}",
        "__doc__": f"`{package}`'s {kind.__name__}, computed as the package computes it.",
    }


def __getattr__(name: str) -> type[nn.Module]:
    package, _, class_name = name.partition("_")
    for known, ours in ((_KNOWN, foreign_class), (_SQUEEZES, foreign_squeeze)):
        for module, classes in known.get(package, {}).items():
            if class_name in classes:
                found = ours(getattr(importlib.import_module(module), class_name))
                if found is not None:
                    return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
