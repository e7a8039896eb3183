"""Lowers a Keras model to a network: layer by layer, in the order of its graph."""

from __future__ import annotations

from typing import Any

from sepconv.models.graph import Graph, Step, Value
from sepconv.models.lowering.call import Call, refusal
from sepconv.models.lowering.checks import DTYPES, check_steps, own_dtype
from sepconv.models.lowering.programs import whole_program
from sepconv.models.lowering.table import find
from sepconv.models.optimize import fused_graph
from sepconv.models.structures import input_names
from sepconv.program.building.builder import Builder
from sepconv.program.building.narrow import narrowed
from sepconv.program.building.refusal import NotLowered
from sepconv.program.building.simplify import simplify
from sepconv.program.file import Contents
from sepconv.program.network import Input, Network

__all__ = ["lower", "lowered"]


def lower(model: Any, dtype: str | None = None) -> Network:
    """Lowers a model for inference: `sepconv.optimize`, then every layer to steps of a network.

    A network has one dtype that its inputs are converted to: images of integers are numbers of that
    dtype, too. Arithmetic of integers themselves is refused. That of one that computes in bfloat16
    is float32, and so are layers that the model computes in float32.

    Rounding aside, the network predicts what the model predicts; every layer that is not known to
    do so is refused.

    Args:
        model: a built Sequential or Functional model, also one that `sepconv.optimize` made.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"`` to compute in; None for the model's
            own.

    Returns:
        A `sepconv.program.network.Network`, which shares nothing with the model.

    Raises:
        TypeError: the model is no Sequential or Functional one.
        ValueError: it is not built, or computes in another dtype; and `NotLowered`, a ValueError,
            where a layer cannot be a part of a network. It names the layer.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.SeparableConv2D(3, 3),
        ...                           keras.layers.GlobalAveragePooling2D()])
        >>> [step.operation for step in lower(model).steps]
        ['convolution', 'reduce']
    """
    return lowered(model, dtype).network


def lowered(model: Any, dtype: str | None = None) -> Contents:
    """The network of a model as `lower` gives it, and the notes beside it.

    There are some where the model is a program and nothing else: all that its file has.

    Raises:
        TypeError: see `lower`.
        ValueError: see there.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(
            f"dtype must be {', '.join(map(repr, DTYPES))} or None for the model's own. Received: "
            f"dtype={dtype!r}"
        )
    graph = Graph(model)
    whole = whole_program(graph, dtype)
    if whole is not None:
        return whole
    own = own_dtype(graph)
    check_steps(graph, own)  # before layers are merged
    names = list(graph.model.output_names)
    graph = fused_graph(model)
    inputs = [
        Input(name, value.shape)
        for name, value in zip(input_names(graph.model), graph.inputs, strict=True)
    ]
    halves = (dtype or own) == "bfloat16"
    builder = Builder("float32" if halves else dtype or own, inputs)
    numbers = {value: i for i, value in enumerate(graph.inputs)}
    for step in graph.steps:
        _lower_step(builder, step, numbers)
    network = Network(
        builder.dtype,
        inputs,
        builder.steps,
        [numbers[value] for value in graph.outputs],
        names,
        builder.tensors,
    )
    simple = simplify(network)
    if not halves:
        return Contents(simple, {})
    wide = {step.name for step in graph.steps if any(v.dtype == "float32" for v in step.outputs)}
    return Contents(narrowed(simple, wide if own == "bfloat16" else ()), {})


def _lower_step(builder: Builder, step: Step, numbers: dict[Value, int]) -> None:
    """Writes the steps of one call."""
    builder.name = step.name
    call = Call(builder, step, numbers)
    write = find(step.operation)
    assert write is not None  # since the steps were checked
    try:
        given = write(call)
    except NotLowered:
        raise
    except ValueError as error:  # shapes that do not fit each other
        raise refusal(step, str(error)) from error
    results = given if isinstance(given, list) else [given]
    for value, number in zip(step.outputs, results, strict=True):
        _check_shape(call, value, builder.shapes[number])
        numbers[value] = number


def _check_shape(call: Call, value: Value, shape: tuple[int | None, ...]) -> None:
    """Holds a shape against Keras', as far as both know it."""
    pairs = zip(value.shape, shape, strict=False)
    if len(value.shape) != len(shape) or any(
        None not in pair and len(set(pair)) > 1 for pair in pairs
    ):
        call.refuse(f"its output has the shape {value.shape}, where {shape} was expected")
