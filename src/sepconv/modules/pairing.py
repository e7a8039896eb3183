"""Which module surely gets another's result, alone and with nothing between the two.

A normalization computes the activation after it, too, only in a call of which all this holds: it
was called by the module that has both, at a place of which `call_sites` proves that the result goes
to that activation alone; the module still has both under these names; neither has hooks or a
`forward` of its own that would see what is between, and no mode sees every function; and the
activation is one of ours, which knows a result that is meant for it. Nothing is stored in modules,
so copies, files and replaced modules need no care. Any other call computes the normalization alone.
The same holds of a convolution and the normalization whose gradients are computed together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from sepconv.modules.call_sites import NEXT, Site, sites

__all__ = ["following", "pairs"]

_CALL = nn.Module._call_impl.__code__
_WRAPPED: Any = getattr(nn.Module._wrapped_call_impl, "__code__", None)
_function_modes = torch._C._len_torch_function_stack
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(getattr(torch_module, f"_global{name}") for name in _HOOKS)


def following(module: nn.Module) -> nn.Module | None:
    """The module that is called next, with the result of `module`, and that alone sees it.

    To be called by the `forward` of `module`.

    Returns:
        The module; None where that is not certain.
    """
    # forward, then PyTorch's two functions that call it; with hooks there are others.
    frame: FrameType | None = sys._getframe(1).f_back
    if frame is None or frame.f_code is not _CALL:
        return None
    frame = frame.f_back
    if frame is None or frame.f_code is not _WRAPPED:
        return None
    frame = frame.f_back
    if frame is None:
        return None
    site = sites(frame.f_code).get(frame.f_lasti)
    if site is None:
        return None
    names = frame.f_locals
    owner = names[site.owner]
    if type(names) is dict:
        names.clear()  # before Python 3.13 a copy, which would keep what it has alive
    if not isinstance(owner, nn.Module):
        return None
    after = _after(owner, module, site)
    if after is None or not (_is_plainly_called(module) and _is_plainly_called(after)):
        return None
    return None if any(_GLOBAL_HOOKS) or _function_modes() else after


def pairs(owner: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The modules of which one surely gets the result of the other, somewhere in their owner.

    Example:
        >>> layers = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
        >>> [(type(one).__name__, type(other).__name__) for one, other in pairs(layers)]
        [('BatchNorm2d', 'ReLU')]
    """
    for site in sorted(_sites_of_class(type(owner))):
        for name, module in owner._modules.items():
            if module is not None and site.first in (name, NEXT):
                after = _after(owner, module, site)
                if after is not None:
                    yield module, after


def _sites_of_class(kind: type) -> set[Site]:
    found: set[Site] = set()
    for each in kind.__mro__:
        if each is nn.Module:
            break
        for value in vars(each).values():
            if isinstance(value, FunctionType):
                found.update(sites(value.__code__).values())
    return found


def _after(owner: nn.Module, module: nn.Module, site: Site) -> nn.Module | None:
    """The module to which the result of another goes at a site; None where they are not there."""
    kind, parts = type(owner), owner._modules
    if site.first == NEXT:
        if getattr(kind, "__iter__", None) is not nn.Sequential.__iter__:
            return None
        row = list(parts.values())
        places = [place for place, each in enumerate(row) if each is module]
        return row[places[0] + 1] if len(places) == 1 and places[0] + 1 < len(row) else None
    if parts.get(site.first) is not module or site.second in vars(owner):
        return None
    if hasattr(kind, site.second) or kind.__getattr__ is not nn.Module.__getattr__:
        return None
    if kind.__getattribute__ is not object.__getattribute__:
        return None
    return parts.get(site.second)


def _is_plainly_called(module: nn.Module) -> bool:
    """Whether a call of a module runs its class' `forward` and nothing else."""
    own = vars(module)
    if "forward" in own or own.get("_compiled_call_impl") is not None:
        return False
    return not any(own.get(name) for name in _HOOKS)
