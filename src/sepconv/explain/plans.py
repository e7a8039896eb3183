"""How sepconv's kernels compute a layer, or would: which kernel, its tiles, tasks and scratch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from sepconv import _native
from sepconv.arrays import DTYPES
from sepconv.geometry import conv_spec, conv_spec_1d, resolve
from sepconv.models.cost import Call

if TYPE_CHECKING:
    from sepconv._native import PlanStep

__all__ = ["Step", "steps"]


class Step(NamedTuple):
    """What runs over tasks at once; a layer is computed in one step or two.

    Attributes:
        kind: "depthwise" or "pointwise"; or of both convolutions at once, "fused tiles", or
            "fused parts" of images too small for tiles.
        kernel: that of the depthwise convolution: "small", "channelwise", "flat" or "planar"; of
            the 1x1 convolution alone "product".
        tile: the most that a task computes at a time: (rows, columns, channels), or of the 1x1
            convolution alone (pixels, filters).
        tasks: how many there are to share among threads.
        scratch: bytes that a task works in, and those that a thread keeps from task to task.
    """

    kind: str
    kernel: str
    tile: tuple[int, ...]
    tasks: int
    scratch: int


def steps(call: Call, threads: int) -> tuple[Step, ...]:
    """How a layer's forward pass goes on so many threads, found without running it.

    Returns:
        None of them where sepconv has no kernel for the layer.

    Example:
        >>> import keras
        >>> layer = keras.layers.DepthwiseConv2D(3, padding="same")
        >>> shape = (1, 8, 8, 64)
        >>> [step.kind for step in steps(Call(layer, "dw", "depthwise", (shape,), shape, True), 2)]
        ['depthwise']
    """
    dtype = DTYPES.get(call.layer.compute_dtype)
    if dtype is None or call.kind not in ("depthwise", "separable", "convolution"):
        return ()
    first, last = call.layer.data_format == "channels_first", call.output_shape
    space = last[2:] if first else last[1:-1]
    channels, filters = (call.input_shapes[0][1 if first else -1], last[1 if first else -1])
    groups = getattr(call.layer, "groups", 1)
    kernel = call.layer.kernel_size or (1, 1)
    if len(space) > 2:
        return ()
    if call.kind != "convolution":
        multiplier, mixed = call.layer.depth_multiplier, filters if call.kind == "separable" else 0
    elif groups == channels:
        multiplier, mixed = filters // channels, 0
    elif math.prod(kernel) == groups == 1:
        plan = _native.plan_pointwise(
            last[0], math.prod(space), channels, filters, first, dtype, "forward", threads
        )
        return tuple(_step(step, 0, 0, filters) for step in plan["steps"])
    else:
        return ()
    spec, shape = _image(call.layer, call.input_shapes[0])
    size = (1,) * (2 - len(kernel)) + tuple(kernel)
    geometry = resolve(spec, shape, (*size, channels, multiplier))
    plan = _native.plan(geometry, dtype, "forward", threads, mixed)
    middle = geometry.depthwise_channels
    return tuple(_step(step, space[-1], middle, filters) for step in plan["steps"])


def _image(layer: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """The spec of a layer, and the shape of its input as one of images."""
    options = layer.strides, layer.padding, layer.dilation_rate, layer.data_format
    if len(shape) == 4:
        return conv_spec(*options), shape
    height = 2 if layer.data_format == "channels_first" else 1
    return conv_spec_1d(layer.kernel_size[0], *options), (*shape[:height], 1, *shape[height:])


def _step(step: PlanStep, columns: int, channels: int, filters: int) -> Step:
    parts = (
        (columns, step["row_pieces"]),
        (channels, step["channel_parts"]),
        (filters, step["filter_parts"]),
    )
    width, depth, outputs = (math.ceil(size / count) for size, count in parts)
    alone = step["kind"] == "pointwise"
    return Step(
        step["kind"].replace("_", " "),
        "product" if alone else step["kernel"],
        (step["band_rows"], outputs) if alone else (step["band_rows"], width, depth),
        step["tasks"],
        step["scratch_bytes"] + step["kept_bytes"],
    )
