"""TensorFlow's operation ``SepconvFused``: a block of an inference network in one call.

Its derivatives, and what it is on another device than the CPU, are those of what it is composed
of.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sepconv.engines.tensorflow.calls import Array, operations, runs_on_cpu, static_shape
from sepconv.engines.tensorflow.composed import ordinary
from sepconv.engines.tensorflow.convolution import convolve
from sepconv.fused import BLOCK_ACTIVATIONS, Block, Operands
from sepconv.geometry import ConvSpec

__all__ = ["fuse"]

_INPUTS = ("depthwise", "depthwise_bias", "pointwise", "bias", "residual")


def _activate(y: Array, code: int) -> Array:
    if code == BLOCK_ACTIVATIONS["relu"]:
        return tf.nn.relu(y)
    if code == BLOCK_ACTIVATIONS["relu6"]:
        return tf.nn.relu6(y)
    if code == BLOCK_ACTIVATIONS["hard_silu"]:
        return y * tf.nn.relu6(y + 3) / 6
    return y if code == BLOCK_ACTIVATIONS[None] else tf.nn.silu(y)


def _composed(operands: Operands, block: Block) -> Array:
    y, depthwise_kernel, depthwise_bias, pointwise_kernel, bias, residual = operands
    spec, between, last = block
    if depthwise_kernel is not None:
        only = bias if pointwise_kernel is None else depthwise_bias
        y = convolve(y, depthwise_kernel, None, only, spec, None)
    if pointwise_kernel is not None:
        y = _activate(y, between)
        if spec.channels_first:
            y = tf.transpose(y, [0, 2, 3, 1])
        if depthwise_kernel is None:
            y = ordinary(y, pointwise_kernel, spec)
        else:
            y = tf.tensordot(y, pointwise_kernel[0, 0], 1)
        if bias is not None:
            y = y + bias
        if spec.channels_first:
            y = tf.transpose(y, [0, 3, 1, 2])
        if residual is not None:
            y = y + residual
    return _activate(y, last)


@tf.RegisterGradient("SepconvFused")
def _gradient(operation: Any, dy: Array) -> list[Array | None]:
    inputs = list(operation.inputs)
    block = Block(
        ConvSpec(*operation.get_attr("spec")),
        operation.get_attr("depthwise_activation"),
        operation.get_attr("activation"),
    )
    given = [operation.get_attr(f"num_{name}") for name in _INPUTS]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        rest = iter(inputs[1:])
        y = _composed(Operands(inputs[0], *(next(rest) if n else None for n in given)), block)
    return tape.gradient(y, inputs, dy)


def fuse(operands: Operands, block: Block) -> Array:
    """See `sepconv.engines.front`."""
    if not runs_on_cpu(operands.x):
        return _composed(operands, block)
    x, *rest = operands
    y = operations.sepconv_fused(
        x,
        *([] if a is None else [a] for a in rest),
        spec=list(block.spec),
        depthwise_activation=block.depthwise_activation,
        activation=block.activation,
    )
    if not tf.executing_eagerly():
        kernels = operands.depthwise_kernel, operands.pointwise_kernel
        y.set_shape(static_shape(x, *kernels, block.spec))
    return y
