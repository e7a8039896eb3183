"""Which of JAX's convolutions our kernels compute, and as what: the arithmetic of `patch`.

`lax.conv_general_dilated` is more than one operation. With as many groups as channels it is a
depthwise convolution; differentiation makes it compute that one's input gradient (input dilation, a
reversed kernel) and kernel gradient (groups of the batch, image and kernel both as large as an
image). A 1x1 kernel makes it a product, and that product's kernel gradient is a convolution whose
kernel is as large as the image. Each of these forms is recognised here by sizes and by where the
axes lie in memory: a form is served where no array but the kernel would have to be copied.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from sepconv.arrays import DTYPES
from sepconv.engines.jax.calls import forward_call, pointwise_backward_call
from sepconv.engines.jax.composed import (
    depthwise,
    input_gradient,
    input_shape,
    kernel_gradient,
)
from sepconv.engines.jax.convolution import depthwise_gradients
from sepconv.engines.thresholds import MOST_FILTERS, ORDINARY, few_channels
from sepconv.fused import Operands
from sepconv.geometry import ConvSpec, conv_spec, resolve

__all__ = ["Served", "serve"]

_FILTERS = MOST_FILTERS["jax"]

#: How many times as large as its image a kernel may be. Larger ones are what second derivatives
#: make, of an image as the kernel; our kernels would be right, and slow.
_KERNEL_TO_IMAGE = 4

_LAYOUT = "its dimension_numbers, which would need a copy of an image"


class Served(NamedTuple):
    """A convolution that our kernels compute.

    Attributes:
        kind: what it is, for the record.
        run: from lhs and rhs to the result.
        gradients: from lhs, rhs and the result's gradient to theirs, by one call; None where it
            takes two.
    """

    kind: str
    run: Callable[[Any, Any], Any]
    gradients: Callable[[Any, Any, Any], Sequence[Any]] | None = None


class _Array(NamedTuple):
    """An operand or the result: its shape, and the axes of its two roles and of space.

    The roles are batch and channels; of a kernel, its outputs and its inputs.
    """

    shape: tuple[int, ...]
    first: int
    second: int
    space: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of the two roles."""
        return self.shape[self.first], self.shape[self.second]

    def swapped(self) -> _Array:
        """The same array with the roles exchanged."""
        return self._replace(first=self.second, second=self.first)


class _Axis(NamedTuple):
    """The window along one axis of space; what has no effect is 1."""

    size: int
    taps: int
    outputs: int
    stride: int
    before: int
    spread: int  # the input's dilation
    dilation: int


class _Layout(NamedTuple):
    """How the images of a form lie in memory: where channels are, and which axis of space first."""

    channels_first: bool
    order: tuple[int, int]


class _Form(NamedTuple):
    """A convolution with two axes of space, in numbers."""

    lhs: _Array
    rhs: _Array
    out: _Array
    axes: tuple[_Axis, _Axis]
    groups: int
    batch_groups: int


def serve(
    shapes: tuple[Sequence[Any], Sequence[Any], Sequence[Any]],
    dtypes: Sequence[str],
    params: dict[str, Any],
) -> Served | str:
    """How our kernels compute a convolution, or why they do not.

    Args:
        shapes: of lhs, rhs and the result.
        dtypes: the names of their dtypes.
        params: those of the primitive.
    """
    if len(set(dtypes)) != 1:
        return "operands and result of more than one dtype"
    if dtypes[0] not in DTYPES:
        return f"dtype {dtypes[0]}"
    if len(shapes[0]) not in (3, 4):
        return f"{len(shapes[0]) - 2} axes of space"
    numbers = [*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]]
    numbers += [n for pair in params["padding"] for n in pair]
    numbers += [n for shape in shapes for n in shape]
    if not all(isinstance(n, (int, np.integer)) for n in numbers):  # a symbol of `jax.export`'s
        return "sizes that are not known"
    if not all(map(math.prod, shapes)):
        return "an array without elements"
    return _recognise(_form(shapes, params))


def _form(shapes: Sequence[Sequence[int]], params: dict[str, Any]) -> _Form:
    """The numbers of a convolution; a single axis of space becomes the width of a row."""
    arrays = []
    flat = len(shapes[0]) == 3
    for shape, spec in zip(shapes, params["dimension_numbers"], strict=True):
        first, second, *space = spec
        if flat:
            shape, space = (*shape, 1), [3, *space]
        arrays.append(_Array(tuple(shape), first, second, tuple(space)))
    lhs, rhs, out = arrays
    axes = [_Axis(1, 1, 1, 1, 0, 1, 1)] if flat else []
    for i in range(flat, 2):
        at = i - flat
        size, taps, outputs = (a.shape[a.space[i]] for a in arrays)
        stride = int(params["window_strides"][at]) if outputs > 1 else 1
        spread = int(params["lhs_dilation"][at]) if size > 1 else 1
        dilation = int(params["rhs_dilation"][at]) if taps > 1 else 1
        before = int(params["padding"][at][0])
        axes.append(_Axis(size, taps, outputs, stride, before, spread, dilation))
    return _Form(
        lhs,
        rhs,
        out,
        (axes[0], axes[1]),
        params["feature_group_count"],
        params["batch_group_count"],
    )


def _recognise(form: _Form) -> Served | str:
    """The first form that fits; the reason of the last one that was tried."""
    if form.groups > 1:
        outputs, inputs = form.rhs.sizes
        spread = any(a.spread > 1 for a in form.axes)
        if outputs == form.groups and (inputs > 1 or spread):
            return _input_gradient(form)
        return _depthwise(form) if inputs == 1 else "an ordinary convolution in groups"
    if form.batch_groups > 1:
        whole = form.lhs.sizes[0] == form.batch_groups
        return _kernel_gradient(form) if whole else "an ordinary convolution in groups"
    found: Served | str = ORDINARY
    if all(a.taps == 1 for a in form.axes) and form.lhs.sizes[1] > 1:
        found = _product(form)
    if isinstance(found, str) and all(a.outputs == 1 for a in form.axes):
        correlated = _correlation(form)
        found = correlated if isinstance(correlated, Served) else found
    if isinstance(found, str) and form.lhs.sizes[1] == 1:
        found = _depthwise(form)
    elif isinstance(found, str) and form.lhs.sizes[0] == 1 and _image_as_kernel(form):
        alone = _kernel_gradient(form)
        found = alone if isinstance(alone, Served) else found
    return found


def _image_as_kernel(form: _Form) -> bool:
    """Whether the kernel is larger than the result, as in a kernel's gradient."""
    return math.prod(a.taps for a in form.axes) > math.prod(a.outputs for a in form.axes)


# --- Where arrays lie in memory -------------------------------------------------------------------


def _order(array: _Array, layout: _Layout) -> tuple[int, int, int, int]:
    """The axes of an image in the order of a layout."""
    rows, columns = (array.space[i] for i in layout.order)
    if layout.channels_first:
        return array.first, array.second, rows, columns
    return array.first, rows, columns, array.second


def _layout(*images: _Array) -> _Layout | None:
    """A layout that all have without a copy: axes of size 1 may lie anywhere."""
    for channels_first in (False, True):
        for order in ((0, 1), (1, 0)):
            layout = _Layout(channels_first, order)
            if all(_lies(image, _order(image, layout)) for image in images):
                return layout
    return None


def _lies(image: _Array, order: Sequence[int]) -> bool:
    places = [axis for axis in order if image.shape[axis] > 1]
    return places == sorted(places)


def _shape(image: _Array, layout: _Layout) -> tuple[int, ...]:
    return tuple(image.shape[axis] for axis in _order(image, layout))


def _kernel_order(kernel: _Array, layout: _Layout) -> tuple[int, int, int, int]:
    """The axes of a kernel: height, width, inputs, outputs."""
    rows, columns = (kernel.space[i] for i in layout.order)
    return rows, columns, kernel.second, kernel.first


def _restored(array: Any, order: Sequence[int], shape: Sequence[int]) -> Any:
    """The array whose axes were put into `order`, as it was."""
    back = sorted(range(len(order)), key=lambda i: order[i])
    return lax.transpose(array, back).reshape(shape)


# --- Depthwise convolutions -----------------------------------------------------------------------


def _spec(
    layout: _Layout, axes: Sequence[_Axis], batch: int, channels: int, multiplier: int
) -> ConvSpec | None:
    """The arguments of a depthwise convolution with these windows; None where we have none.

    JAX's padding after the image is not looked at: what there is of it follows from the outputs.
    """
    rows, columns = axes
    after = [
        max((a.outputs - 1) * a.stride + (a.taps - 1) * a.dilation + 1 - a.size - a.before, 0)
        for a in axes
    ]
    spec = ConvSpec(
        rows.stride,
        columns.stride,
        rows.dilation,
        columns.dilation,
        0,
        rows.before,
        after[0],
        columns.before,
        after[1],
        int(layout.channels_first),
    )
    size = rows.size, columns.size
    kernel_shape = rows.taps, columns.taps, channels, multiplier
    try:
        geometry = resolve(spec, input_shape(spec, batch, size, channels), kernel_shape)
    except ValueError:
        return None
    outputs = input_shape(spec, batch, (rows.outputs, columns.outputs), channels * multiplier)
    return spec if geometry.output_shape(channels * multiplier) == outputs else None


def _in_order(form: _Form, layout: _Layout) -> tuple[_Axis, _Axis]:
    first, second = layout.order
    return form.axes[first], form.axes[second]


def _depthwise(form: _Form) -> Served | str:
    batch, channels = form.lhs.sizes
    filters = form.rhs.sizes[0]
    if channels == 1 and filters > _FILTERS:
        return "many filters on one channel"
    if any(a.spread > 1 for a in form.axes):
        return "an input dilation"
    taps, pixels = (
        math.prod(sizes) for sizes in zip(*((a.taps, a.size) for a in form.axes), strict=True)
    )
    if taps > _KERNEL_TO_IMAGE * pixels:
        return "a kernel larger than its image"
    layout = _layout(form.lhs, form.out)
    if layout is None:
        return _LAYOUT
    axes = _in_order(form, layout)
    spec = _spec(layout, axes, batch, channels, filters // channels)
    if spec is None:
        return "a padding that cuts off"

    size, order = (axes[0].taps, axes[1].taps), _kernel_order(form.rhs, layout)

    def operands(lhs: Any, rhs: Any) -> tuple[Any, Any]:
        kernel = lax.transpose(rhs.reshape(form.rhs.shape), order)
        kernel = kernel.reshape(*size, channels, filters // channels)
        return lhs.reshape(_shape(form.lhs, layout)), kernel

    def run(lhs: Any, rhs: Any) -> Any:
        return depthwise(*operands(lhs, rhs), spec=spec)

    def gradients(lhs: Any, rhs: Any, dy: Any) -> Sequence[Any]:
        dy = dy.reshape(_shape(form.out, layout))
        dx, dkernel = depthwise_gradients(*operands(lhs, rhs), dy, spec=spec)
        dkernel = _restored(dkernel.reshape(*size, 1, filters), order, rhs.shape)
        return [dx.reshape(lhs.shape), dkernel]

    return Served("depthwise", functools.partial(_as_result, run, form), gradients)


def _input_gradient(form: _Form) -> Served | str:
    """Of a depthwise convolution whose output is lhs and whose input is the result."""
    batch = form.lhs.sizes[0]
    channels, multiplier = form.rhs.sizes
    if any(a.stride > 1 for a in form.axes):
        return "an ordinary convolution in groups" if multiplier > 1 else "an input dilation"
    layout = _layout(form.lhs, form.out)
    if layout is None:
        return _LAYOUT
    # The window of the convolution that this is the gradient of: the kernel is reversed.
    axes = [
        _Axis(
            a.outputs, a.taps, a.size, a.spread, (a.taps - 1) * a.dilation - a.before, 1, a.dilation
        )
        for a in _in_order(form, layout)
    ]
    spec = _spec(layout, axes, batch, channels, multiplier)
    if spec is None:
        return "a padding that cuts off"
    size = axes[0].size, axes[1].size

    def run(lhs: Any, rhs: Any) -> Any:
        rows, columns, inputs, outputs = _kernel_order(form.rhs, layout)
        kernel = lax.transpose(rhs, (rows, columns, outputs, inputs))
        dy = lhs.reshape(_shape(form.lhs, layout))
        return input_gradient(dy, lax.rev(kernel, (0, 1)), spec=spec, size=size)

    return Served("depthwise, input gradient", functools.partial(_as_result, run, form))


def _kernel_gradient(form: _Form) -> Served | str:
    """Of a depthwise convolution whose input is lhs and whose output is rhs."""
    channels, batch = form.lhs.sizes
    filters = form.rhs.sizes[0]
    if channels == 1 and filters > _FILTERS:
        return "many filters on one channel"
    if any(a.spread > 1 for a in form.axes):
        return "an input dilation"
    x, dy = form.lhs.swapped(), form.rhs.swapped()
    layout = _layout(x, dy)
    if layout is None:
        return _LAYOUT
    axes = [
        _Axis(a.size, a.outputs, a.taps, a.dilation, a.before, 1, a.stride)
        for a in _in_order(form, layout)
    ]
    spec = _spec(layout, axes, batch, channels, filters // channels)
    if spec is None:
        return "a padding that cuts off"
    size = axes[0].taps, axes[1].taps
    order = _kernel_order(form.out.swapped(), layout)

    def run(lhs: Any, rhs: Any) -> Any:
        images = lhs.reshape(_shape(x, layout)), rhs.reshape(_shape(dy, layout))
        kernel = kernel_gradient(*images, spec=spec, kernel_size=size)
        return _restored(kernel.reshape(*size, 1, filters), order, form.out.shape)

    return Served("depthwise, kernel gradient", functools.partial(_as_result, run, form))


# --- 1x1 convolutions -----------------------------------------------------------------------------


def _every(
    x: Any, axes: Sequence[_Axis], steps: Sequence[int], counts: Sequence[int], at: int
) -> Any:
    """So many pixels of x, by steps, from where the window begins; `at` is the first axis."""
    starts, limits, strides = [0] * 4, list(x.shape), [1] * 4
    for i, (axis, step, count) in enumerate(zip(axes, steps, counts, strict=True)):
        starts[at + i] = -axis.before
        limits[at + i] = -axis.before + (count - 1) * step + 1
        strides[at + i] = step
    return lax.slice(x, starts, limits, strides)


def _product(form: _Form) -> Served | str:
    channels, filters = form.lhs.sizes[1], form.rhs.sizes[0]
    few = few_channels(channels, filters)
    if few:
        return few
    layout = _layout(form.lhs, form.out)
    if layout is None:
        return _LAYOUT
    axes, first = _in_order(form, layout), layout.channels_first
    strided = any(a.stride > 1 for a in axes)
    if strided and not all(
        a.spread == 1 and 0 <= -a.before <= a.size - (a.outputs - 1) * a.stride - 1 for a in axes
    ):
        return "a 1x1 convolution with stride and padding"
    spec = conv_spec(data_format="channels_first" if first else "channels_last")
    turned = form.rhs.first < form.rhs.second  # the matrix is [filters, channels] in memory
    place = 2 if first else 1
    padding = _pads(axes, place)
    padded = any(pad != (0, 0, 0) for pad in padding)

    def run(lhs: Any, rhs: Any) -> Any:
        x = lhs.reshape(_shape(form.lhs, layout))
        if strided:
            x = _every(x, axes, [a.stride for a in axes], [a.outputs for a in axes], place)
        shape = list(x.shape)
        shape[1 if first else 3] = filters
        y: Any = jax.ShapeDtypeStruct(tuple(shape), x.dtype)
        matrix = rhs.reshape((filters, channels) if turned else (channels, filters))
        if turned:
            y = pointwise_backward_call(None, matrix, x, [y], filters, spec)[0]
        else:
            y = forward_call(Operands(x, pointwise_kernel=matrix), y, spec)
        return y if strided or not padded else lax.pad(y, jax.numpy.zeros((), y.dtype), padding)

    def gradients(lhs: Any, rhs: Any, dy: Any) -> Sequence[Any]:
        x = lhs.reshape(_shape(form.lhs, layout))
        matrix = rhs.reshape(channels, filters)
        results = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, matrix)]
        dy = dy.reshape(_shape(form.out, layout))
        dx, dmatrix = pointwise_backward_call(x, matrix, dy, results, channels, spec)
        return [dx.reshape(lhs.shape), dmatrix.reshape(rhs.shape)]

    plain = not (turned or strided or padded)
    return Served("1x1", functools.partial(_as_result, run, form), gradients if plain else None)


def _pads(axes: Sequence[_Axis], place: int) -> list[tuple[int, int, int]]:
    """The zeros around and between its pixels that a product's windows ask for, an axis each."""
    config = [(0, 0, 0)] * 4
    for i, a in enumerate(axes):
        after = a.outputs - (a.size - 1) * a.spread - 1 - a.before
        config[place + i] = (a.before, after, a.spread - 1)
    return config


def _correlation(form: _Form) -> Served | str:
    """The kernel gradient of a product: a kernel as large as the image, a result of one pixel."""
    channels, _ = form.lhs.sizes
    filters = form.rhs.sizes[0]
    few = few_channels(channels, filters)
    if few:
        return few
    x, dy = form.lhs.swapped(), form.rhs.swapped()
    layout = _layout(x, dy)
    if layout is None:
        return _LAYOUT
    axes, first = _in_order(form, layout), layout.channels_first
    if not all(
        a.spread == 1 and 0 <= -a.before <= a.size - (a.taps - 1) * a.dilation - 1 for a in axes
    ):
        return "a padding of a 1x1 convolution"
    spec = conv_spec(data_format="channels_first" if first else "channels_last")
    turned = form.out.second < form.out.first  # the result is [filters, channels] in memory

    def run(lhs: Any, rhs: Any) -> Any:
        images = lhs.reshape(_shape(x, layout)), rhs.reshape(_shape(dy, layout))
        steps, counts = [a.dilation for a in axes], [a.taps for a in axes]
        seen = _every(images[0], axes, steps, counts, 2 if first else 1)
        a, b = (images[1], seen) if turned else (seen, images[1])
        sizes = (filters, channels) if turned else (channels, filters)
        result = jax.ShapeDtypeStruct(sizes, lhs.dtype)
        return pointwise_backward_call(a, None, b, [result], sizes[0], spec)[0]

    return Served("1x1, kernel gradient", functools.partial(_as_result, run, form))


# --- Around them ----------------------------------------------------------------------------------


def _as_result(run: Callable[[Any, Any], Any], form: _Form, lhs: Any, rhs: Any) -> Any:
    """`run` on the whole arrays, and its result in the shape that JAX expects."""
    y = run(lhs.reshape(form.lhs.shape), rhs.reshape(form.rhs.shape))
    return y.reshape(form.out.shape[: lhs.ndim])
