"""Public functions that take a Keras model or a PyTorch module: each calls the one for its kind.

Neither Keras nor PyTorch is imported for a model of the other.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["accelerate", "is_torch_module", "to_stock"]


def is_torch_module(model: Any) -> bool:
    """Whether a model is a `torch.nn.Module` that is not Keras'; imports nothing.

    Keras' layers are PyTorch's modules too, where PyTorch is its engine.

    Example:
        >>> is_torch_module("no model")
        False
    """
    module = getattr(sys.modules.get("torch.nn"), "Module", None)
    if module is None or not isinstance(model, module):
        return False
    layer = getattr(getattr(sys.modules.get("keras"), "layers", None), "Layer", None)
    return layer is None or not isinstance(model, layer)


def accelerate(model: Any, *, verify: Any = True) -> Any:
    """Puts sepconv's layers in the place of Keras' or PyTorch's own, where our kernels serve them.

    Of a Keras model, a copy is made: see `sepconv.models.accelerate.accelerate`. A PyTorch module
    changes in place: see `sepconv.modules.accelerate.accelerate`.

    Args:
        model: a Keras model or a `torch.nn.Module`.
        verify: inputs to compare predictions with; True makes some for a Keras model.

    Returns:
        The accelerated model and a record of what was changed, what was not, and why.

    Raises:
        TypeError: `model` is neither.
        ValueError: a Keras layer can be neither copied nor made from its config, or predictions
            differ.

    Example:
        >>> import keras, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3)])
        >>> model, record = sepconv.accelerate(model)
        >>> record.changed
        1
    """
    if is_torch_module(model):
        from sepconv.modules.accelerate import accelerate as of_module

        return of_module(model, verify=verify)
    from sepconv.models.accelerate import accelerate as of_model

    return of_model(model, verify=verify)


def to_stock(model: Any, *, verify: Any = True) -> Any:
    """Undoes `accelerate`: a copy of a Keras model, or the same PyTorch module, with stock layers.

    See `sepconv.models.stock.to_stock` and `sepconv.modules.stock.to_stock`.

    Args:
        model: a Keras model or a `torch.nn.Module`.
        verify: for a Keras model, whether to compare predictions, or inputs to do so with.

    Returns:
        The copy of a Keras model; the module itself.

    Raises:
        TypeError: `model` is neither.
        ValueError: a layer cannot become stock; the message names it.

    Example:
        >>> import keras, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), sepconv.layers.DepthwiseConv2D(3)])
        >>> type(sepconv.to_stock(model).layers[0]) is keras.layers.DepthwiseConv2D
        True
    """
    if is_torch_module(model):
        from sepconv.modules.stock import to_stock as of_module

        return of_module(model)
    from sepconv.models.stock import to_stock as of_model

    return of_model(model, verify=verify)
