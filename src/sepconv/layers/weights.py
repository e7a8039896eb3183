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
    if isinstance(weight, keras.Variable):
        # Its own value needs no conversion, whose way through Keras and an engine takes 5 to 10 us.
        value = weight.value
        if keras.backend.standardize_dtype(value.dtype) == dtype:
            return value
    tensor = ops.convert_to_tensor(weight, dtype)
    # Keras before 3.12 leaves PyTorch's variables in their own dtype.
    if keras.backend.standardize_dtype(tensor.dtype) != dtype:
        tensor = ops.cast(tensor, dtype)
    return tensor
