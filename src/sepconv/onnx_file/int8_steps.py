"""Steps of int8 as ONNX nodes: in floats, between a DequantizeLinear and a QuantizeLinear.

Of steps that give float32, no QuantizeLinear follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from sepconv.onnx_file.call import Call, Written
from sepconv.onnx_file.float_steps import averaged, mean
from sepconv.onnx_file.functions import clipped, unary
from sepconv.onnx_file.tables import function_of_table
from sepconv.onnx_file.windows import arranged, convolution
from sepconv.quantization.origin import Rounding
from sepconv.quantization.ranges import Scale

__all__ = ["INT8_STEPS"]

_INT32 = np.iinfo(np.int32)


class _Bytes(NamedTuple):
    """Bytes in the graph, and what they stand for."""

    name: str
    scale: Scale


def _bounded(call: Call, x: str, scale: Scale, prefix: str) -> str:
    """Numbers between the bounds of a step, where rounding alone does not keep them there."""
    lower, upper = (call.given[f"{prefix}{bound}"] for bound in ("lower", "upper"))
    least = -math.inf if lower == 0 else (lower - scale.zero_point) * scale.scale
    greatest = math.inf if upper == 255 else (upper - scale.zero_point) * scale.scale
    return x if (lower, upper) == (0, 255) else clipped(call, x, least, greatest)


def _looked_up(call: Call, x: str, table: np.ndarray, rounding: Rounding) -> _Bytes:
    """Bytes by a table: as the function that it is of, or else as they are looked up."""
    step = function_of_table(table, rounding)
    if step is None:
        index = call.node("Cast", x, to=_INT32_TYPE)
        name = call.node("Gather", call.constant(table, "table", np.uint8), index, axis=0)
        return _Bytes(name, rounding.result)
    given = step.attributes
    y = call.graph.dequantized(x, rounding.scale)
    y = unary(call, y, given["function"], given["a"], given["b"], given["c"])
    return _Bytes(call.graph.rounded(y, rounding.result), rounding.result)


#: ONNX's number of int32, as in TensorProto.
_INT32_TYPE = 6


def _rounded(call: Call, y: str, rounding: Rounding, prefix: str) -> _Bytes:
    """What follows the sums of a part: bounds, rounding and maybe a table."""
    bounded = _bounded(call, y, rounding.scale, prefix)
    name = call.graph.rounded(bounded, rounding.scale)
    table = call.tensor(f"{prefix}table")
    if table is None:
        return _Bytes(name, rounding.scale)
    return _looked_up(call, name, table, rounding)


def _weights(
    call: Call, prefix: str, kernel: np.ndarray, axis: int, x: float, y: float
) -> tuple[str, np.ndarray]:
    """Weights as numbers, and the scales of the sums, of which biases are."""
    multipliers = call.tensor(f"{prefix}scale")
    assert multipliers is not None
    scales = (multipliers.astype(np.float64) * y / x).astype(np.float32)
    suffix = f"{prefix}kernel"
    return call.graph.weights(kernel, scales, axis, suffix), scales * np.float32(x)


def _convolution(call: Call) -> Written:
    given, kernel = call.given, call.tensor("pointwise_kernel")
    source = call.scale_of(0, given["input_zero_point"])
    x = call.image(0, source)
    middle: _Bytes | None = None
    if "depthwise_kernel" in call.step.weights:
        rounding = call.roundings[0]
        array = call.tensor("depthwise_kernel")
        assert array is not None
        bias = call.tensor("depthwise_bias")
        y = _filtered(call, x, "depthwise_", array, bias, source.scale, rounding.scale.scale)
        middle = _rounded(call, y, rounding, "depthwise_")
        if kernel is None:
            return _as_image(call, middle)
    assert kernel is not None
    bias = call.tensor("bias")
    if middle is not None:
        source, bias = _recentered(call, middle.scale, kernel, bias)
        x = call.graph.dequantized(middle.name, source)
    whole = call.step.operation == "quantized_convolution"
    sums = call.roundings[-1].scale.scale if whole else 1.0
    y = _filtered(call, x, "", kernel, bias, source.scale, sums, plain=middle is not None)
    if not whole:
        return call.written_image(y)
    if len(call.step.inputs) > 1:
        factor = given["residual_scale"]
        if factor < 0:
            call.refuse(f"its residual_scale is negative, {factor}")
        added = _near(call, 1, factor * sums, given["residual_zero_point"])
        y = call.node("Add", y, call.image(1, added))
    return _as_image(call, _rounded(call, y, call.roundings[-1], ""))


def _as_image(call: Call, made: _Bytes) -> Written:
    return call.written_image(made.name, made.scale)._replace(whole=True)


def _recentered(
    call: Call, scale: Scale, kernel: np.ndarray, bias: np.ndarray | None
) -> tuple[Scale, np.ndarray | None]:
    """What the product of a separable convolution is to take the bytes for, and its biases.

    A table's results may have another zero point than the one that the product subtracts, with the
    difference in the biases.
    """
    own = call.given["depthwise_zero_point"]
    apart = scale.zero_point - own
    if not apart:
        return scale, bias
    whole = (0 if bias is None else bias.astype(np.int64)) + apart * kernel[0, 0].astype(
        np.int64
    ).sum(0)
    if whole.min() < _INT32.min or whole.max() > _INT32.max:
        return scale._replace(zero_point=own), bias
    return scale, whole.astype(np.int32)


def _filtered(
    call: Call,
    x: str,
    prefix: str,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    source: float,
    rounding: float,
    *,
    plain: bool = False,
) -> str:
    """The sums of a part of a convolution, as numbers."""
    depthwise = bool(prefix)
    flat = arranged(kernel, depthwise, len(call.shape()))
    weights, scales = _weights(call, prefix, flat, 0, source, rounding)
    biases = None if bias is None else call.graph.weights(bias, scales, 0, f"{prefix}bias")
    return convolution(call, x, weights, biases, kernel.shape, depthwise=depthwise, plain=plain)


def _near(call: Call, index: int, scale: float, zero_point: int) -> Scale:
    """What an input is taken for: the scale that it was rounded to, where that is the same."""
    own = call.scale_of(index, zero_point)
    same = abs(scale - own.scale) <= 1e-5 * own.scale
    return own if same else Scale(float(np.float32(scale)), zero_point)


def _dense(call: Call) -> Written:
    kernel, bias = call.tensor("kernel"), call.tensor("bias")
    assert kernel is not None
    source = call.scale_of(0, call.given["input_zero_point"])
    whole = call.step.operation == "quantized_dense"
    sums = call.roundings[0].scale.scale if whole else 1.0
    weights, scales = _weights(call, "", kernel, 1, source.scale, sums)
    added = [] if bias is None else [call.graph.weights(bias, scales, 0, "bias")]
    x = call.real(0, False, source)
    if len(call.shape()) == 2:
        y = call.node("Gemm", x, weights, *added)
    else:
        y = call.node("MatMul", x, weights)
        y = call.node("Add", y, *added) if added else y
    if not whole:
        return Written(y)
    made = _rounded(call, y, call.roundings[0], "")
    return Written(made.name, False, made.scale, whole=True)


def _binary(call: Call) -> Written:
    given, first, target = call.given, call.goes_first(), call.roundings[0].scale
    points = given["a_zero_point"], given["b_zero_point"]
    if given["function"] == "multiply":
        operation = "Mul"
        b = call.scale_of(1, points[1])
        a = _near(call, 0, given["a_scale"] * target.scale / b.scale, points[0])
    else:
        operation = "Sub" if given["b_scale"] < 0 else "Add"
        a = _near(call, 0, given["a_scale"] * target.scale, points[0])
        b = _near(call, 1, abs(given["b_scale"]) * target.scale, points[1])
    if given["a_scale"] < 0:
        call.refuse(f"its a_scale is negative, {given['a_scale']}")
    y = call.node(operation, call.real(0, first, a), call.real(1, first, b))
    return Written(_bounded(call, y, target, ""), first, target)


def _lookup(call: Call) -> Written:
    table, value = call.tensor("table"), call.step.inputs[0]
    assert table is not None
    first = call.goes_first()
    made = _looked_up(call, call.graph.whole(value, first), table, call.roundings[0])
    return Written(made.name, first, made.scale, whole=True)


def _mean(call: Call) -> Written:
    target = call.roundings[0].scale
    return mean(call, call.given["input_zero_point"])._replace(scale=target)


def _average_pool(call: Call) -> Written:
    x = call.image(0, call.scale_of(0, call.given["input_zero_point"]))
    return call.written_image(averaged(call, x), call.roundings[0].scale)


def _quantize(call: Call) -> Written:
    first = call.goes_first()
    return Written(call.real(0, first), first, call.roundings[0].scale)


def _dequantize(call: Call) -> Written:
    first = call.goes_first()
    source = Scale(float(np.float32(call.given["scale"])), call.given["zero_point"])
    return Written(call.real(0, first, source), first)


#: What writes a step, by its operation.
INT8_STEPS: Mapping[str, Callable[[Call], Written]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "quantized_convolution": _convolution,
    "quantized_dense": _dense,
    "dequantized_convolution": _convolution,
    "dequantized_dense": _dense,
    "quantized_binary": _binary,
    "lookup": _lookup,
    "quantized_mean": _mean,
    "quantized_average_pool": _average_pool,
}
