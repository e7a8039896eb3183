"""A block of an inference network by TensorFlow's operation ``SepconvForward``, and its gradient.

Where the block is a convolution and no more, that is the backward operation; any other block has
the derivatives of what it is composed of, which it also is on another device than the CPU.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sepconv.engines.tensorflow.calls import Array, forward, runs_on_cpu
from sepconv.engines.tensorflow.composed import ordinary
from sepconv.engines.tensorflow.convolution import convolve
from sepconv.engines.tensorflow.transforms import gradient_of_convolution, operands_of
from sepconv.fused import BLOCK_ACTIVATIONS, BlockSpec, Operands, is_convolution
from sepconv.geometry import ConvSpec

__all__ = ["fuse"]


def _activate(y: Array, code: int) -> Array:
    if code == BLOCK_ACTIVATIONS["relu"]:
        return tf.nn.relu(y)
    if code == BLOCK_ACTIVATIONS["relu6"]:
        return tf.nn.relu6(y)
    if code == BLOCK_ACTIVATIONS["hard_silu"]:
        return y * tf.nn.relu6(y + 3) / 6
    return y if code == BLOCK_ACTIVATIONS[None] else tf.nn.silu(y)


def _composed(operands: Operands, block: BlockSpec) -> Array:
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


@tf.RegisterGradient("SepconvForward")
def _gradient(operation: Any, dy: Array) -> list[Array | None]:
    given = operands_of(operation)
    block = BlockSpec(
        ConvSpec(*operation.get_attr("spec")),
        operation.get_attr("depthwise_activation"),
        operation.get_attr("activation"),
    )
    if is_convolution(given, block):
        return gradient_of_convolution(operation, given, dy)
    inputs = list(operation.inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = _composed(given, block)
    return tape.gradient(y, inputs, dy)


def fuse(operands: Operands, block: BlockSpec) -> Array:
    """See `sepconv.engines.front`."""
    if not runs_on_cpu(operands.x):
        return _composed(operands, block)
    return forward(operands, *block)
