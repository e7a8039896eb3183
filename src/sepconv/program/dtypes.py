"""The dtypes of a network's values and tensors: which a step takes, and which it gives.

NumPy has no bfloat16. A tensor of that dtype is an array of uint16 that holds its bits; no tensor
is one of uint16 itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sepconv.program.network import DEQUANTIZED_PRODUCTS, QUANTIZED_OPERATIONS, Network, Step

__all__ = [
    "TENSORS",
    "as_bfloat16",
    "as_float64",
    "dtype_of",
    "round_to",
    "tensor_dtype",
    "value_dtypes",
]

#: The dtypes of tensors, by the name that they have in files, and the arrays that hold them.
TENSORS: Mapping[str, np.dtype] = {
    "float32": np.dtype("float32"),
    "float64": np.dtype("float64"),
    "bfloat16": np.dtype("uint16"),
    "uint8": np.dtype("uint8"),
    "int8": np.dtype("int8"),
    "int32": np.dtype("int32"),
}

_NAMES = {dtype: name for name, dtype in TENSORS.items()}

_FLOATS = ("float32", "float64", "bfloat16")
_ANY = (*_FLOATS, "uint8")  # that values may be of

#: The dtypes of inputs that kinds of steps take, where those are not all floats; as in
#: ``native/program/operations.cc``.
_TAKES: Mapping[str, tuple[str, ...]] = {
    "pool": _ANY,
    "concatenate": _ANY,
    "pad": _ANY,
    "slice": _ANY,
    "transpose": _ANY,
    "reshape": _ANY,
    "resize": _ANY,
    "cast": ("float32", "bfloat16"),
    "quantize": ("float32",),
    **dict.fromkeys(QUANTIZED_OPERATIONS.keys() - {"quantize"}, ("uint8",)),
}

#: The dtypes of the tensors of int8 steps, by their parts without "depthwise_" before them.
_OF_INT8 = {
    "kernel": "int8",
    "pointwise_kernel": "int8",
    "bias": "int32",
    "scale": "float32",
    "table": "uint8",
}

#: What steps give where it is not of their first input's dtype.
_GIVES = {
    "quantize": "uint8",
    **dict.fromkeys(("dequantize", *DEQUANTIZED_PRODUCTS), "float32"),
}

#: Steps whose tensors are numbers a channel, which are float32 where values are bfloat16.
_OF_NUMBERS = ("scale", "layer_normalization")


def tensor_dtype(array: np.ndarray) -> str:
    """The name of a tensor's dtype.

    Raises:
        ValueError: no tensor has such a dtype.

    Example:
        >>> tensor_dtype(np.zeros(3, "uint16"))
        'bfloat16'
    """
    name = _NAMES.get(array.dtype.newbyteorder("="))
    if name is None:
        raise ValueError(f"a tensor must be of {', '.join(TENSORS)}. Received: {array.dtype}")
    return name


def value_dtypes(network: Network) -> list[str]:
    """The dtypes of all values of a network.

    Raises:
        ValueError: a step does not take what it is given; the message names it.

    Example:
        >>> from sepconv.program.network import Input
        >>> cast = Step("cast", "narrow", [0], {"dtype": "bfloat16"})
        >>> value_dtypes(Network("float32", [Input("x", (None,))], [cast], [0], ["x"], []))
        ['float32', 'bfloat16']
    """
    found = [network.dtype] * len(network.inputs)
    for step in network.steps:
        tensors = {part: tensor_dtype(network.tensors[i]) for part, i in step.weights.items()}
        try:
            found.append(dtype_of(step, tensors, [found[i] for i in step.inputs]))
        except ValueError as error:
            raise ValueError(f"The step {step.name!r} ({step.operation}): {error}") from error
    return found


def dtype_of(step: Step, tensors: Mapping[str, str], inputs: Sequence[str]) -> str:
    """The dtype of a step's value.

    Args:
        step: the step.
        tensors: the dtypes of its tensors, by their parts.
        inputs: those of its inputs.

    Raises:
        ValueError: it does not take such inputs or tensors.

    Example:
        >>> dtype_of(Step("softmax", "classes", [0], {"axis": 1}), {}, ["float32"])
        'float32'
    """
    takes = _TAKES.get(step.operation, _FLOATS)
    for dtype in inputs:
        if dtype not in takes:
            raise ValueError(f"inputs must be of {_either(takes)}. Received: {dtype}")
    if len(set(inputs)) > 1:
        raise ValueError(f"inputs must be of one dtype. Received: {', '.join(inputs)}")
    if step.operation == "constant":
        if tensors["value"] not in _ANY:
            raise ValueError(f"value must be of {_either(_ANY)}. Received: {tensors['value']}")
        return tensors["value"]
    (x, *_) = inputs
    numbers = x == "bfloat16" and step.operation in _OF_NUMBERS
    for part, dtype in tensors.items():
        expected = "float32" if numbers else x
        if step.operation in QUANTIZED_OPERATIONS:
            expected = _OF_INT8[part.removeprefix("depthwise_")]
            if dtype != expected:
                raise ValueError(f"{part} must be of {expected}. Received: {dtype}")
        elif dtype != expected:
            raise ValueError(f"{part} must be of {expected}, as its inputs say. Received: {dtype}")
    complaint = _of_bytes(step) if x == "uint8" else None
    if complaint is not None:
        raise ValueError(complaint)
    if step.operation == "cast":
        return step.attributes["dtype"]
    return _GIVES.get(step.operation, x)


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _of_bytes(step: Step) -> str | None:
    """What is wrong with a step of uint8; None where nothing is."""
    given = step.attributes
    if step.operation == "pool" and given["function"] != "max":
        return f"function must be 'max' for inputs of uint8. Received: {given['function']!r}"
    if step.operation == "resize" and given["interpolation"] != "nearest":
        return (
            f"interpolation must be 'nearest' for inputs of uint8. Received: "
            f"{given['interpolation']!r}"
        )
    if step.operation == "pad" and not (0 <= given["value"] <= 255 and given["value"] % 1 == 0):
        return f"value must be whole, 0 to 255, for inputs of uint8. Received: {given['value']}"
    return None


# ---- numbers


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    """The bits of numbers that are rounded to bfloat16: to the nearest, ties to even.

    Args:
        array: of any floats; float64 is rounded once, not to float32 first.

    Returns:
        An array of uint16. NaN stays NaN, and what is too large becomes infinite.

    Example:
        >>> [hex(bits) for bits in as_bfloat16(np.array([1.0, 1.00390625, -np.inf]))]
        ['0x3f80', '0x3f80', '0xff80']
    """
    exact = np.asarray(array)
    with np.errstate(all="ignore"):
        near = exact.astype(np.float32)
        back = near.astype(np.float64)
        # In 64 bits, where nothing overflows.
        bits = near.view(np.uint32).astype(np.int64)
        # Where float32 rounded, it is cut instead, and its last bit says that something was cut:
        # so that a number above the middle of two is no tie.
        inexact = (back != exact) & np.isfinite(exact)
        bits = np.where(inexact, (bits - (np.abs(back) > np.abs(exact))) | 1, bits)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(exact), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def as_float64(tensor: np.ndarray) -> np.ndarray:
    """The numbers of a tensor of any dtype.

    Example:
        >>> as_float64(np.array([0x3F80], "uint16"))
        array([1.])
    """
    if tensor_dtype(tensor) != "bfloat16":
        return tensor.astype(np.float64)
    return (tensor.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def round_to(dtype: str, values: np.ndarray) -> np.ndarray:
    """Numbers as a value of a dtype holds them, in float64.

    Example:
        >>> round_to("bfloat16", np.array([3.14159]))
        array([3.140625])
    """
    if dtype == "bfloat16":
        return as_float64(as_bfloat16(values))
    with np.errstate(all="ignore"):
        return values.astype(TENSORS[dtype]).astype(np.float64)
