"""Compiles a PyTorch module to a program: a network as one native call, without Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sepconv.modules.lowering import lowered
from sepconv.modules.verify import as_arguments, outputs_of
from sepconv.program.comparing import (
    allowed,
    changed_outputs,
    differences,
    moved_array,
    roundings,
    within,
)
from sepconv.program.program import Program, as_list
from sepconv.program.tune import as_noted, tuned

__all__ = ["compile"]

_EPSILON = 2.0**-23  # of float32, since inputs are of that as a rule
_HALF_EPSILON = 2.0**-7  # of bfloat16

#: Batches that a program with an open batch is compared with, besides the examples.
_BATCHES = (1, 3)


def compile(
    module: nn.Module,
    example_inputs: Any,
    *,
    dynamic_shapes: Any = None,
    dtype: str | None = None,
    tune: bool = False,
    verify: Any = True,
) -> Program:
    """Makes a program of a module in evaluation mode: one native call from input to output.

    Args:
        module: which `torch.export` can read. It stays as it is, and shares no weight with the
            program.
        example_inputs: a tensor, or a tuple of what the module is called with.
        dynamic_shapes: which sizes are open, as for `torch.export.export`. None opens the first
            axis of every input, and fixes the others to those of the examples.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"`` to compute in; None for the module's
            own. Of bfloat16, inputs and outputs are float32: see `sepconv.compile`.
        tune: as for `sepconv.compile`.
        verify: whether to compare the program's results with the module's, on the examples and on
            other inputs of batches of 1 and 3; or a tensor or tuple to compare them on as well.

    Returns:
        A program that takes and gives arrays with PyTorch's order of axes.

    Raises:
        TypeError: `module` is no module, or there are no `example_inputs`.
        ValueError: `torch.export` cannot read it, it computes in half precision, or the program
            gives something else; or an operation is not known: the message names it, and the
            module that it is in.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        >>> program = compile(layers, torch.zeros(1, 3, 10, 10))
        >>> program(np.ones((2, 3, 10, 10), "float32")).shape
        (2, 8, 8, 8)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module. Received: {type(module).__name__}")
    if example_inputs is None:
        raise TypeError(
            "sepconv.compile needs example_inputs for a PyTorch module: a tensor, or a tuple of "
            "what it is called with, such as torch.zeros(1, 3, 224, 224). Received: None"
        )
    examples = as_arguments(example_inputs)
    found = lowered(module, examples, dynamic_shapes=dynamic_shapes, dtype=dtype)
    make: Callable[..., Program] = tuned if tune else as_noted
    program = make(found.network, notes=found.notes)
    if verify is not False:
        precise = _HALF_EPSILON if dtype == "bfloat16" else _EPSILON
        _check(module, program, examples, dynamic_shapes is None, verify, precise)
    return program


def _check(
    module: nn.Module,
    program: Program,
    examples: tuple[Any, ...],
    open_batch: bool,
    verify: Any,
    precise: float,
) -> None:
    """Raises where the program gives something else than the module."""
    rng = np.random.default_rng(0)
    trials = [examples] + ([] if verify is True else [as_arguments(verify)])
    batches: tuple[int | None, ...] = _BATCHES if open_batch else (None,)
    trials += [_mapped(examples, partial(_drawn, batch=batch, rng=rng)) for batch in batches]
    for inputs in trials:
        expected = _results(module, inputs)
        given = [_array(x) for x in torch.utils._pytree.tree_leaves(inputs)]
        found = as_list(program(*given))
        apart = differences(expected, _as_dtypes(found, expected))
        if within(apart, allowed(expected, expected, precise)):
            continue
        # How much the module's own results change with the last digit of the inputs.
        close = _results(module, _mapped(inputs, partial(_moved, rng=rng, epsilon=precise)))
        bounds = allowed(expected, close, precise)
        if precise == _HALF_EPSILON:
            bounds = roundings(found, changed_outputs(program, given, precise), bounds)
        if not within(apart, bounds):
            raise ValueError(
                f"compile: the program of this {type(module).__name__} does not give what the "
                f"module does: its outputs differ by {[f'{a:.1e}' for a in apart]} of the largest, "
                f"where {[f'{b:.1e}' for b in bounds]} is allowed. Give verify=False to get it "
                "anyway."
            )


def _results(module: nn.Module, inputs: Sequence[Any]) -> list[np.ndarray]:
    return [_array(tensor) for tensor in outputs_of(module, tuple(inputs))]


def _as_dtypes(found: list[np.ndarray], like: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays in the dtypes of others, since a program may compute in another than its module."""
    return [array.astype(same.dtype) for array, same in zip(found, like, strict=False)]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _mapped(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Inputs with a function applied to each tensor."""
    return torch.utils._pytree.tree_map(
        lambda x: function(x) if isinstance(x, Tensor) else x, inputs
    )


def _drawn(x: Tensor, batch: int | None, rng: np.random.Generator) -> Tensor:
    """Other values like those of an example: random floats, or what it has in another order."""
    shape = (x.shape[0] if batch is None else batch, *x.shape[1:])
    array = _array(x)
    if array.dtype.kind == "f":
        spread = float(array.std()) or 1.0
        values = (array.mean() + spread * rng.standard_normal(shape)).astype(array.dtype)
    else:
        values = rng.choice(array.reshape(-1), shape).astype(array.dtype)
    return torch.from_numpy(values).to(x.device)


def _moved(x: Tensor, rng: np.random.Generator, epsilon: float) -> Tensor:
    return torch.from_numpy(moved_array(_array(x), epsilon, rng)).to(x.device)
