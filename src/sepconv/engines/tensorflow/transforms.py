"""The gradients of a convolution alone, and of ``SepconvBackward``.

Where ``SepconvForward`` is no more than a convolution it computes
``y = activation(F(x, depthwise, pointwise) + bias)``, and ``SepconvBackward`` the gradients of
``sum(F(...) * dy)``. F is linear in each of its arguments, so derivatives of any order need no
third operation: see `_gradient_of_backward`. TensorFlow is told of that one on import, and by
`block` of ``SepconvForward``'s.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sepconv.engines.tensorflow.calls import Array, backward, forward
from sepconv.fused import Operands
from sepconv.geometry import ACTIVATIONS, ConvSpec

__all__ = ["gradient_of_convolution", "operands_of"]


def operands_of(operation: Any) -> Operands:
    """Those of a ``SepconvForward``."""
    inputs, given = iter(operation.inputs), operation.get_attr("given")
    bits = range(len(Operands._fields))
    return Operands(*(next(inputs) if given >> bit & 1 else None for bit in bits))


def _skipped(operation: Any) -> tuple[int, ...]:
    """The inputs whose gradient a tape has no use for; tf.gradients does not tell."""
    return getattr(operation, "skip_input_indices", None) or ()


def gradient_of_convolution(operation: Any, operands: Operands, dy: Array) -> list[Array | None]:
    """For the inputs of a ``SepconvForward`` that is a convolution."""
    x, kernel, _, pointwise, bias, _ = operands
    activation = operation.get_attr("activation")
    # Either works from the activation's result as well as from its argument.
    if activation == ACTIVATIONS["relu"]:
        dy = tf.raw_ops.ReluGrad(gradients=dy, features=operation.outputs[0])
    elif activation == ACTIVATIONS["relu6"]:
        dy = tf.raw_ops.Relu6Grad(gradients=dy, features=operation.outputs[0])
    positions = [i for i, a in enumerate((x, kernel, pointwise, bias)) if a is not None]
    skipped = _skipped(operation)
    wanted = [False] * 4
    for index, position in enumerate(positions):
        wanted[position] = index not in skipped
    matrix = [] if pointwise is None else [pointwise]
    grads = backward(x, kernel, matrix, dy, operation.get_attr("spec"), wanted)
    return [grads[position] for position in positions]


@tf.RegisterGradient("SepconvBackward")
def _gradient_of_backward(operation: Any, *cotangents: Array) -> list[Array | None]:
    """The gradient of the gradients.

    With L(x, depthwise, pointwise, dy) = sum(F(x, depthwise, pointwise) * dy), the operation's
    outputs are the derivatives of L in its first three arguments (and sum(dy) for the bias). L is
    linear in each, so the derivative of L in x, in the direction g, is L with g in the place of x,
    and so for the others. What is to be differentiated here is then

        L(gx, depthwise, pointwise, dy) + L(x, g_depthwise, pointwise, dy)
            + L(x, depthwise, g_pointwise, dy) + sum(g_bias * dy)

    whose gradients are again a forward (for dy) and a backward operation a term.
    """
    *factors, dy = operation.inputs  # x, depthwise and maybe pointwise
    spec, wanted = operation.get_attr("spec"), operation.get_attr("wanted")
    skipped = _skipped(operation)
    totals: list[Array | None] = [None] * (len(factors) + 1)

    def add(index: int, term: Array | None) -> None:
        if term is not None:
            totals[index] = term if totals[index] is None else totals[index] + term

    for place in range(len(factors)):
        if not wanted[place] or cotangents[place] is None:
            continue
        x, kernel, *pointwise = [
            cotangents[place] if i == place else factor for i, factor in enumerate(factors)
        ]
        others = [i < len(factors) and i != place and i not in skipped for i in range(3)]
        grads = backward(x, kernel, pointwise, dy, spec, [*others, False])
        for index, grad in enumerate(grads[:3]):
            add(index, grad)
        if len(factors) not in skipped:
            matrix = pointwise[0] if pointwise else None
            add(len(factors), forward(Operands(x, kernel, pointwise_kernel=matrix), spec))
    if wanted[3] and cotangents[3] is not None and len(factors) not in skipped:
        first = ConvSpec(*spec).channels_first
        column = tf.reshape(cotangents[3], [1, -1, 1, 1] if first else [1, 1, 1, -1])
        add(len(factors), tf.broadcast_to(column, tf.shape(dy)))
    return totals
