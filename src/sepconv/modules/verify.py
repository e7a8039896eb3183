"""Compares a PyTorch network's outputs before and after a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["as_arguments", "check_outputs", "evaluated", "outputs_of"]

#: How far outputs of a dtype may differ by rounding, relative to the largest. What is allowed of
#: bfloat16 holds for every other dtype.
_MOST = {torch.float64: 1e-9, torch.float32: 1e-4}
_MOST_OF_OTHERS = 0.1


def as_arguments(verify: Any) -> tuple[Any, ...]:
    """Inputs as the tuple of arguments that a module is called with."""
    return tuple(verify) if isinstance(verify, tuple | list) else (verify,)


def outputs_of(module: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    """The tensors that a module gives in evaluation mode, which is left as it was.

    Random numbers are drawn from the same state each time, which is restored.
    """
    with evaluated(module):
        return _tensors(module(*arguments))


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """A context in which a module evaluates, without gradients, and draws the same numbers."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        for part, training in modes:
            part.training = training


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.clone()]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


def check_outputs(
    before: list[Tensor] | None, after: list[Tensor], title: str = "accelerate"
) -> str:
    """Says by how much outputs differ; raises where it is more than rounding explains.

    `title` is what errors begin with.

    Example:
        >>> check_outputs([torch.ones(2)], [torch.ones(2)])
        'verified: the outputs differ by at most 0e+00 of the largest'
    """
    worst = 0.0
    for old, new in zip(before or [], after, strict=True):
        if old.shape != new.shape or old.dtype != new.dtype:
            raise ValueError(
                f"{title}: the module's outputs changed from "
                f"{tuple(old.shape)} of {old.dtype} to {tuple(new.shape)} of {new.dtype}."
            )
        if old.numel() == 0 or not old.is_floating_point():
            continue
        largest = float(old.abs().nan_to_num(0, 0, 0).max())
        odd = ~old.isfinite()
        difference = float((new - old)[~odd].abs().max()) if not odd.all() else 0.0
        relative = difference / largest if largest else difference
        most = _MOST.get(old.dtype, _MOST_OF_OTHERS)
        same = torch.equal(old[odd].nan_to_num(), new[odd].nan_to_num())
        if not same or not relative <= most:
            raise ValueError(
                f"{title}: the module's outputs differ by more than rounding explains; "
                "verify=False skips the comparison. "
                f"Received: a difference of {relative:.0e} of the largest output"
            )
        worst = max(worst, relative)
    return f"verified: the outputs differ by at most {worst:.0e} of the largest"
