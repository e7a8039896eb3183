"""An int8 program of a PyTorch module: `sepconv.quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepconv.modules.lowering import lower
from sepconv.program.network import Input
from sepconv.program.program import Program
from sepconv.quantization.calibration import arrays_of
from sepconv.quantization.quantize import Quantized, quantize_network

__all__ = ["quantize"]


def quantize(
    module: nn.Module,
    calibration: Any,
    *,
    keep: Sequence[str] = (),
    tolerance: float | None = None,
) -> Quantized:
    """An int8 program of a module in evaluation mode: see `sepconv.quantize`.

    Args:
        module: which `torch.export` can read, called with tensors that have the batch first. It is
            left as it was.
        calibration: a tensor or array; a tuple or list of several for several arguments; or
            batches of them.
        keep: see there.
        tolerance: see there.

    Returns:
        `model`, a program that takes and gives arrays with PyTorch's order of axes; and `record`.

    Raises:
        TypeError: the data is of another kind.
        ValueError: see there.
    """
    import inspect

    parameters = inspect.signature(module.forward).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty and each.kind < 2]
    names = required or ["x"]
    raise NotImplementedError(names)
