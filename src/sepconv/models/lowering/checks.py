"""What a model must be to be lowered, as far as its graph shows it before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

from keras.src.backend import standardize_dtype

from sepconv.layers.trainable_int8 import TrainableInt8
from sepconv.models.graph import OTHERWISE, Graph, Step, Value, computes_otherwise
from sepconv.models.lowering.activations import unknown_activation
from sepconv.models.lowering.call import refusal
from sepconv.models.lowering.table import find, is_operation, makes_floats, moves
from sepconv.program.building.refusal import NotLowered

__all__ = ["DTYPES", "check_inputs", "check_steps", "fits", "is_float", "obstacle", "own_dtype"]

#: The dtypes that a program may compute in.
DTYPES = ("float32", "float64", "bfloat16")


def own_dtype(graph: Graph) -> str:
    """The dtype that a model computes in; bfloat16 also where some of it is float32.

    Raises:
        ValueError: it computes in several others, in float16, or in none.
    """
    found = set(_dtypes(graph))
    if len(found) == 1 and found <= set(DTYPES):
        return found.pop()
    if found == {"bfloat16", "float32"}:
        return "bfloat16"
    if not found:
        raise ValueError(
            f"The model {graph.name!r} must compute in {' or '.join(DTYPES)}. It has no layer that "
            "computes with such numbers."
        )
    raise ValueError(
        f"The model {graph.name!r} must compute in float32 or in float64 throughout, or in "
        "bfloat16 with or without float32; float16 is not supported. "
        f"Received: layers that compute in {sorted(found)}"
    )


def _dtypes(graph: Graph) -> Iterable[str]:
    """The dtypes of floating values, and of the weights and arithmetic of layers."""
    for step in graph.steps:
        for value in step.outputs:
            if is_float(value):
                yield standardize_dtype(value.dtype)
        policy = getattr(step.operation, "dtype_policy", None)
        if policy is not None and getattr(step.operation, "weights", None):
            yield policy.compute_dtype
            yield policy.variable_dtype


def fits(dtype: str | None, own: str) -> bool:
    """Whether values of a dtype are those of a model that computes in `own`."""
    return dtype == own or (own, dtype) == ("bfloat16", "float32")


def is_float(value: Value) -> bool:
    """Whether a value is known to hold floats."""
    return value.dtype is not None and "float" in standardize_dtype(value.dtype)


def check_inputs(graph: Graph) -> None:
    """Refuses inputs that are not always arrays.

    Raises:
        NotLowered: at the first such input.
    """
    for value, tensor in zip(graph.inputs, graph.model.inputs, strict=True):
        layer = tensor._keras_history.operation
        if getattr(layer, "optional", False) or not value.dense:
            raise NotLowered(layer.name, type(layer).__name__, "it may be missing, or is sparse")


def check_steps(graph: Graph, own: str) -> None:
    """Refuses steps that no network has.

    Args:
        graph: of the model as it was given, so that errors name its layers.
        own: what `own_dtype` says of it.

    Raises:
        NotLowered: at the first such step.
    """
    check_inputs(graph)
    integers = {value for value in graph.inputs if not is_float(value)}
    for step in graph.steps:
        why = obstacle(step, own, integers)
        if why:
            raise refusal(step, why)
        if moves(step.operation) and not integers.isdisjoint(step.inputs):
            integers.update(step.outputs)


def obstacle(step: Step, own: str, integers: set[Value]) -> str:
    """Why a step is refused; empty where it is not.

    Args:
        step: of the model as it was given.
        own: the dtype of the model.
        integers: the values before the step that may hold no floats.
    """
    operation = step.operation
    if isinstance(operation, TrainableInt8):
        return "it simulates int8 to be trained; freeze the model first, by sepconv.quantize(model)"
    if find(operation) is None:
        return "it is not known"
    if computes_otherwise(operation):
        return OTHERWISE
    if getattr(operation, "quantization_mode", None) is not None:
        return "it is quantised"
    why = unknown_activation(getattr(operation, "activation", None))
    if why:
        return why
    if any(value.masked for value in step.inputs):
        return "a mask goes through it"
    if moves(operation):
        return ""
    if not all(fits(value.dtype, own) for value in step.outputs):
        found = sorted({str(value.dtype) for value in step.outputs})
        return f"its results are {', '.join(found)}, those of the model {own}"
    # Keras' layers compute with integers where they are given some, and call the results floats.
    of_integers = not integers.isdisjoint(step.inputs)
    if of_integers and not makes_floats(operation) and not is_operation(operation):
        return "it computes with integers: cast its input, or put Rescaling before it"
    return ""
