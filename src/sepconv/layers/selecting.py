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
    between = layer.depthwise_use_bias or layer.depthwise_activation is not None
    if between or layer.filters is None or layer.kernel_size is None:
        return None
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    separable = 2 + layer.use_bias  # so many weights
    if layer.data_format != "channels_last" or taps == 1 or len(weights) != separable:
        return None
    if layer.depth_multiplier not in (taps, None):
        return None
    depthwise, pointwise = (np.asarray(array) for array in weights[:2])
    height, width = layer.kernel_size
    selecting = np.eye(taps).reshape(height, width, 1, taps)
    if depthwise.ndim != 4 or depthwise.shape[:2] != (height, width) or depthwise.shape[3] != taps:
        return None
    if not (depthwise == selecting).all():
        return None
    by_channel = pointwise.reshape(-1, height, width, layer.filters)
    return np.ascontiguousarray(by_channel.transpose(1, 2, 0, 3))
