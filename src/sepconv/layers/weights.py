"""The values of a layer's weights, as it computes with them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["weight_value"]


def weight_value(weight: Any, dtype: str) -> Any:
    """The tensor of a weight, in the dtype that its layer computes in.

    ``__call__`` casts a layer's weights, but ``stateless_call`` does not pass through it.
    """
    tensor = ops.convert_to_tensor(weight, dtype)
    # Keras before 3.12 leaves PyTorch's variables in their own dtype.
    if keras.backend.standardize_dtype(tensor.dtype) != dtype:
        tensor = ops.cast(tensor, dtype)
    return tensor
