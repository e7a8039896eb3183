"""The shape of what a step gives, where some sizes of its inputs are not known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sepconv.geometry import ConvSpec, output_shape
from sepconv.program.network import Network, Step

__all__ = ["Shape", "broadcast", "shape_of", "shapes"]

Shape = tuple[int | None, ...]


def shapes(network: Network) -> list[Shape]:
    """The shapes of all values of a network, None for sizes that may be any.

    Raises:
        ValueError: a step does not fit its inputs; the message names it.

    Example:
        >>> from sepconv.program.network import Input
        >>> mean = Step("reduce", "mean", [0], {"function": "mean", "axes": [1], "keepdims": False})
        >>> shapes(Network("float32", [Input("x", (None, 3, 2))], [mean], [1], ["mean"], []))
        [(None, 3, 2), (None, 2)]
    """
    found: list[Shape] = [tuple(entry.shape) for entry in network.inputs]
    for step in network.steps:
        weights = {part: network.tensors[i].shape for part, i in step.weights.items()}
        given = [found[i] for i in step.inputs]
        try:
            found.append(shape_of(step, weights, given))
        # A step of a file may name axes that its inputs do not have.
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"The step {step.name!r} ({step.operation}) does not fit inputs of the shapes "
                f"{given}: {error}"
            ) from error
    return found


def shape_of(step: Step, weights: Mapping[str, tuple[int, ...]], inputs: Sequence[Shape]) -> Shape:
    """The shape of a step's value.

    Args:
        step: the step.
        weights: the shapes of its tensors, by their parts.
        inputs: those of its inputs.

    Raises:
        ValueError: they do not fit each other.

    Example:
        >>> turn = Step("transpose", "turn", [0], {"permutation": [0, 2, 1]})
        >>> shape_of(turn, {}, [(None, 3, 2)])
        (None, 2, 3)
    """
    if step.operation in _SHAPES:
        return _SHAPES[step.operation](step, weights, inputs)
    return inputs[0]


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of a function of two arrays, with NumPy's broadcasting.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> broadcast((None, 3, 1), (4,))
        (None, 3, 4)
    """
    rank = max(len(a), len(b))
    sizes: list[int | None] = []
    for first, second in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if first == 1 or second == 1:
            sizes.append(second if first == 1 else first)
        elif first is not None and second is not None and first != second:
            raise ValueError(f"The shapes {a} and {b} do not fit each other.")
        else:
            sizes.append(second if first is None else first)
    return tuple(sizes)


Weights = Mapping[str, tuple[int, ...]]
Inputs = Sequence[Shape]


def _window(spec: ConvSpec, x: Shape, kernels: tuple[Shape | None, Shape | None]) -> Shape:
    """The shape of a convolution or pooling, of images or of sequences as images a pixel high."""
    if len(x) == 4:
        return output_shape(spec, x, kernels)
    axis = 2 if spec.channels_first else 1
    y = list(output_shape(spec, (*x[:axis], 1, *x[axis:]), kernels))
    del y[axis]
    return tuple(y)


def _convolution(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    kernels = weights.get("depthwise_kernel"), weights.get("pointwise_kernel")
    return _window(ConvSpec(*step.attributes["spec"]), inputs[0], kernels)


def _pool(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    spec, (x,) = ConvSpec(*step.attributes["spec"]), inputs
    channels = x[1 if spec.channels_first else -1]
    return _window(spec, x, ((*step.attributes["window"], channels, 1), None))


def _dense(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    return (*inputs[0][:-1], weights["kernel"][1])


def _binary(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    return broadcast(*inputs)


def _reduce(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    axes, keep = step.attributes["axes"], step.attributes["keepdims"]
    sizes = [(1 if i in axes else size, i in axes) for i, size in enumerate(inputs[0])]
    return tuple(size for size, reduced in sizes if keep or not reduced)


def _concatenate(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    axis = step.attributes["axis"]
    sizes: list[int | None] = []
    for i, found in enumerate(zip(*inputs, strict=True)):
        known = [size for size in found if size is not None]
        if i == axis:
            sizes.append(sum(known) if len(known) == len(found) else None)
        elif len(set(known)) > 1:
            raise ValueError(f"The shapes {list(inputs)} do not fit along the axis {axis}.")
        else:
            sizes.append(known[0] if known else None)
    return tuple(sizes)


def _pad(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    around = zip(inputs[0], step.attributes["before"], step.attributes["after"], strict=True)
    return tuple(None if size is None else size + before + after for size, before, after in around)


def _slice(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    given = step.attributes
    sizes: list[int | None] = []
    for size, *bounds in zip(
        inputs[0], given["starts"], given["stops"], given["steps"], strict=True
    ):
        if size is None:
            sizes.append(None)
        else:
            sizes.append(len(range(*slice(*bounds).indices(size))))
    return tuple(sizes)


def _transpose(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    return tuple(inputs[0][axis] for axis in step.attributes["permutation"])


def _reshape(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    (x,), wanted = inputs, step.attributes["shape"]
    sizes: list[int | None] = [x[i] if size == 0 else size for i, size in enumerate(wanted)]
    if -1 not in sizes:
        return tuple(sizes)
    kept = {i for i, size in enumerate(wanted) if size == 0}
    rest = [size for i, size in enumerate(x) if i not in kept]
    left = None
    if None not in rest:
        count = math.prod(size for size in rest if size is not None)
        others = math.prod(size for size in wanted if size > 0)
        if count % others:
            raise ValueError(f"The shape {x} does not fit into {tuple(wanted)}.")
        left = count // others
    return tuple(left if size == -1 else size for size in sizes)


def _resize(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    sizes = list(inputs[0])
    first = 2 if step.attributes["channels_first"] else 1
    for axis, factor in zip((first, first + 1), step.attributes["factors"], strict=True):
        size = sizes[axis]
        sizes[axis] = None if size is None else size * factor
    return tuple(sizes)


def _constant(step: Step, weights: Weights, inputs: Inputs) -> Shape:
    return tuple(weights["value"])


#: The kinds of steps whose values have another shape than their first input.
_SHAPES: dict[str, Callable[[Step, Weights, Inputs], Shape]] = {
    "convolution": _convolution,
    "dense": _dense,
    "binary": _binary,
    "pool": _pool,
    "reduce": _reduce,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "reshape": _reshape,
    "resize": _resize,
    "constant": _constant,
    "quantized_convolution": _convolution,
    "quantized_dense": _dense,
    "dequantized_convolution": _convolution,
    "dequantized_dense": _dense,
    "quantized_binary": _binary,
    "quantized_mean": _reduce,
    "quantized_average_pool": _pool,
}
