"""What older files hold of `FusedConv2D`: ordinary convolutions written as separable ones.

Their depthwise kernel only selects: output channel ``c * taps + tap`` is input channel c under that
tap, and the pointwise kernel has the weights. Such weights are recognised as they are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["ordinary_kernel"]


def ordinary_kernel(weights: Sequence[Any], layer: Any) -> np.ndarray | None:
    """The kernel [kh, kw, C, F] of an ordinary convolution, from weights that are to be loaded.

    Args:
        weights: arrays from a file, in a layer's order.
        layer: the `FusedConv2D` that is to have them.

    Returns:
        None where the weights are not those of an ordinary convolution as a separable one.
    """
    first = layer.pointwise_kernel if layer.depthwise_kernel is None else layer.depthwise_kernel
    if first is None or layer.kernel_size is None or layer.data_format != "channels_last":
        return None
    height, width = layer.kernel_size
    channels, taps = first.shape[2], height * width
    if layer.depth_multiplier not in (taps, None) or taps == 1:
        return None
    if layer.depthwise_use_bias or layer.depthwise_activation is not None:
        return None
    shapes = [(height, width, channels, taps), (1, 1, channels * taps, layer.filters)]
    if len(weights) != 2 + layer.use_bias or [tuple(a.shape) for a in weights[:2]] != shapes:
        return None
    depthwise, pointwise = (np.asarray(array) for array in weights[:2])
    if not (depthwise == np.eye(taps).reshape(height, width, 1, taps)).all():
        return None
    by_channel = pointwise.reshape(channels, height, width, layer.filters)
    return np.ascontiguousarray(by_channel.transpose(1, 2, 0, 3))
