"""Compiles a Keras model to a program: a network as one native call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from sepconv.models.comparing import (
    allowed,
    differences,
    moved,
    precision,
    precision_of,
    roundings,
    within,
)
from sepconv.models.lowering import NotLowered, lowered
from sepconv.models.partial import PartialProgram, partial_program
from sepconv.models.running import run, without_collecting
from sepconv.models.structures import flat_inputs
from sepconv.models.verify import first_run
from sepconv.program.comparing import changed_outputs
from sepconv.program.program import Program, as_list
from sepconv.program.tune import as_noted, tuned

__all__ = ["compile"]


@overload
def compile(
    model: Any,
    *,
    dtype: str | None = None,
    tune: bool = False,
    partial: Literal[False] = False,
    verify: Any = True,
) -> Program: ...
@overload
def compile(
    model: Any,
    *,
    dtype: str | None = None,
    tune: bool = False,
    partial: bool,
    verify: Any = True,
) -> Program | PartialProgram: ...
def compile(
    model: Any,
    *,
    dtype: str | None = None,
    tune: bool = False,
    partial: bool = False,
    verify: Any = True,
) -> Program | PartialProgram:
    """Makes a program of a model for inference: one native call from input to output.

    `sepconv.optimize` runs first: batch normalization is folded, blocks are fused. The program
    needs NumPy alone, neither Keras nor an engine; `Program.save` writes it to a file, which
    `sepconv.load` opens.

    Args:
        model: a built Sequential or Functional model on any engine, also one that
            `sepconv.optimize` made. It stays as it is, and shares no weight with the program.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"`` to compute in; None for the model's
            own. In bfloat16, inputs and outputs are float32; the weights of convolutions and dense
            layers and what lies between the layers take half the memory, and sums are float32's.
        tune: whether to time several ways of running it on this machine, all with the same results
            to the bit, and keep the fastest. It takes some seconds, on a quiet machine.
        partial: whether to leave layers that are not known to Keras, and to compile the longest
            parts of the model without them. Such a program needs Keras, and cannot be saved.
        verify: whether to compare the program's predictions with the model's, within what
            roundings of `dtype` make of them. True makes inputs for the model; or inputs, as arrays
            that it takes.

    Returns:
        A `sepconv.program.program.Program`; with `partial`, and a model that does not compile
        whole, a `sepconv.models.partial.PartialProgram`, which is called alike, and whose `parts`
        say what was left to Keras, and why.

    Raises:
        TypeError: the model is no Sequential or Functional one.
        ValueError: it is not built, computes in float16, or predicts something else; or a layer
            is not known, or with `partial` cannot be copied: the message names it.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 4)),
        ...     keras.layers.SeparableConv2D(6, 3, padding="same", activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ... ])
        >>> program = compile(model)
        >>> program(np.ones((2, 8, 8, 4), "float32")).shape
        (2, 6)

        What programs do not know can be left to Keras:

        >>> layers = [keras.layers.Dense(4, "relu"), keras.layers.GRU(3), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((5, 6)), *layers])
        >>> partial = compile(model, partial=True)
        >>> [part.kind for part in partial.parts]
        ['program', 'keras', 'program']
    """
    compiled: Callable[..., Program] = tuned if tune else as_noted
    program: Program | PartialProgram
    try:
        found = lowered(model, dtype)
    except NotLowered:
        if not partial:
            raise
        program = partial_program(model, dtype, compiled)
    else:
        program = compiled(found.network, notes=found.notes)
    _check(model, program, verify, dtype)
    return program


def _check(model: Any, program: Program | PartialProgram, verify: Any, dtype: str | None) -> None:
    """Raises where the program predicts something else than the model."""
    if verify is False:
        return
    with without_collecting():
        inputs, outcome = first_run(model, verify, ())
        given = flat_inputs(model, inputs)
        found = as_list(program(*given))
        precise = max(precision(model), precision_of(dtype or "float64"))
        bounds = allowed(outcome.outputs, outcome.outputs, precise)
        if within(differences(outcome.outputs, found), bounds):
            return
        # How much the model's own predictions change with the last digit of the inputs.
        expected = run(model, inputs, by_engine=True).outputs
        close = run(model, moved(inputs, precise), by_engine=True).outputs
    bounds = allowed(expected, close, precise)
    if precise > precision_of("float32"):
        bounds = roundings(found, changed_outputs(program, given, precise), bounds)
    apart = differences(expected, found)
    if not within(apart, bounds):
        raise ValueError(
            f"compile: the program of {model.name!r} does not predict what the model does: its "
            f"outputs differ by {[f'{a:.1e}' for a in apart]} of the largest, where "
            f"{[f'{b:.1e}' for b in bounds]} is allowed. Give verify=False to get it anyway."
        )
