"""Calls of sepconv's operations in TensorFlow, with static shapes that C++ cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from sepconv.fused import BLOCK_ACTIVATIONS, Operands
from sepconv.geometry import ConvSpec, output_shape

try:  # Only to notice that XLA will compile what is being traced; there is no public way.
    from tensorflow.python.ops import control_flow_util
except ImportError:
    control_flow_util = None

__all__ = ["Array", "Maybe", "backward", "forward", "operations", "runs_on_cpu", "static_shape"]


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


def static_shape(
    x: Array, kernel: Array | None, pointwise: Array | None, spec: Sequence[int]
) -> tuple[int | None, ...]:
    """The shape of a convolution's result as far as it is known while a graph is traced."""
    shapes = [None if a is None else a.shape.as_list() for a in (kernel, pointwise)]
    return output_shape(ConvSpec(*spec), x.shape.as_list(), (shapes[0], shapes[1]))


def forward(
    operands: Operands,
    spec: Sequence[int],
    depthwise_activation: int = BLOCK_ACTIVATIONS[None],
    activation: int = BLOCK_ACTIVATIONS[None],
) -> Array:
    """``SepconvForward``."""
    x, *rest = operands
    y = operations.sepconv_forward(
        x,
        [a for a in rest if a is not None],
        given=operands.bits(),
        spec=spec,
        depthwise_activation=depthwise_activation,
        activation=activation,
    )
    if not tf.executing_eagerly():
        y.set_shape(static_shape(x, operands.depthwise_kernel, operands.pointwise_kernel, spec))
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
        y_shape = static_shape(x, kernel, pointwise[0] if pointwise else None, spec)
        bias_shape = [y_shape[ConvSpec(*spec).channel_axis]]
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
