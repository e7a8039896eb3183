"""Calls of sepconv's operations in TensorFlow, with static shapes that C++ cannot see."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from sepconv.geometry import ConvSpec, resolve

try:  # Only to notice that XLA will compile what is being traced; there is no public way.
    from tensorflow.python.ops import control_flow_util
except ImportError:
    control_flow_util = None

__all__ = ["Array", "Maybe", "backward", "forward", "operations", "runs_on_cpu", "static_output"]


def _load() -> Any:
    path = Path(__file__).parents[2] / "libsepconv_tensorflow.so"
    try:
        loaded = tf.load_op_library(str(path))
    except (tf.errors.OpError, RuntimeError) as error:
        raise ImportError(
            f"sepconv's TensorFlow operations ({path.name}) do not load into TensorFlow "
            f"{tf.__version__}: {error}"
        ) from error
    if not hasattr(loaded, "sepconv_backward"):
        raise ImportError(
            f"TensorFlow {tf.__version__} did not accept sepconv's operations, or has others of "
            "the same names loaded."
        )
    return loaded


#: TensorFlow's Python functions for the operations.
operations = _load()

Array: TypeAlias = tf.Tensor
Maybe: TypeAlias = list[tf.Tensor]  # none or one, as the operations take an optional input


def static_output(x: Array, kernel: Array, channels: int | None, spec: list[int]) -> list[Any]:
    """The shape of y as far as it is known while a graph is traced."""
    kernel_shape = kernel.shape.as_list()
    sizes = x.shape.as_list()
    if None in kernel_shape:
        return [sizes[0], None, None, None]
    conv = ConvSpec(*spec)
    rows, columns, last = (2, 3, 1) if conv.channels_first else (1, 2, 3)
    fits = {
        0: 1,
        rows: (kernel_shape[0] - 1) * conv.dilation_h + 1,
        columns: (kernel_shape[1] - 1) * conv.dilation_w + 1,
        last: kernel_shape[2],
    }
    unknown = [axis for axis in (0, rows, columns) if sizes[axis] is None]
    known = tuple(fits[axis] if size is None else size for axis, size in enumerate(sizes))
    geometry = resolve(conv, known, tuple(kernel_shape))
    shape: list[int | None] = list(geometry.output_shape(1))
    shape[last] = channels
    for axis in unknown:
        shape[axis] = None
    return shape


def _channels(kernel: Array, pointwise: Maybe) -> int | None:
    if pointwise:
        return pointwise[0].shape[3]
    channels, multiplier = kernel.shape[2:]
    return None if channels is None or multiplier is None else channels * multiplier


def forward(
    x: Array, kernel: Array, pointwise: Maybe, bias: Maybe, spec: list[int], activation: int
) -> Array:
    """``SepconvForward``."""
    y = operations.sepconv_forward(x, kernel, pointwise, bias, spec=spec, activation=activation)
    if not tf.executing_eagerly():
        y.set_shape(static_output(x, kernel, _channels(kernel, pointwise), spec))
    return y


def backward(
    x: Array, kernel: Array, pointwise: Maybe, dy: Array, spec: list[int], wanted: list[bool]
) -> list[Array | None]:
    """The gradients for x, the two kernels and the bias; None for what is not wanted."""
    if not any(wanted):
        return [None] * 4
    grads = operations.sepconv_backward(x, kernel, pointwise, dy, spec=spec, wanted=wanted)
    if not tf.executing_eagerly():
        pointwise_shape = pointwise[0].shape if pointwise else None
        bias_shape = [_channels(kernel, pointwise)]
        shapes = (x.shape, kernel.shape, pointwise_shape, bias_shape)
        for grad, shape, is_wanted in zip(grads, shapes, wanted, strict=True):
            if is_wanted:
                grad.set_shape(shape)
    return [grad if is_wanted else None for grad, is_wanted in zip(grads, wanted, strict=True)]


def runs_on_cpu(x: Array) -> bool:
    """Whether what consumes `x` will run on a CPU, without XLA."""
    if not tf.executing_eagerly() and control_flow_util is not None:
        graph = tf.compat.v1.get_default_graph()
        if control_flow_util.GraphOrParentsInXlaContext(graph):
            return False
    if x.device:
        return "CPU" in x.device.upper()
    # A graph's tensor that nobody has placed goes where TensorFlow thinks best.
    return all(device.device_type == "CPU" for device in tf.config.get_visible_devices())
