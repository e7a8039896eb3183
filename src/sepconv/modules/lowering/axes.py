"""Operations along axes: means and sums, softmax, normalization, pooling, changes of size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.modules.lowering.call import Call, size_of
from sepconv.modules.lowering.values import Value

__all__ = ["OPERATIONS", "reduced"]


def reduced(call: Call, function: str, axes: list[int], keep: bool) -> Value:
    """The mean, maximum, minimum or sum over axes, as PyTorch counts them."""
    x = call.x
    gone = {call.axis(axis) for axis in axes}
    places = [x.axes.index(axis) for axis in gone]
    y = call.builder.reduce(x.number, function, places, keep)
    if keep:
        return Value(y, x.axes)
    left = sorted(axis for axis in x.axes if axis not in gone)
    return Value(y, tuple(left.index(axis) for axis in x.axes if axis not in gone))


def _reduction(function: str) -> Callable[[Call], Value]:
    def write(call: Call) -> Value:
        axes = call.args.get("dim")
        axes = [axes] if isinstance(axes, int) else list(axes or range(call.rank))
        return reduced(call, function, axes, call.args.get("keepdim", False))

    return write


def _softmax(call: Call) -> Value:
    logarithm = "log" in str(call.node.target)
    y = call.builder.softmax(call.x.number, call.place(call["dim"]), logarithm)
    return Value(y, call.x.axes)


def _batch_normalization(call: Call) -> Value:
    mean, variance = call.array("running_mean"), call.array("running_var")
    assert mean is not None  # as its schema demands
    assert variance is not None
    scale = 1 / np.sqrt(variance.astype(np.float64) + call["eps"])
    weight, bias = call.array("weight"), call.array("bias")
    if weight is not None:
        scale = scale * weight
    shift = -mean.astype(np.float64) * scale
    if bias is not None:
        shift = shift + bias
    y = call.builder.scale(call.x.number, call.place(1), scale, shift)
    return Value(y, call.x.axes)


def _layer_normalization(call: Call) -> Value:
    count, x = len(call["normalized_shape"]), call.x
    last = tuple(range(call.rank - count, call.rank))
    if x.axes[-count:] != last:
        x = call.writer.as_plain(call.writer.plain(x))
    weight, bias = call.array("weight"), call.array("bias")
    y = call.builder.layer_normalization(x.number, count, call["eps"], weight, bias)
    return Value(y, x.axes)


def _in_groups(call: Call, groups: int, epsilon: float) -> Value:
    """To mean 0 and variance 1 over groups of channels and all places; then a number a channel."""
    shape, builder = call.shape, call.builder
    if None in shape[1:]:
        call.refuse("it normalizes over an axis whose size is open")
    x = builder.reshape(call.writer.plain(call.x), [0, groups, -1])
    y = builder.layer_normalization(x, 1, epsilon)
    y = builder.reshape(y, [0, *(size for size in shape[1:] if size is not None)])
    weight, bias = call.array("weight"), call.array("bias")
    if weight is not None or bias is not None:
        y = builder.scale(y, 1, weight, bias)
    return call.writer.as_plain(y)


def _group_normalization(call: Call) -> Value:
    return _in_groups(call, call["num_groups"], call["eps"])


def _instance_normalization(call: Call) -> Value:
    call.only(use_input_stats=True)
    channels = call.shape[1]
    if channels is None:
        call.refuse("it normalizes channels whose number is open")
    return _in_groups(call, channels, call["eps"])


def _pair(given: Any, axes: int) -> list[int]:
    sizes = list(given) if isinstance(given, (list, tuple)) else [given]
    return sizes * axes if len(sizes) == 1 else sizes


def _pool(call: Call) -> Value:
    largest = "max_pool" in str(call.node.target)
    image = call.writer.image(call.x)
    spatial = 1 if "pool1d" in str(call.node.target) else 2
    if call.rank != spatial + 2:
        call.refuse(f"its input has {call.rank} axes: give it a batch")
    window = _pair(call["kernel_size"], spatial)
    stride = _pair(call["stride"], spatial) if call["stride"] else window
    dilation = _pair(call.args.get("dilation", 1), spatial)
    pads = [(pad, pad) for pad in _pair(call["padding"], spatial)]
    if call.args.get("divisor_override") is not None:
        call.refuse("its divisor is given")
    x, beyond = image.number, _beyond(call, window, stride, dilation, pads)
    if not largest and call["count_include_pad"] and any(any(pair) for pair in pads):
        x = call.builder.pad(x, [(0, 0), *pads, (0, 0)])
        pads = [(0, 0)] * spatial
    pads = [(before, after + more) for (before, after), more in zip(pads, beyond, strict=True)]
    ones = [1] * (2 - spatial)
    around = [(0, 0)] * (2 - spatial) + pads
    spec = ConvSpec._make([*ones, *stride, *ones, *dilation, 0, *around[0], *around[1], 0])
    attributes = {
        "function": "max" if largest else "average",
        "window": [*ones, *window],
        "spec": list(spec),
    }
    return Value(call.builder.emit("pool", [x], attributes), image.axes)


def _beyond(
    call: Call,
    window: list[int],
    stride: list[int],
    dilation: list[int],
    pads: list[tuple[int, int]],
) -> list[int]:
    """How far the last windows reach beyond what is padded, where sizes are rounded up."""
    if not call["ceil_mode"]:
        return [0] * len(window)
    found = []
    for i, pair in enumerate(pads):
        size, reach = call.shape[2 + i], (window[i] - 1) * dilation[i] + 1
        if size is None:
            call.refuse("it rounds up a size that is open: ceil_mode=True")
        count = size_of(call.sizes[2 + i])
        assert count is not None  # since what it comes from is known
        found.append(max((count - 1) * stride[i] + reach - size - sum(pair), 0))
    return found


def _adaptive_average(call: Call) -> Value:
    spatial = 1 if "pool1d" in str(call.node.target) else 2
    wanted = [
        size_of(size) if n is None else n
        for n, size in zip(_pair(call["output_size"], spatial), call.sizes[-spatial:], strict=True)
    ]
    if wanted == [1] * spatial:
        return reduced(call, "mean", list(range(call.rank - spatial, call.rank)), True)
    sizes = call.shape[-spatial:]
    window = []
    for size, count in zip(sizes, wanted, strict=True):
        if size is None or not count or size % count:
            call.refuse(f"it averages {sizes} to {wanted}, which are no equal windows")
        window.append(size // count)
    if window == [1] * spatial:
        return call.x
    image, ones = call.writer.image(call.x), [1] * (2 - spatial)
    spec = ConvSpec._make([*ones, *window, 1, 1, 0, 0, 0, 0, 0, 0])
    attributes = {"function": "average", "window": [*ones, *window], "spec": list(spec)}
    return Value(call.builder.emit("pool", [image.number], attributes), image.axes)


def _resize(call: Call) -> Value:
    bilinear = "bilinear" in str(call.node.target)
    if bilinear:
        call.only(align_corners=False)
    factors = []
    given = call.args.get("scale_factors") or [None, None]
    for before, after, factor in zip(call.shape[2:], call.sizes[2:], given, strict=True):
        known = size_of(after)
        if before and known and known % before == 0:
            factors.append(known // before)
        elif factor is not None and (before is None or known is None) and factor == int(factor):
            factors.append(int(factor))
        else:
            call.refuse("images grow by whole factors only")
        # PyTorch takes places by the factor that it is given, where there is one.
        if factor is not None and factor != factors[-1]:
            call.refuse("images grow by whole factors only")
    image = call.writer.image(call.x)
    attributes = {
        "interpolation": "bilinear" if bilinear else "nearest",
        "factors": factors,
        "channels_first": False,
    }
    return Value(call.builder.emit("resize", [image.number], attributes), image.axes)


def _root_mean_square(call: Call) -> Value:
    count, builder, x = len(call["normalized_shape"]), call.builder, call.x
    epsilon = call["eps"]
    if epsilon is None:
        epsilon = float(np.finfo(builder.dtype).eps)
    axes = [x.axes.index(axis) for axis in range(call.rank - count, call.rank)]
    square = builder.reduce(builder.unary(x.number, "square"), "mean", axes, True)
    root = builder.unary(builder.linear(square, 1.0, epsilon), "rsqrt")
    y = builder.binary("multiply", x.number, root)
    weight = call.array("weight")
    if weight is not None:
        same = call.writer.constant_like(x, weight)
        assert same is not None  # since it has the last axes of x
        y = builder.binary("multiply", y, builder.constant(same))
    return Value(y, x.axes)


def _variance(call: Call) -> Value:
    """Of elements around their mean, with Bessel's correction."""
    axes = list(call["dim"] or range(call.rank))
    sizes = [call.shape[call.axis(axis)] for axis in axes]
    if None in sizes:
        call.refuse("it is over an axis whose size is open")
    count = math.prod(size for size in sizes if size is not None)
    correction = call.args.get("correction", call.args.get("unbiased", True))
    correction = 1 if correction is None else int(correction)
    builder, x = call.builder, call.x
    places = [call.place(axis) for axis in axes]
    mean = builder.reduce(x.number, "mean", places, True)
    square = builder.unary(builder.binary("subtract", x.number, mean), "square")
    square = builder.linear(square, count / (count - correction))
    y = reduced(
        Call(call.writer, call.node, {"self": Value(square, x.axes)}), "mean", axes, call["keepdim"]
    )
    return y


OPERATIONS: dict[str, Callable[[Call], Any]] = {
    "aten.mean.dim": _reduction("mean"),
    "aten.mean.default": _reduction("mean"),
    "aten.sum.dim_IntList": _reduction("sum"),
    "aten.sum.default": _reduction("sum"),
    "aten.amax.default": _reduction("max"),
    "aten.amin.default": _reduction("min"),
    "aten.var.correction": _variance,
    "aten.var.dim": _variance,
    "aten.softmax.int": _softmax,
    "aten.log_softmax.int": _softmax,
    "aten._native_batch_norm_legit_no_training.default": _batch_normalization,
    "aten.layer_norm.default": _layer_normalization,
    "aten.group_norm.default": _group_normalization,
    "aten.instance_norm.default": _instance_normalization,
    "aten.rms_norm.default": _root_mean_square,
    "aten.max_pool1d.default": _pool,
    "aten.max_pool2d.default": _pool,
    "aten.avg_pool1d.default": _pool,
    "aten.avg_pool2d.default": _pool,
    "aten.adaptive_avg_pool1d.default": _adaptive_average,
    "aten.adaptive_avg_pool2d.default": _adaptive_average,
    "aten.upsample_nearest2d.vec": _resize,
    "aten.upsample_bilinear2d.vec": _resize,
}
