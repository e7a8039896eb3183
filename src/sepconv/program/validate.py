"""What a `Network` must be, whoever made it: a compiler, a file or a hand.

What depends on the shapes of values is checked where they are known, in ``native/program``.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from sepconv.program.dtypes import TENSORS, dtype_of, tensor_dtype
from sepconv.program.network import (
    MOST_AXES,
    MOST_INPUTS,
    OPERATIONS,
    QUANTIZED_OPERATIONS,
    Field,
    Input,
    Network,
    Step,
)

__all__ = ["MOST_NAME", "MOST_STEPS", "MOST_TENSORS", "check_name", "validate"]

#: The most steps of a network, tensors of one, and characters of a name.
MOST_STEPS = 1 << 15
MOST_TENSORS = 1 << 16
MOST_NAME = 1024

#: The largest integer of an attribute or a shape: doubles, and so any JSON, hold it exactly.
_LARGEST = 2**53 - 1

#: The largest number of float32.
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

_DTYPES = ("float32", "float64")

#: Least and largest integers of attributes, where those are not any.
_AXIS = (0, MOST_AXES - 1)
_POSITIVE = (1, _LARGEST)
_NOT_NEGATIVE = (0, _LARGEST)
_RANGES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("scale", "axis"): _AXIS,
    ("pool", "window"): _POSITIVE,
    ("reduce", "axes"): _AXIS,
    ("concatenate", "axis"): _AXIS,
    ("pad", "before"): _NOT_NEGATIVE,
    ("pad", "after"): _NOT_NEGATIVE,
    ("slice", "steps"): _POSITIVE,
    ("transpose", "permutation"): _AXIS,
    ("reshape", "shape"): (-1, _LARGEST),
    ("resize", "factors"): _POSITIVE,
    ("layer_normalization", "axes"): (1, MOST_AXES),
    ("softmax", "axis"): _AXIS,
    ("quantized_mean", "axes"): _AXIS,
    ("quantized_average_pool", "window"): _POSITIVE,
    **{
        (name, field.name): (0, 255)
        for name, operation in QUANTIZED_OPERATIONS.items()
        for field in operation.fields
        if field.kind == "int"
    },
}
#: Of the integers of a `sepconv.geometry.ConvSpec`.
_SPEC = (*[_POSITIVE] * 4, (0, 1), *[_NOT_NEGATIVE] * 4, (0, 1))

#: The number of axes of tensors, by their part; of others any.
_RANKS = {
    "depthwise_kernel": 4,
    "pointwise_kernel": 4,
    "depthwise_bias": 1,
    "depthwise_scale": 1,
    "depthwise_table": 1,
    "table": 1,
    "kernel": 2,
    "bias": 1,
    "scale": 1,
    "shift": 1,
}


def validate(network: Network) -> None:
    """Raises unless a network is one that `sepconv.program` can hold, run and write.

    Args:
        network: of any origin. Its integers must be `int` (not `bool`, not NumPy's), its lists
            tuples or lists, its tensors NumPy arrays of the dtypes that its steps take.

    Raises:
        ValueError: something is of the wrong type, missing, unknown or out of range; the message
            says where.

    Example:
        >>> relu = Step("unary", "relu", (0,), {"function": "relu", "a": 0.0, "b": 6.0, "c": 0.0})
        >>> network = Network("float32", [Input("x", (None, 4))], [relu], [1], ["y"], [])
        >>> validate(network)
        >>> try:
        ...     validate(network._replace(outputs=[2]))
        ... except ValueError as error:
        ...     print(error)
        outputs[0] must be 0 to 1. Received: 2
    """
    if not isinstance(network, Network):
        _fail("the network", "a sepconv.program.network.Network", network)
    if network.dtype not in _DTYPES:
        _fail("dtype", "'float32' or 'float64'", network.dtype)
    _check_list("inputs", network.inputs, 1, MOST_INPUTS)
    for i, each in enumerate(network.inputs):
        _check_input(f"inputs[{i}]", each)
    if len({each.name for each in network.inputs}) < len(network.inputs):
        _fail("inputs", "of different names", [each.name for each in network.inputs])
    _check_list("tensors", network.tensors, 0, MOST_TENSORS)
    for i, tensor in enumerate(network.tensors):
        _check_tensor(f"tensors[{i}]", tensor)
    _check_list("steps", network.steps, 0, MOST_STEPS)
    dtypes = [network.dtype] * len(network.inputs)
    for i, step in enumerate(network.steps):
        dtypes.append(_check_step(f"steps[{i}]", step, dtypes, network.tensors))
    _check_list("outputs", network.outputs, 1, MOST_INPUTS)
    for i, value in enumerate(network.outputs):
        _check_integer(f"outputs[{i}]", value, 0, len(dtypes) - 1)
        if dtypes[value] != network.dtype:
            expected = f"a value of {network.dtype}, the network's dtype, as a cast makes one"
            _fail(f"outputs[{i}]", expected, dtypes[value])
    count = len(network.outputs)
    _check_list("output_names", network.output_names, count, count)
    for i, name in enumerate(network.output_names):
        check_name(f"output_names[{i}]", name)


def check_name(where: str, name: Any) -> None:
    """Raises unless `name` can be printed: no escape sequence of a stranger's reaches a terminal.

    Raises:
        ValueError: it is not a string, has a line break or the like, or is too long.
    """
    if type(name) is not str or len(name) > MOST_NAME or not name.isprintable():
        _fail(where, f"a string of at most {MOST_NAME} printable characters", name)


def _fail(where: str, expected: str, received: Any) -> NoReturn:
    raise ValueError(f"{where} must be {expected}. Received: {reprlib.repr(received)}")


def _check_list(where: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, tuple | list):
        _fail(where, "a list or a tuple", value)
    if not least <= len(value) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(f"{where} must have {count} elements. Received: {len(value)}")


def _check_integer(where: str, value: Any, least: int, most: int) -> None:
    # Not isinstance: True is an int, too.
    if type(value) is not int or not least <= value <= most:
        if most == _LARGEST:
            _fail(where, f"an integer of at least {least}, below 2**53", value)
        _fail(where, f"{least} to {most}", value)


def _check_input(where: str, value: Any) -> None:
    if not isinstance(value, Input):
        _fail(where, "an Input", value)
    check_name(f"{where}: name", value.name)
    _check_list(f"{where}: shape", value.shape, 1, MOST_AXES)
    for size in value.shape:
        if size is not None:
            _check_integer(f"{where}: shape", size, 0, _LARGEST)


def _check_tensor(where: str, tensor: Any) -> None:
    if not isinstance(tensor, np.ndarray) or tensor.dtype not in TENSORS.values():
        received = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor)
        _fail(where, f"a NumPy array of {', '.join(map(str, TENSORS.values()))}", received)
    if tensor.ndim > MOST_AXES:
        raise ValueError(
            f"{where} must have at most {MOST_AXES} axes. Received: shape {tensor.shape}"
        )


def _check_step(where: str, step: Any, dtypes: Sequence[str], tensors: Sequence[np.ndarray]) -> str:
    """Raises unless it is a step after values of these dtypes, and gives that of its own."""
    if not isinstance(step, Step):
        _fail(where, "a Step", step)
    check_name(f"{where}: name", step.name)
    where = f"{where} ({step.name!r})"
    if type(step.operation) is not str or step.operation not in OPERATIONS:
        _fail(f"{where}: operation", f"one of {', '.join(OPERATIONS)}", step.operation)
    where = f"{where[:-1]}, {step.operation})"
    operation = OPERATIONS[step.operation]
    _check_list(f"{where}: inputs", step.inputs, *operation.inputs)
    for value in step.inputs:
        _check_integer(f"{where}: inputs", value, 0, len(dtypes) - 1)
    names = [field.name for field in operation.fields]
    _check_keys(f"{where}: attributes", step.attributes, names, names)
    for field in operation.fields:
        _check_field(f"{where}: {field.name}", step, field)
    _check_keys(f"{where}: weights", step.weights, operation.weights, operation.required)
    for part, tensor in step.weights.items():
        _check_integer(f"{where}: weights: {part}", tensor, 0, len(tensors) - 1)
        rank = _RANKS.get(part, tensors[tensor].ndim)
        if tensors[tensor].ndim != rank:
            shape = tensors[tensor].shape
            raise ValueError(f"{where}: {part} must have {rank} axes. Received: shape {shape}")
    complaint = _RULES.get(step.operation, _no_rule)(step)
    if complaint is not None:
        raise ValueError(f"{where}: {complaint}")
    parts = {part: tensor_dtype(tensors[tensor]) for part, tensor in step.weights.items()}
    try:
        return dtype_of(step, parts, [dtypes[value] for value in step.inputs])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_keys(where: str, value: Any, known: Sequence[str], required: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        _fail(where, "a mapping", value)
    for name in value:
        if name not in known:
            _fail(where, f"of {', '.join(known) or 'nothing'}", name)
    for name in required:
        if name not in value:
            raise ValueError(f"{where} must have {name!r}, which is missing")


def _check_field(where: str, step: Step, field: Field) -> None:
    value = step.attributes[field.name]
    least, most = _RANGES.get((step.operation, field.name), (-_LARGEST, _LARGEST))
    if field.kind == "int":
        _check_integer(where, value, least, most)
    elif field.kind == "flag":
        if type(value) is not bool:
            _fail(where, "True or False", value)
    elif field.kind == "float":
        _check_float(where, value)
    elif field.kind == "choice":
        if type(value) is not str or value not in field.choices:
            _fail(where, f"one of {', '.join(field.choices)}", value)
    else:
        given = (0, MOST_AXES) if field.length is None else (field.length, field.length)
        _check_list(where, value, *given)
        ranges = _SPEC if field.name == "spec" else [(least, most)] * len(value)
        for each, (least, most) in zip(value, ranges, strict=True):
            if each is not None or field.kind != "bounds":
                _check_integer(where, each, least, most)


def _check_float(where: str, value: Any) -> None:
    if type(value) is int and -_LARGEST <= value <= _LARGEST:
        return
    if type(value) is not float or math.isnan(value):
        _fail(where, "a float that is a number", value)


# ---- what holds between the attributes of a step; a rule gives the complaint, or None


def _no_rule(step: Step) -> str | None:
    return None


def _spec_rule(step: Step) -> str | None:
    spec = step.attributes["spec"]
    if spec[4] and any(spec[5:9]):
        return f"spec must have no pads of its own where they are computed. Received: {spec}"
    return None


def _convolution_rule(step: Step) -> str | None:
    if not {"depthwise_kernel", "pointwise_kernel"} & set(step.weights):
        return "weights must have 'depthwise_kernel' or 'pointwise_kernel', which are missing"
    if "depthwise_bias" in step.weights and "depthwise_kernel" not in step.weights:
        return "weights must have 'depthwise_kernel' for 'depthwise_bias', which is missing"
    return _spec_rule(step)


def _bounds_rule(step: Step, prefix: str = "") -> str | None:
    lower, upper = (step.attributes[f"{prefix}{name}"] for name in ("lower", "upper"))
    if lower > upper:
        return f"{prefix}lower must be at most {prefix}upper. Received: {lower} and {upper}"
    return _finite_rule(step)


def _finite_rule(step: Step) -> str | None:
    """Numbers that are float32 in what computes them are finite there."""
    for field in QUANTIZED_OPERATIONS[step.operation].fields:
        value = step.attributes[field.name]
        if field.kind == "float" and not abs(value) <= _LARGEST_FLOAT32:
            return f"{field.name} must be a finite float32. Received: {value}"
    return None


def _int8_convolution_rule(step: Step) -> str | None:
    weights = set(step.weights)
    for kernel, prefix in (("depthwise_kernel", "depthwise_"), ("pointwise_kernel", "")):
        parts = {f"{prefix}{part}" for part in ("bias", "scale", "table")}
        if kernel in weights and f"{prefix}scale" not in weights:
            return f"weights must have '{prefix}scale' for {kernel!r}, which is missing"
        for part in sorted(parts & weights):
            if kernel not in weights:
                return f"weights must have {kernel!r} for {part!r}, which is missing"
    return _convolution_rule(step) or _bounds_rule(step, "depthwise_")


def _quantized_convolution_rule(step: Step) -> str | None:
    return _int8_convolution_rule(step) or _bounds_rule(step)


def _quantized_mean_rule(step: Step) -> str | None:
    return _reduce_rule(step) or _finite_rule(step)


def _quantized_average_pool_rule(step: Step) -> str | None:
    return _spec_rule(step) or _finite_rule(step)


def _same_lengths(*names: str) -> Callable[[Step], str | None]:
    def rule(step: Step) -> str | None:
        lists = [step.attributes[name] for name in names]
        if len({len(each) for each in lists}) > 1:
            return f"{', '.join(names)} must be of one length. Received: {lists}"
        return None

    return rule


def _reduce_rule(step: Step) -> str | None:
    axes = step.attributes["axes"]
    return None if len(set(axes)) == len(axes) else f"axes must differ. Received: {axes}"


def _transpose_rule(step: Step) -> str | None:
    permutation = step.attributes["permutation"]
    if sorted(permutation) != list(range(len(permutation))):
        return f"permutation must have every axis once. Received: {permutation}"
    return None


def _reshape_rule(step: Step) -> str | None:
    shape = step.attributes["shape"]
    if list(shape).count(-1) > 1:
        return f"shape must have at most one -1. Received: {shape}"
    return None


def _layer_normalization_rule(step: Step) -> str | None:
    epsilon = step.attributes["epsilon"]
    if not 0 <= epsilon < math.inf:
        return f"epsilon must be finite and not negative. Received: {epsilon}"
    return None


_RULES: Mapping[str, Callable[[Step], str | None]] = {
    "convolution": _convolution_rule,
    "pool": _spec_rule,
    "reduce": _reduce_rule,
    "pad": _same_lengths("before", "after"),
    "slice": _same_lengths("starts", "stops", "steps"),
    "transpose": _transpose_rule,
    "reshape": _reshape_rule,
    "layer_normalization": _layer_normalization_rule,
    "quantize": _finite_rule,
    "dequantize": _finite_rule,
    "quantized_convolution": _quantized_convolution_rule,
    "quantized_dense": _bounds_rule,
    "dequantized_convolution": _int8_convolution_rule,
    "quantized_binary": _bounds_rule,
    "quantized_mean": _quantized_mean_rule,
    "quantized_average_pool": _quantized_average_pool_rule,
}
