"""A network as data: what a program is made from, and what its file holds.

A `Network` is a list of steps in an order in which they can be computed. Each gives one value, an
array. Values are numbered: first the inputs of the network, then what the steps give, in their
order; so a step's inputs have numbers below its own.

`OPERATIONS` says what every kind of step is called, takes and holds. Its meaning, in NumPy and to
be read, is in `sepconv.program.reference`; it is computed by ``native/program``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "ACTIVATIONS",
    "BINARY",
    "DEQUANTIZED_PRODUCTS",
    "INT8_PRODUCTS",
    "OPERATIONS",
    "QUANTIZED_OPERATIONS",
    "UNARY",
    "Field",
    "Input",
    "Network",
    "Operation",
    "Step",
]

#: Activations that kernels apply to a convolution's results, in the order of their numbers in
#: `sepconv.fused.BLOCK_ACTIVATIONS`.
ACTIVATIONS = ("none", "relu", "relu6", "hard_silu", "silu")

#: Functions of one array, an element at a time, with up to three numbers a, b and c. The order is
#: that of ``Unary`` in ``native/array_operation.h``.
UNARY = (
    "relu",  # b where x >= b, x where x >= c, else a * (x - c)
    "sigmoid",
    "hard_sigmoid",  # clip(x + 3, 0, 6) / 6
    "silu",
    "hard_silu",  # x * hard_sigmoid(x)
    "tanh",
    "gelu",  # by the error function
    "gelu_tanh",  # by the tanh approximation
    "elu",  # a * (exp(x) - 1) where x < 0
    "selu",
    "celu",  # a * (exp(x / a) - 1) where x < 0
    "softplus",
    "softsign",
    "mish",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "square",
    "abs",
    "negative",
    "reciprocal",
    "erf",
    "sin",
    "cos",
    "floor",
    "ceil",
    "round",  # half to even
    "sign",
    "clip",  # to [a, b]
    "linear",  # a * x + b
    "soft_shrink",  # x - a, x + a, or 0 where |x| <= a
    "hard_shrink",  # x, or 0 where |x| <= a
    "threshold",  # x where x > a, else b
    "squareplus",  # (x + sqrt(x * x + a)) / 2
    "sparse_plus",  # 0 where x <= -1, x where x >= 1, else (x + 1) ** 2 / 4
)

#: Functions of two arrays, with NumPy's broadcasting; the order of ``Binary``.
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power")


class Field(NamedTuple):
    """An attribute of a kind of step.

    Attributes:
        name: as in files.
        kind: "int"; "flag", a bool; "float"; "choice", one of `choices`; "ints", a list of `length`
            integers; "bounds", a list of integers and of None for "to the end".
        choices: the names that a choice may be.
        length: of a list, or None for any up to `MOST_AXES`.
    """

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    length: int | None = None


class Operation(NamedTuple):
    """A kind of step.

    Attributes:
        inputs: how many values it takes, at least and at most.
        fields: its attributes.
        weights: the tensors that it may hold, by their part in it.
        required: those of them that it must hold.
    """

    inputs: tuple[int, int]
    fields: tuple[Field, ...] = ()
    weights: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


#: The most axes that a value has.
MOST_AXES = 8

#: The most inputs of one step.
MOST_INPUTS = 256

_SPEC = Field("spec", "ints", length=10)  # a `sepconv.geometry.ConvSpec`
_ACTIVATION = Field("activation", "choice", ACTIVATIONS)

_POINTS = Field("input_zero_point", "int"), Field("output_zero_point", "int")
_BOUNDS = Field("lower", "int"), Field("upper", "int")

_DEPTHWISE = ("depthwise_kernel", "depthwise_bias", "depthwise_scale", "depthwise_table")

_DEPTHWISE_BOUNDS = (
    Field("depthwise_zero_point", "int"),
    Field("depthwise_lower", "int"),
    Field("depthwise_upper", "int"),
)

#: Steps of int8 inference: a value of uint8 stands for scale * (q - zero_point). Their meaning, to
#: the bit, is in `sepconv.program.quantized_reference`.
QUANTIZED_OPERATIONS: Mapping[str, Operation] = {
    # From the network's dtype, and back to it.
    "quantize": Operation((1, 1), (Field("multiplier", "float"), Field("zero_point", "int"))),
    "dequantize": Operation((1, 1), (Field("scale", "float"), Field("zero_point", "int"))),
    # As `convolution`. Kernels are int8, biases int32, scales float32, a number a channel; tables
    # have 256 numbers of uint8. A depthwise one alone has parts that begin with depthwise_ only.
    "quantized_convolution": Operation(
        (1, 2),
        (
            _SPEC,
            Field("input_zero_point", "int"),
            *_DEPTHWISE_BOUNDS,
            Field("output_zero_point", "int"),
            *_BOUNDS,
            Field("residual_zero_point", "int"),
            Field("residual_scale", "float"),
        ),
        (*_DEPTHWISE, "pointwise_kernel", "bias", "scale", "table"),
    ),
    "quantized_dense": Operation(
        (1, 1),
        (*_POINTS, *_BOUNDS),
        ("kernel", "bias", "scale", "table"),
        ("kernel", "scale"),
    ),
    # The same with float32 results: sums times scales, which no byte is made of. Of convolutions
    # those that mix channels.
    "dequantized_convolution": Operation(
        (1, 1),
        (_SPEC, Field("input_zero_point", "int"), *_DEPTHWISE_BOUNDS),
        (*_DEPTHWISE, "pointwise_kernel", "bias", "scale"),
        ("pointwise_kernel", "scale"),
    ),
    "dequantized_dense": Operation(
        (1, 1),
        (Field("input_zero_point", "int"),),
        ("kernel", "bias", "scale"),
        ("kernel", "scale"),
    ),
    "quantized_binary": Operation(
        (2, 2),
        (
            Field("function", "choice", ("add", "multiply")),
            Field("a_zero_point", "int"),
            Field("b_zero_point", "int"),
            Field("a_scale", "float"),
            Field("b_scale", "float"),
            Field("output_zero_point", "int"),
            *_BOUNDS,
        ),
    ),
    # Any function of a quantised value, by its 256 results.
    "lookup": Operation((1, 1), (), ("table",), ("table",)),
    "quantized_mean": Operation(
        (1, 1),
        (
            Field("axes", "ints"),
            Field("keepdims", "flag"),
            Field("input_zero_point", "int"),
            Field("scale", "float"),
            Field("output_zero_point", "int"),
        ),
    ),
    "quantized_average_pool": Operation(
        (1, 1),
        (
            Field("window", "ints", length=2),
            _SPEC,
            Field("input_zero_point", "int"),
            Field("scale", "float"),
            Field("output_zero_point", "int"),
        ),
    ),
}

#: Steps of int8 inference that give their sums as float32.
DEQUANTIZED_PRODUCTS = ("dequantized_convolution", "dequantized_dense")

#: All of its steps with weights.
INT8_PRODUCTS = ("quantized_convolution", "quantized_dense", *DEQUANTIZED_PRODUCTS)

#: Every kind of step. `axis` and `axes` count from 0, the batch's.
OPERATIONS: Mapping[str, Operation] = {
    # x and maybe a residual, as `sepconv.fused_conv2d` computes it. An x of 3 axes, [N, L, C] or
    # [N, C, L], is an image one pixel high; kernels have 4 axes all the same.
    "convolution": Operation(
        (1, 2),
        (_SPEC, Field("depthwise_activation", "choice", ACTIVATIONS), _ACTIVATION),
        ("depthwise_kernel", "depthwise_bias", "pointwise_kernel", "bias"),
    ),
    # activation(x @ kernel + bias + residual), over the last axis of x; kernel [K, F].
    "dense": Operation((1, 2), (_ACTIVATION,), ("kernel", "bias"), ("kernel",)),
    # x * scale + shift, [C] each, along an axis.
    "scale": Operation((1, 1), (Field("axis", "int"),), ("scale", "shift")),
    "unary": Operation(
        (1, 1),
        (
            Field("function", "choice", UNARY),
            Field("a", "float"),
            Field("b", "float"),
            Field("c", "float"),
        ),
    ),
    "binary": Operation((2, 2), (Field("function", "choice", BINARY),)),
    # Of 3 or 4 axes, as a convolution. An average is over the pixels inside the image.
    "pool": Operation(
        (1, 1),
        (Field("function", "choice", ("max", "average")), Field("window", "ints", length=2), _SPEC),
    ),
    "reduce": Operation(
        (1, 1),
        (
            Field("function", "choice", ("mean", "max", "min", "sum")),
            Field("axes", "ints"),
            Field("keepdims", "flag"),
        ),
    ),
    "concatenate": Operation((1, MOST_INPUTS), (Field("axis", "int"),)),
    # Elements before and after, an axis.
    "pad": Operation(
        (1, 1), (Field("before", "ints"), Field("after", "ints"), Field("value", "float"))
    ),
    # As x[start:stop:step, ...], every axis; negative bounds count from the end; steps positive.
    "slice": Operation(
        (1, 1), (Field("starts", "ints"), Field("stops", "bounds"), Field("steps", "ints"))
    ),
    "transpose": Operation((1, 1), (Field("permutation", "ints"),)),
    # To these sizes: 0 stands for the size of the same axis of x, one -1 for what is left.
    "reshape": Operation((1, 1), (Field("shape", "ints"),)),
    # An image by whole factors, (height, width); of bilinear, pixels' centers are at halves.
    "resize": Operation(
        (1, 1),
        (
            Field("interpolation", "choice", ("nearest", "bilinear")),
            Field("factors", "ints", length=2),
            Field("channels_first", "flag"),
        ),
    ),
    # Over the last `axes` axes, to mean 0 and variance 1; then * gamma + beta, of their shape.
    "layer_normalization": Operation(
        (1, 1), (Field("axes", "int"), Field("epsilon", "float")), ("gamma", "beta")
    ),
    "softmax": Operation((1, 1), (Field("axis", "int"), Field("logarithm", "flag"))),
    "constant": Operation((0, 0), (), ("value",), ("value",)),
    # To another dtype: rounded to the nearest, ties to even; NaN stays NaN.
    "cast": Operation((1, 1), (Field("dtype", "choice", ("float32", "bfloat16")),)),
    **QUANTIZED_OPERATIONS,
}


class Input(NamedTuple):
    """An input of a network: its name, and its shape with None for sizes that may be any."""

    name: str
    shape: tuple[int | None, ...]


class Step(NamedTuple):
    """A step.

    Attributes:
        operation: a name in `OPERATIONS`.
        name: of the layer that it was, for errors and tables.
        inputs: numbers of values.
        attributes: by name, all that its `Operation` has.
        weights: numbers of tensors, by their part.
    """

    operation: str
    name: str
    inputs: Sequence[int]
    attributes: Mapping[str, Any] = {}
    weights: Mapping[str, int] = {}


class Network(NamedTuple):
    """A network.

    Attributes:
        dtype: of its inputs and outputs, "float32" or "float64"; what lies between is of it too,
            but for what steps say: see `sepconv.program.dtypes`.
        inputs: what it takes, in order.
        steps: in order.
        outputs: numbers of the values that it gives.
        output_names: their names.
        tensors: the weights; those of bfloat16 as uint16, see there.
    """

    dtype: str
    inputs: Sequence[Input]
    steps: Sequence[Step]
    outputs: Sequence[int]
    output_names: Sequence[str]
    tensors: Sequence[np.ndarray]
