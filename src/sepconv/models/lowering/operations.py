"""Operations of `keras.ops`, as a functional model has them where a function was called."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from keras.src.activations import activations as keras_activations
from keras.src.ops import core, nn
from keras.src.ops import math as keras_math
from keras.src.ops import numpy as knp

from sepconv.models.graph import Value
from sepconv.models.lowering.activations import FUNCTIONS, glu, keras_relu
from sepconv.models.lowering.call import Call
from sepconv.models.lowering.reshaping import to_shape
from sepconv.program.building.constants import with_constant

__all__ = ["MOVES", "OPERATIONS"]

Write = Callable[[Call], Any]


def _function(name: str) -> Write:
    """An operation without arguments that is one of `keras.activations`."""
    return lambda call: FUNCTIONS[name](call.builder, call.x)


def _unary(function: str, *attributes: str) -> Write:
    """A function of every element, whose numbers are attributes of the operation."""

    def write(call: Call) -> int:
        numbers = [float(getattr(call.layer, name)) for name in attributes]
        return call.builder.unary(call.x, function, *numbers)

    return write


def _threshold(call: Call) -> int:
    names = ("threshold", "default_value")
    if not hasattr(call.layer, "threshold"):  # before Keras 3.11
        names = ("threshold_value", "value")
    return _unary("threshold", *names)(call)


def _gelu(call: Call) -> int:
    return call.builder.unary(call.x, "gelu_tanh" if call.layer.approximate else "gelu")


def _relu(call: Call) -> int:
    layer = call.layer
    return keras_relu(call.builder, call.x, layer.negative_slope, layer.max_value, layer.threshold)


def _softmax(logarithm: bool) -> Write:
    def write(call: Call) -> int:
        axis = call.layer.axis
        if not isinstance(axis, int):
            call.refuse(f"its axis is {axis}, where one is expected")
        return call.builder.softmax(call.x, axis, logarithm)

    return write


def _binary(function: str) -> Write:
    def write(call: Call) -> int:
        a, b = (call.tensor_argument(name) for name in ("x1", "x2"))
        if isinstance(a, int) and isinstance(b, int):
            return call.builder.binary(function, a, b)
        if isinstance(a, int):
            assert not isinstance(b, int)
            return with_constant(call.builder, function, a, b, first=False)
        assert isinstance(b, int)  # or it would be no step
        return with_constant(call.builder, function, b, a, first=True)

    return write


def _reduce(function: str) -> Write:
    def write(call: Call) -> int:
        layer, x = call.layer, call.x
        if getattr(layer, "initial", None) is not None:
            call.refuse("it has an initial value")
        axes = range(call.rank) if layer.axis is None else layer.axis
        return call.builder.reduce(x, function, axes, layer.keepdims)

    return write


def _clip(call: Call) -> int:
    bounds = []
    for bound, default in ((call.layer.x_min, -math.inf), (call.layer.x_max, math.inf)):
        if not isinstance(bound, (int, float, type(None))):
            call.refuse("its bounds are no numbers")
        bounds.append(default if bound is None else float(bound))
    return call.builder.unary(call.x, "clip", *bounds)


def _round(call: Call) -> int:
    if call.layer.decimals:
        call.refuse("it rounds to decimals")
    return call.builder.unary(call.x, "round")


def _reshape(call: Call) -> int:
    x, shape = call.x, call.step.output.shape
    wanted = call.layer.newshape
    batch = call.shape[0]
    same_batch = batch is not None and shape[:1] == (batch,)
    # The batch stays where the shape's first size is left open and the others take all of the rest.
    if batch is None and len(wanted) > 0 and wanted[0] in (-1, None):
        sizes, rest = call.shape[1:], shape[1:]
        if None in sizes or None in rest or math.prod(sizes) != math.prod(rest):  # type: ignore[arg-type]
            call.refuse(f"whether it keeps the batch is not known: {call.shape} to {tuple(wanted)}")
        same_batch = True
    if not same_batch:
        if None in shape:
            call.refuse(f"it reshapes {call.shape} to {tuple(wanted)}")
        return call.builder.reshape(x, [int(size or 0) for size in shape])
    return to_shape(call, x, shape)


def _to_shape_of(axes_kept: Callable[[Call], Sequence[int | None]]) -> Write:
    """A reshape that adds or removes axes of size 1.

    `axes_kept` gives for each axis of the result the one of the input, or None for a new one.
    """

    def write(call: Call) -> int:
        x, sizes, unknown = call.x, [], 0
        for position, axis in enumerate(axes_kept(call)):
            size = 1 if axis is None else call.shape[axis]
            if size is None and axis == position:
                size = 0
            elif size is None:
                size, unknown = -1, unknown + 1
            sizes.append(size)
        if unknown > 1:
            call.refuse("two sizes are not known")
        return call.builder.reshape(x, sizes)

    return write


def _expanded(call: Call) -> list[int | None]:
    given = call.layer.axis
    added = [given] if isinstance(given, int) else list(given)
    rank = call.rank + len(added)
    places = {axis % rank for axis in added}
    kept = iter(range(call.rank))
    return [None if axis in places else next(kept) for axis in range(rank)]


def _squeezed(call: Call) -> list[int | None]:
    given = call.layer.axis
    if given is None:
        if None in call.shape:
            call.refuse("which axes it removes depends on sizes that are not known")
        return [axis for axis, size in enumerate(call.shape) if size != 1]
    removed = {a % call.rank for a in ([given] if isinstance(given, int) else given)}
    return [axis for axis in range(call.rank) if axis not in removed]


def _transpose(call: Call) -> int:
    axes = call.layer.axes
    order = range(call.rank)[::-1] if axes is None else [axis % call.rank for axis in axes]
    return call.builder.transpose(call.x, order)


def _swapaxes(call: Call) -> int:
    order = list(range(call.rank))
    first, second = call.layer.axis1 % call.rank, call.layer.axis2 % call.rank
    order[first], order[second] = second, first
    return call.builder.transpose(call.x, order)


def _moveaxis(call: Call) -> int:
    sources = [axis % call.rank for axis in call.layer.source]
    places = [axis % call.rank for axis in call.layer.destination]
    order = [axis for axis in range(call.rank) if axis not in sources]
    for place, source in sorted(zip(places, sources, strict=True)):
        order.insert(place, source)
    return call.builder.transpose(call.x, order)


def _concatenate(call: Call) -> int:
    return call.builder.concatenate(call.xs, call.layer.axis)


def _stack(call: Call) -> int:
    xs, rank = call.xs, call.rank + 1
    axis = call.layer.axis % rank
    if any(size is None for size in call.shape[axis:]):
        call.refuse("sizes after its axis are not known")
    sizes = [0 if i < axis else size or 0 for i, size in enumerate(call.shape)]
    sizes.insert(axis, 1)
    return call.builder.concatenate([call.builder.reshape(x, sizes) for x in xs], axis)


def _split(call: Call) -> list[int]:
    axis = call.layer.axis % call.rank
    size, given = call.shape[axis], call.layer.indices_or_sections
    if isinstance(given, int):
        if size is None or size % given:
            call.refuse(f"it cuts an axis of size {size} in {given}")
        bounds = [i * (size // given) for i in range(given + 1)]
    else:
        bounds = [0, *(int(i) for i in given)]
    stops = [*bounds[1:], *([] if isinstance(given, int) else [None])]
    starts = bounds[:-1] if isinstance(given, int) else bounds
    pairs = zip(starts, stops, strict=True)
    return [call.builder.slice(call.x, {axis: (start, stop, 1)}) for start, stop in pairs]


def _index(part: Any) -> Any:
    """A part of an index, with Python's integers; raises a TypeError for what is not known."""
    if isinstance(part, slice):
        bounds = (part.start, part.stop, part.step)
        return slice(*(None if n is None else operator.index(n) for n in bounds))
    if part is None or part is Ellipsis:
        return part
    if isinstance(part, bool):
        raise TypeError("a mask")
    return operator.index(part)


def _get_item(call: Call) -> int:
    key, x = call.argument("key"), call.argument("x")
    assert isinstance(x, Value)
    try:
        parts = [_index(part) for part in (key if isinstance(key, (tuple, list)) else [key])]
    except TypeError:
        call.refuse(f"its index {key!r} is not known")
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        missing = call.rank - sum(part is not None for part in parts) + 1
        parts[place : place + 1] = [slice(None)] * missing
    bounds: dict[int, tuple[int, int | None, int]] = {}
    kept: list[int | None] = []
    axis = 0
    for part in parts:
        if part is None:
            kept.append(None)
            continue
        if isinstance(part, int):
            bounds[axis] = part, part + 1 if part != -1 else None, 1
        else:
            step = 1 if part.step is None else part.step
            if step < 1:
                call.refuse(f"its index {key!r} has a negative step")
            bounds[axis] = part.start or 0, part.stop, step
            kept.append(axis)
        axis += 1
    kept += range(axis, call.rank)
    cuts = {axis: bound for axis, bound in bounds.items() if bound != (0, None, 1)}
    y = call.builder.slice(call.numbers[x], cuts) if cuts else call.numbers[x]
    if kept == list(range(call.rank)):
        return y
    sizes, cut = [], call.builder.shapes[y]
    for place, source in enumerate(kept):
        size = 1 if source is None else cut[source]
        sizes.append(size if size is not None else 0 if source == place else -1)
    if sizes.count(-1) > 1:
        call.refuse("two sizes are not known")
    return call.builder.reshape(y, sizes)


def _pad(call: Call) -> int:
    layer = call.layer
    if layer.mode != "constant":
        call.refuse(f"its mode {layer.mode!r} is not known")
    (x,) = call.step.inputs
    value = call.argument("constant_values")
    pairs = list(layer.pad_width)
    if len(pairs) != call.rank:  # which engines take differently
        call.refuse("it does not say for each axis how it is padded")
    around = [(pair[0], pair[-1]) for pair in pairs]
    return call.builder.pad(call.numbers[x], around, 0.0 if value is None else float(value))


def _same(call: Call) -> int:
    return call.x


def _classes(module: Any, table: dict[str, Write]) -> dict[type, Write]:
    """The classes of a module by their names; older versions of Keras lack some."""
    return {getattr(module, name): f for name, f in table.items() if hasattr(module, name)}


_NUMPY: dict[str, Write] = {
    **{
        name: _binary(function)
        for name, function in (
            ("Add", "add"),
            ("Subtract", "subtract"),
            ("Multiply", "multiply"),
            ("Divide", "divide"),
            ("TrueDivide", "divide"),
            ("Maximum", "maximum"),
            ("Minimum", "minimum"),
            ("Power", "power"),
        )
    },
    **{
        name: _unary(function)
        for name, function in (
            ("Negative", "negative"),
            ("Exp", "exp"),
            ("Log", "log"),
            ("Sqrt", "sqrt"),
            ("Square", "square"),
            ("Absolute", "abs"),
            ("Abs", "abs"),
            ("Fabs", "abs"),
            ("Reciprocal", "reciprocal"),
            ("Sin", "sin"),
            ("Cos", "cos"),
            ("Tanh", "tanh"),
            ("Floor", "floor"),
            ("Ceil", "ceil"),
            ("Sign", "sign"),
        )
    },
    **{
        name: _reduce(function)
        for name, function in (
            ("Mean", "mean"),
            ("Max", "max"),
            ("Amax", "max"),
            ("Min", "min"),
            ("Amin", "min"),
            ("Sum", "sum"),
        )
    },
    "Clip": _clip,
    "Round": _round,
    "Split": _split,
}

_NUMPY_MOVES: dict[str, Write] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concatenate": _concatenate,
    "ExpandDims": _to_shape_of(_expanded),
    "Squeeze": _to_shape_of(_squeezed),
    "GetItem": _get_item,
    "Pad": _pad,
    "Swapaxes": _swapaxes,
    "Moveaxis": _moveaxis,
    "Stack": _stack,
    "Copy": _same,
}

_NN: dict[str, Write] = {
    "Relu": _function("relu"),
    "Relu6": _function("relu6"),
    "Sigmoid": _function("sigmoid"),
    "SparseSigmoid": _function("sparse_sigmoid"),
    "Softplus": _function("softplus"),
    "Softsign": _function("softsign"),
    "SparsePlus": _function("sparse_plus"),
    "Silu": _function("silu"),
    "LogSigmoid": _function("log_sigmoid"),
    "HardSigmoid": _function("hard_sigmoid"),
    "HardSilu": _function("hard_silu"),
    "Selu": _function("selu"),
    "TanhShrink": _function("tanh_shrink"),
    "HardTanh": _function("hard_tanh"),
    "SoftShrink": _unary("soft_shrink", "threshold"),
    "HardShrink": _unary("hard_shrink", "threshold"),
    "Squareplus": _unary("squareplus", "b"),
    "LeakyRelu": lambda call: call.builder.relu(call.x, call.layer.negative_slope),
    "Elu": _unary("elu", "alpha"),
    "Celu": _unary("celu", "alpha"),
    "Threshold": _threshold,
    "Gelu": _gelu,
    "Glu": lambda call: glu(call.builder, call.x, call.layer.axis),
    "Softmax": _softmax(logarithm=False),
    "LogSoftmax": _softmax(logarithm=True),
}

OPERATIONS: dict[type, Write] = {
    **_classes(knp, _NUMPY),
    **_classes(knp, _NUMPY_MOVES),
    **_classes(nn, _NN),
    **_classes(keras_math, {"Rsqrt": _unary("rsqrt"), "Erf": _unary("erf")}),
    **_classes(core, {"Cast": _same, "StopGradient": _same}),
    **_classes(keras_activations, {"ReLU": _relu, "Mish": _function("mish")}),
}

#: Operations that give elements of what they are given, or numbers that are as good.
MOVES: tuple[type, ...] = (*_classes(knp, _NUMPY_MOVES), *_classes(core, {"StopGradient": _same}))
