"""Steps of floats, and those that move numbers of any kind, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sepconv.onnx_file.call import Call, Written
from sepconv.onnx_file.functions import BINARY, activated, unary
from sepconv.onnx_file.graph import permutation
from sepconv.onnx_file.windows import arranged, convolution, window

__all__ = ["FLOAT_STEPS", "averaged", "mean"]

#: "To the end", of a slice.
_END = 2**63 - 1


def _convolution(call: Call) -> Written:
    given, separable = call.given, {"depthwise_kernel", "pointwise_kernel"} <= {*call.step.weights}
    y = call.image()
    if separable:
        y = _part(call, y, "depthwise_kernel", "depthwise_bias")
        y = activated(call, y, given["depthwise_activation"])
    last = "pointwise_kernel" if "pointwise_kernel" in call.step.weights else "depthwise_kernel"
    y = _part(call, y, last, "bias", plain=separable)
    if len(call.step.inputs) > 1:
        y = call.node("Add", y, call.image(1))
    return call.written_image(activated(call, y, given["activation"]))


def _part(call: Call, x: str, kernel: str, bias: str, *, plain: bool = False) -> str:
    """One of a convolution's kernels, with its biases."""
    array, added = call.tensor(kernel), call.tensor(bias)
    assert array is not None
    depthwise = kernel == "depthwise_kernel"
    name = call.constant(arranged(array, depthwise, len(call.shape())), kernel)
    biases = None if added is None else call.constant(added, bias)
    return convolution(call, x, name, biases, array.shape, depthwise=depthwise, plain=plain)


def _dense(call: Call) -> Written:
    kernel, bias = call.tensor("kernel"), call.tensor("bias")
    name = call.constant(kernel, "kernel")
    if len(call.shape()) == 2:
        y = call.node("Gemm", call.real(), name, *_biases(call, bias))
    else:
        y = call.node("MatMul", call.real(), name)
        if bias is not None:
            y = call.node("Add", y, *_biases(call, bias))
    if len(call.step.inputs) > 1:
        y = call.node("Add", y, call.real(1))
    return Written(activated(call, y, call.given["activation"]))


def _biases(call: Call, bias: np.ndarray | None) -> list[str]:
    return [] if bias is None else [call.constant(bias, "bias")]


def _scale(call: Call) -> Written:
    first, rank = call.goes_first(), len(call.shape())
    axis, y = call.axis(call.given["axis"], first), call.real(0, first)
    for part, operation in (("scale", "Mul"), ("shift", "Add")):
        numbers = call.tensor(part)
        if numbers is not None:
            shape = [-1 if i == axis else 1 for i in range(rank)]
            y = call.node(operation, y, call.constant(numbers.reshape(shape), part))
    return Written(y, first)


def _unary(call: Call) -> Written:
    first, given = call.goes_first(), call.given
    x = call.real(0, first)
    return Written(unary(call, x, given["function"], given["a"], given["b"], given["c"]), first)


def _binary(call: Call) -> Written:
    first = call.goes_first()
    operands = call.real(0, first), call.real(1, first)
    return Written(call.node(BINARY[call.given["function"]], *operands), first)


def _pool(call: Call) -> Written:
    given = window(call, call.shape(), call.given["window"])
    if call.given["function"] == "max":
        return call.written_image(call.node("MaxPool", call.image(), **given))
    return call.written_image(averaged(call, call.image()))


def averaged(call: Call, x: str) -> str:
    """Means of windows, of the pixels inside the image."""
    given = window(call, call.shape(), call.given["window"])
    if set(given.pop("dilations")) != {1}:
        call.refuse("ONNX has no average pooling with dilation in the version that is written")
    return call.node("AveragePool", x, count_include_pad=0, **given)


def _reduce(call: Call) -> Written:
    operation = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "sum": "ReduceSum"}
    function, axes = call.given["function"], call.given["axes"]
    if function == "mean":
        return mean(call, None)
    keep, x = int(call.given["keepdims"]), call.real()
    if function == "sum":
        return Written(call.node("ReduceSum", x, _integers(call, axes), keepdims=keep))
    return Written(call.node(operation[function], x, axes=list(axes), keepdims=keep))


def mean(call: Call, point: int | None) -> Written:
    """Means over axes; those of whole channels as runtimes know them best.

    Args:
        call: of a step with axes and keepdims.
        point: the zero point of its input; None where that is of floats.
    """
    axes, keep, rank = tuple(call.given["axes"]), call.given["keepdims"], len(call.shape())
    scale = None if point is None else call.scale_of(0, point)
    last = rank in (3, 4) and sorted(axes) == list(range(1, rank - 1))
    first = rank in (3, 4) and sorted(axes) == list(range(2, rank))
    if not (last or first):
        return Written(
            call.node("ReduceMean", call.real(0, False, scale), axes=list(axes), keepdims=int(keep))
        )
    y = call.node("GlobalAveragePool", call.real(0, last, scale))
    return Written(y, last) if keep else Written(call.node("Flatten", y))


def _concatenate(call: Call) -> Written:
    first, values = call.goes_first(), call.step.inputs
    # Bytes are moved whatever they stand for, so all are taken for the same.
    scale = call.graph.scale(values[0]) if call.graph.quantized(values[0]) else None
    parts = [call.real(i, first, scale) for i in range(len(values))]
    return Written(call.node("Concat", *parts, axis=call.axis(call.given["axis"], first)), first)


def _integers(call: Call, numbers: object) -> str:
    return call.constant(numbers, "integers", np.int64)


def _pad(call: Call) -> Written:
    first, real = call.goes_first(), float(call.given["value"])
    if call.graph.quantized(call.step.inputs[0]):
        scale = call.graph.scale(call.step.inputs[0])
        real = (real - scale.zero_point) * scale.scale
    around = [
        *call.reordered(call.given["before"], first),
        *call.reordered(call.given["after"], first),
    ]
    operands = call.real(0, first), _integers(call, around), call.constant(real, "value")
    return Written(call.node("Pad", *operands), first)


def _slice(call: Call) -> Written:
    first, given = call.goes_first(), call.given
    stops = [_END if stop is None else stop for stop in given["stops"]]
    axes = range(len(stops))
    bounds = [call.reordered(each, first) for each in (given["starts"], stops)]
    steps = call.reordered(given["steps"], first)
    operands = [_integers(call, each) for each in (*bounds, axes, steps)]
    return Written(call.node("Slice", call.real(0, first), *operands), first)


def _transpose(call: Call) -> Written:
    order, rank = list(call.given["permutation"]), len(call.shape())
    # An image with its channels moved is the same array, seen in the other order.
    for first in (True, False):
        if rank in (3, 4) and order == permutation(rank, not first):
            return _seen(call, first)
    return Written(call.node("Transpose", call.real(), perm=order))


def _seen(call: Call, first: bool) -> Written:
    """An input with channels last, or first, as the other one in a value's own order."""
    graph, value = call.graph, call.step.inputs[0]
    if graph.quantized(value):
        return Written(graph.whole(value, not first), first, graph.scale(value), whole=True)
    return Written(call.real(0, not first), first)


def _reshape(call: Call) -> Written:
    x, shape = call.shape(), call.given["shape"]
    # A pixel's channels lie as they do in either order.
    alone = len(x) in (3, 4) and set(x[1:-1]) == {1} and 0 not in shape[1:]
    first = alone and call.graph.is_first(call.step.inputs[0])
    return Written(call.node("Reshape", call.real(0, first), _integers(call, shape)))


def _resize(call: Call) -> Written:
    factors, last = call.given["factors"], not call.given["channels_first"]
    scales = call.constant([1.0, 1.0, *factors], "factors")
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if call.given["interpolation"] == "nearest":
        how = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    return Written(call.node("Resize", call.real(0, last), "", scales, **how), last)


def _layer_normalization(call: Call) -> Written:
    axes, shape = call.given["axes"], call.shape()
    gamma = call.tensor("gamma")
    if gamma is None:
        sizes = shape[-axes:]
        if None in sizes:
            call.refuse("it normalizes over sizes that are open")
        gamma = np.ones([size for size in sizes if size is not None])
    operands = [call.constant(gamma, "gamma")]
    beta = call.tensor("beta")
    if beta is not None:
        operands.append(call.constant(beta, "beta"))
    given = {"axis": -axes, "epsilon": float(call.given["epsilon"])}
    return Written(call.node("LayerNormalization", call.real(), *operands, **given))


def _softmax(call: Call) -> Written:
    operation = "LogSoftmax" if call.given["logarithm"] else "Softmax"
    return Written(call.node(operation, call.real(), axis=call.given["axis"]))


def _constant(call: Call) -> Written:
    array = call.tensor("value")
    assert array is not None
    whole = array.dtype == np.uint8
    return Written(call.constant(array, "value", array.dtype), whole=whole)


#: What writes a step, by its operation.
FLOAT_STEPS: Mapping[str, Callable[[Call], Written]] = {
    "convolution": _convolution,
    "dense": _dense,
    "scale": _scale,
    "unary": _unary,
    "binary": _binary,
    "pool": _pool,
    "reduce": _reduce,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "reshape": _reshape,
    "resize": _resize,
    "layer_normalization": _layer_normalization,
    "softmax": _softmax,
    "constant": _constant,
}
