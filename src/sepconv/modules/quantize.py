"""An int8 module of a PyTorch module: `sepconv.quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sepconv.modules.lowering import lower
from sepconv.modules.program_module import ProgramModule, argument_names
from sepconv.modules.verify import evaluated
from sepconv.quantization.calibration import gathered
from sepconv.quantization.quantize import Quantized, quantize_network

__all__ = ["quantize"]


def quantize(
    module: nn.Module,
    calibration: Any,
    *,
    keep: Sequence[str] = (),
    tolerance: float | None = None,
) -> Quantized:
    """An int8 module of a module in evaluation mode: see `sepconv.quantize`.

    Args:
        module: which `torch.export` can read, called with tensors that have the batch first. It is
            left as it was.
        calibration: a tensor or array; a tuple or list of several for several arguments; or
            batches of them.
        keep: as for `sepconv.quantize`.
        tolerance: likewise.

    Returns:
        `model`, a `sepconv.modules.program_module.ProgramModule` that takes and gives tensors as
        the module does; and `record`.

    Raises:
        TypeError: the data is of another kind.
        ValueError: as for `sepconv.quantize`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module. Received: {type(module).__name__}")
    names = argument_names(module)
    # Those without a default must be given; where none must, the first is.
    needed = [name for name, needs in names.items() if needs] or list(names)[:1] or ["x"]
    arrays = gathered(calibration, needed)
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    examples = tuple(torch.from_numpy(array[:2]).to(own) for array in arrays)
    network = lower(module, examples, dtype="float32")
    found = quantize_network(network, arrays if len(arrays) > 1 else arrays[0], keep, tolerance)
    with evaluated(module):
        structure = pytree.tree_structure(module(*examples))
    made = ProgramModule(found.program(), outputs=structure, names=needed)
    return Quantized(made, found.record)
