"""Named tuples of gradients."""

from __future__ import annotations

from typing import Any, NamedTuple


class DepthwiseGrads(NamedTuple):
    """Gradients of a depthwise convolution, each in the shape of its operand."""

    x: Any
    depthwise_kernel: Any
    bias: Any


class SeparableGrads(NamedTuple):
    """Gradients of a separable convolution, each in the shape of its operand."""

    x: Any
    depthwise_kernel: Any
    pointwise_kernel: Any
    bias: Any


class PointwiseGrads(NamedTuple):
    """Gradients of a pointwise convolution, each in the shape of its operand."""

    x: Any
    pointwise_kernel: Any
    bias: Any
