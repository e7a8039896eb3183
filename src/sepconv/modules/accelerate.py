"""Lets a PyTorch network's convolutions and normalizations compute with our kernels, in place."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from sepconv.models.record import Record
from sepconv.modules.selecting import OURS, refusal
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
    changed: list[tuple[nn.Module, type[nn.Module]]] = []
    for name, part in module.named_modules():
        if not isinstance(part, _CLASSES):
            continue
        kind: type[nn.Module] = type(part)
        reason = refusal(part)
        if reason is None:
            part.__class__ = OURS[kind]
            changed.append((part, kind))
        note = reason or f"sepconv.modules.{OURS[kind].__name__}"
        record.add(name, kind.__name__, reason is None, note)
    if arguments is None:
        record.verification = "not verified: no inputs; verify=inputs compares outputs"
    else:
        try:
            record.verification = check_outputs(before, outputs_of(module, arguments))
        except BaseException:
            for part, kind in changed:
                part.__class__ = kind
            raise
    return Accelerated(module, record)
