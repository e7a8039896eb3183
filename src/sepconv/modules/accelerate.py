"""Lets a PyTorch network's convolutions and normalizations compute with our kernels, in place."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from sepconv.models.record import Record
from sepconv.modules.activation import code_of
from sepconv.modules.batch_norm import BatchNorm2d
from sepconv.modules.pairing import pairs
from sepconv.modules.selecting import OURS, our_activation, our_squeeze, refusal
from sepconv.modules.verify import as_arguments, check_outputs, outputs_of

__all__ = ["Accelerated", "accelerate"]


_CLASSES: tuple[type[nn.Module], ...] = (*OURS, *OURS.values())


class Accelerated(NamedTuple):
    """The result of `accelerate`.

    Attributes:
        module: the module that was given.
        record: what was changed, what was not, and why. It prints as a table.
    """

    module: nn.Module
    record: Record


def accelerate(module: nn.Module, *, verify: Any = True) -> Accelerated:
    """Makes the modules of a PyTorch network ours where our kernels compute them, in place.

    `torch.nn.Conv1d` and `Conv2d` become `sepconv.modules`' where they are depthwise or 1x1
    convolutions, and `torch.nn.BatchNorm2d`, which they then train. Only the class of a module
    changes. Parameters, buffers, hooks, names, ``state_dict()``, `training` and what else it holds
    are the same objects as before, so an optimizer or a wrapper that was made for them goes on.
    To keep the network as it is, accelerate a copy: ``accelerate(copy.deepcopy(module))``.

    Only modules of exactly these classes are changed. Others are left alone, and the record says
    why: derived classes, weight norm and parametrizations, a replaced `forward`, lazy and quantized
    modules, other devices than the CPU.

    `torch.nn.ReLU`, `ReLU6`, `SiLU` and `Hardswish` become ours where the source of the module
    around them shows that a normalization's result goes to them and to nothing else: ``x =
    self.norm(x)`` and then ``x = self.act(x)``, ``self.act(self.norm(x))``, or neighbours in a
    `torch.nn.Sequential`. In training both are then one pass over memory, and so are their
    gradients; the record names these pairs. Each call makes sure of it anew: where either has hooks
    or was replaced, or the normalization is called from elsewhere, it computes itself alone. Where
    a large result of a convolution without bias surely goes to a normalization alone, in
    ``torch.channels_last`` memory, the gradients of these two are computed together as well.

    geffnet's squeeze-and-excite modules become ours as well: their gradients need less memory.

    Args:
        module: a network, or one module. Tensors may be contiguous or in ``torch.channels_last``
            memory, which is in most networks quicker.
        verify: inputs, as a tensor or a tuple of what `module` takes. Its outputs for them in
            evaluation mode are compared before and after. True, which has no inputs, and False
            compare nothing.

    Returns:
        `module` itself and the record.

    Raises:
        TypeError: `module` is no `torch.nn.Module`, or a `torch.jit.ScriptModule`.
        ValueError: the outputs for `verify` differ by more than rounding explains; the module is
            then as it was.

    Example:
        >>> import sepconv
        >>> module = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> _, record = sepconv.accelerate(module, verify=torch.ones(1, 8, 9, 9))
        >>> print(record)
        accelerate: 1 of 2 layers changed, verified
          yes  0  Conv2d  sepconv.modules.Conv2d
          no   2  Conv2d  an ordinary convolution, neither a depthwise nor a 1x1 one
        >>> type(module[0]).__module__
        'sepconv.modules'
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "A torch.nn.Module was expected that is not compiled by torch.jit; accelerate one "
            f"before it is. Received: {type(module).__name__}"
        )
    arguments = None if verify is True or verify is False else as_arguments(verify)
    before = None if arguments is None else outputs_of(module, arguments)
    record = Record("accelerate")
    parts = dict(module.named_modules())
    changed: dict[str, tuple[nn.Module, type[nn.Module]]] = {}
    reasons = {name: refusal(part) for name, part in parts.items() if isinstance(part, _CLASSES)}
    for name, reason in reasons.items():
        if reason is None:
            changed[name] = _change(parts[name], OURS[type(parts[name])])
    for name, part in parts.items():
        squeeze = our_squeeze(part)
        if squeeze is not None:
            changed[name] = _change(part, squeeze)
    partners = _partners(parts)
    for name in partners:
        ours = our_activation(type(parts[name]))
        if ours is not None:
            changed[name] = _change(parts[name], ours)
    for name, part in parts.items():
        if name not in reasons and name not in partners and name not in changed:
            continue
        kind = changed[name][1] if name in changed else type(part)
        note = f"sepconv.modules.{type(part).__name__}"
        if name not in changed:
            note = reasons.get(name) or "sepconv's already"
        if name in partners:
            note += f"; one pass with {', '.join(partners[name])}"
        record.add(name, kind.__name__, name in changed, note)
    if arguments is None:
        record.verification = "not verified: no inputs; verify=inputs compares outputs"
    else:
        try:
            record.verification = check_outputs(before, outputs_of(module, arguments))
        except BaseException:
            for part, kind in changed.values():
                part.__class__ = kind
            raise
    return Accelerated(module, record)


def _change(part: nn.Module, ours: type[nn.Module]) -> tuple[nn.Module, type[nn.Module]]:
    """Gives a module a class of ours; it and the class that it had."""
    kind = type(part)
    part.__class__ = ours
    return part, kind


def _partners(parts: dict[str, nn.Module]) -> dict[str, list[str]]:
    """The normalizations of ours and the activations that follow them, each with its partners."""
    names = {id(part): name for name, part in parts.items()}
    found: dict[str, list[str]] = {}
    for owner in parts.values():
        for norm, activation in pairs(owner):
            if type(norm) is not BatchNorm2d or "forward" in vars(activation):
                continue
            if our_activation(type(activation)) is None and code_of(activation) is None:
                continue
            one, other = names[id(norm)], names[id(activation)]
            for name, partner in ((one, other), (other, one)):
                if partner not in found.setdefault(name, []):
                    found[name].append(partner)
    return found
