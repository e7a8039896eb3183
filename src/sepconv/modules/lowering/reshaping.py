"""Operations that only move elements: other shapes, orders and parts of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sepconv.modules.lowering.call import Call, size_of
from sepconv.modules.lowering.values import Value

__all__ = ["OPERATIONS"]

#: What stands for "to the end" in PyTorch's graphs.
_END = 2**62


def _same(call: Call) -> Value:
    return call.x


def _source_sizes(call: Call) -> tuple[Any, ...]:
    """The shape of the first argument as PyTorch has it, with symbols."""
    node: Any = call.node.args[0]
    return tuple(node.meta["val"].shape)


def _reshape(call: Call) -> Value:
    """Any change of the shape alone, to what PyTorch says it is."""
    before, after = _source_sizes(call), call.sizes
    texts = [str(size) for size in before], [str(size) for size in after]
    if texts[0] == texts[1]:
        return call.x
    x, builder = call.x, call.builder
    long = [axis for axis in x.axes if before[axis] != 1]
    number = x.number
    open_axes = [axis for axis, size in enumerate(before) if size_of(size) is None]
    # Where only axes of size 1 are out of order, the elements are in order. Only the first axis may
    # be open then, since the others are not where PyTorch has them.
    if long != sorted(long) or not (set(open_axes) <= {0} and x.axes[0] == 0):
        number = call.writer.plain(x)
    shape = []
    for axis, size in enumerate(after):
        known = size_of(size)
        if known is not None:
            shape.append(known)
        elif axis < len(before) and texts[0][axis] == texts[1][axis]:
            shape.append(0)
        else:
            shape.append(-1)
    if shape.count(-1) > 1:
        call.refuse("it gives an array with several sizes that are open")
    return call.writer.as_plain(builder.reshape(number, shape))


def _permuted(call: Call, order: Sequence[int]) -> Value:
    # Nothing moves: only what axes are called changes.
    counted = [call.axis(axis) for axis in order]
    return Value(call.x.number, tuple(counted.index(axis) for axis in call.x.axes))


def _transpose(call: Call) -> Value:
    order = list(range(call.rank))
    if order:
        a, b = call.axis(call["dim0"]), call.axis(call["dim1"])
        order[a], order[b] = b, a
    return _permuted(call, order)


def _permute(call: Call) -> Value:
    return _permuted(call, call["dims"])


def _turn(call: Call) -> Value:
    return _permuted(call, list(range(call.rank))[::-1])


def _cut(call: Call, axis: int, start: int, stop: int | None, step: int = 1) -> Value:
    """A part along an axis of PyTorch's."""
    bounds = {call.place(axis): (start, stop, step)}
    return Value(call.builder.slice(call.x.number, bounds), call.x.axes)


def _slice(call: Call) -> Value:
    start, stop, step = call["start"], call["end"], call["step"]
    start = 0 if start is None else start
    stop = None if stop is None or (isinstance(stop, int) and stop >= _END) else stop
    if not all(isinstance(bound, (int, type(None))) for bound in (start, stop, step)):
        call.refuse("its bounds depend on sizes that are open")
    return _cut(call, call["dim"], start, stop, step)


def _select(call: Call) -> Value:
    axis, index = call.axis(call["dim"]), call["index"]
    if not isinstance(index, int):
        call.refuse("its index depends on sizes that are open")
    bounds = {call.place(axis): (index, None if index == -1 else index + 1, 1)}
    y = call.builder.slice(call.x.number, bounds)
    return reduce_away(call, Value(y, call.x.axes), axis)


def reduce_away(call: Call, x: Value, axis: int) -> Value:
    """A value without an axis of size 1."""
    y = call.builder.reduce(x.number, "max", [x.axes.index(axis)], False)
    left = [a for a in x.axes if a != axis]
    return Value(y, tuple(sorted(left).index(a) for a in left))


def _split(call: Call) -> list[Value]:
    axis = call.axis(call["dim"])
    size = call.shape[axis]
    given: Any = call.args.get("split_sizes", call.args.get("split_size"))
    if size is None:
        call.refuse("it splits an axis whose size is open")
    if not isinstance(given, (list, tuple)):
        given = [min(given, size - start) for start in range(0, size, given)]
    parts, start = [], 0
    for length in given:
        parts.append(_cut(call, axis, start, start + length))
        start += length
    return parts


def _chunk(call: Call) -> list[Value]:
    size = call.shape[call.axis(call["dim"])]
    if size is None:
        call.refuse("it splits an axis whose size is open")
    each = -(-size // call["chunks"])
    return _split(Call(call.writer, call.node, {**call.args, "split_size": each}))


def _operands(call: Call) -> list[Value]:
    """A list of tensors, constants among them, as values."""
    values = []
    for tensor in call["tensors"]:
        if isinstance(tensor, Value):
            values.append(tensor)
        else:
            number = call.builder.constant(tensor.detach().cpu().numpy())
            values.append(call.writer.as_plain(number))
    return values


def _concatenate(call: Call) -> Value:
    values = _operands(call)
    rank = len(values[0].axes)
    plain = tuple(range(rank))
    axes = next((value.axes for value in values if value.axes != plain), plain)
    numbers = [call.writer.arranged(value, axes) for value in values]
    place = axes.index(call["dim"] % rank)
    return Value(call.builder.concatenate(numbers, place), axes)


def _stack(call: Call) -> Value:
    values, builder = _operands(call), call.builder
    rank = len(values[0].axes)
    axis = call["dim"] % (rank + 1)
    if axis == 0:
        call.refuse("it stacks before the batch")
    shape = call.writer.shape(values[0])
    if None in shape[1:]:
        call.refuse("it stacks arrays whose sizes are open")
    sizes = [0, *(size for size in shape[1:] if size is not None)]
    sizes.insert(axis, 1)
    numbers = [builder.reshape(call.writer.plain(value), sizes) for value in values]
    return call.writer.as_plain(builder.concatenate(numbers, axis))


def _pad(call: Call) -> Value:
    if call.args.get("mode", "constant") != "constant":
        call.refuse(f"it pads with more than a constant: mode={call['mode']!r}")
    if not all(isinstance(pad, int) for pad in call["pad"]):
        call.refuse("it pads by sizes that are open")
    pads = list(call["pad"])
    # Of an image, so that zeros can become the padding of a convolution.
    source = call.writer.image(call.x) if call.rank == 4 else call.x
    around = [[0, 0] for _ in range(call.rank)]
    bounds: dict[int, tuple[int, int | None, int]] = {}
    for i in range(len(pads) // 2):
        before, after = pads[2 * i : 2 * i + 2]
        place = source.axes.index(call.rank - 1 - i)
        around[place] = [max(before, 0), max(after, 0)]
        if before < 0 or after < 0:
            bounds[place] = max(-before, 0), min(after, 0) or None, 1
    x = call.builder.slice(source.number, bounds) if bounds else source.number
    value = call["value"] if call["value"] is not None else 0.0
    return Value(call.builder.pad(x, around, value), source.axes)


def _expand(call: Call) -> Value:
    before, after = ([str(size) for size in sizes] for sizes in (_source_sizes(call), call.sizes))
    if before == after:
        return call.x
    if len(before) != len(after):
        call.refuse("it adds axes")
    x = call.x
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        count = size_of(call.sizes[axis])
        if count is None:
            call.refuse("it repeats elements to a size that is open")
        place = x.axes.index(axis)
        x = Value(call.builder.concatenate([x.number] * count, place), x.axes)
    return x


OPERATIONS: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(
        (
            "aten.clone.default",
            "aten.alias.default",
            "aten.detach.default",
            "aten.contiguous.default",
            "aten.dropout.default",
            "aten.feature_dropout.default",
            "aten.alpha_dropout.default",
            "aten.lift_fresh_copy.default",
            "aten._to_copy.default",
            "aten.to.dtype",
            "aten.to.dtype_layout",
            "aten.to.device",
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            "aten.view.default",
            "aten._unsafe_view.default",
            "aten.reshape.default",
            "aten.flatten.using_ints",
            "aten.unflatten.int",
            "aten.squeeze.default",
            "aten.squeeze.dim",
            "aten.squeeze.dims",
            "aten.unsqueeze.default",
        ),
        _reshape,
    ),
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.t.default": _turn,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.chunk.default": _chunk,
    "aten.cat.default": _concatenate,
    "aten.stack.default": _stack,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    "aten.expand.default": _expand,
}
