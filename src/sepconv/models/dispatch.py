"""Public functions that take a Keras model or a PyTorch module: each calls the one for its kind.

Neither Keras nor PyTorch is imported for a model of the other.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["accelerate", "compile", "factorize", "is_torch_module", "optimize", "to_stock"]


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

    Of an int8 Keras model of `quantize`, it makes a float one with the rounded weights.

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


def compile(
    model: Any,
    example_inputs: Any = None,
    *,
    dtype: str | None = None,
    tune: bool = False,
    verify: Any = True,
    partial: bool = False,
    dynamic_shapes: Any = None,
) -> Any:
    """Makes a program of a network for inference: one native call from input to output.

    The program needs NumPy alone, neither Keras nor an engine; `Program.save` writes it to a file,
    which `sepconv.load` opens. Of a Keras model, see `sepconv.models.compile.compile`; of a PyTorch
    module, which needs no Keras, `sepconv.modules.compile.compile`.

    Args:
        model: a built Sequential or Functional model of Keras', or a `torch.nn.Module`.
        example_inputs: for a module: a tensor, or a tuple of what it is called with.
        dtype: ``"float32"`` or ``"float64"`` to compute in; None for the model's own.
        tune: whether to time several ways of running it on this machine, all with the same results
            to the bit, and keep the fastest. It takes some seconds, on a quiet machine.
        verify: whether to compare the program's predictions with the model's; or inputs to do so
            with.
        partial: for a Keras model: whether to leave layers that are not known to Keras.
        dynamic_shapes: for a module: which sizes are open, as for `torch.export.export`; None for
            the first axis of every input.

    Returns:
        A `sepconv.program.program.Program`; with `partial`, maybe a
        `sepconv.models.partial.PartialProgram`.

    Raises:
        TypeError: the model is of neither kind, or an argument is for the other kind.
        ValueError: the model cannot be compiled; the message says what to do.

    Example:
        >>> import keras, numpy as np, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3)])
        >>> sepconv.compile(model)(np.ones((2, 8, 8, 3))).shape
        (2, 6, 6, 3)
    """
    if is_torch_module(model):
        if partial:
            raise TypeError(
                "partial=True leaves layers to Keras, so it is for Keras models. "
                f"Received: a PyTorch module, {type(model).__name__}"
            )
        from sepconv.modules.compile import compile as of_module

        return of_module(
            model,
            example_inputs,
            dynamic_shapes=dynamic_shapes,
            dtype=dtype,
            tune=tune,
            verify=verify,
        )
    if example_inputs is not None or dynamic_shapes is not None:
        raise TypeError(
            "example_inputs and dynamic_shapes are for PyTorch modules; a Keras model says itself "
            f"what it takes. Received: model of the class {type(model).__name__}"
        )
    from sepconv.models.compile import compile as of_model

    return of_model(model, dtype=dtype, tune=tune, verify=verify, partial=partial)


def optimize(
    model: Any, example_inputs: Any = None, *, dtype: str | None = None, verify: Any = True
) -> Any:
    """Optimizes a network for inference: folds normalization, fuses blocks, packs weights once.

    A Keras model becomes another, see `sepconv.models.optimize.optimize`. A PyTorch module becomes
    a module that computes as one native call, see `sepconv.modules.optimize.optimize`.

    Args:
        model: a built Sequential or Functional model of Keras', or a `torch.nn.Module`.
        example_inputs: for a module: a tensor, or a tuple of what it is called with.
        dtype: of a Keras model, ``"bfloat16"`` or ``"float16"`` for blocks that compute in it; of a
            module what `compile` takes; None for the model's own.
        verify: whether to compare predictions, or inputs to do so with.

    Returns:
        A named tuple: the optimized model or module, and a record of what became of it.

    Raises:
        TypeError: `model` is no Sequential or Functional model and no module, or an argument is for
            the other kind.
        ValueError: the model cannot be optimized, or the result predicts something else.

    Example:
        >>> import keras, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(4, 3)])
        >>> optimized, record = sepconv.optimize(model)
        >>> optimized.output_shape
        (None, 6, 6, 4)
    """
    if is_torch_module(model):
        from sepconv.modules.optimize import optimize as of_module

        return of_module(model, example_inputs, dtype=dtype, verify=verify)
    if example_inputs is not None:
        raise TypeError(
            "example_inputs are for PyTorch modules; for a Keras model, verify=inputs compares "
            f"predictions. Received: model of the class {type(model).__name__}"
        )
    from sepconv.models.optimize import optimize as of_model

    return of_model(model, dtype=dtype, verify=verify)


def factorize(
    layer_or_model: Any,
    example_inputs: Any = None,
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    flops: int | float | None = None,
    parameters: int | float | None = None,
    data: Any = None,
    verify: Any = True,
) -> Any:
    """Replaces ordinary convolutions by separable ones that compute nearly the same with less work.

    Of a Keras model or layer, a copy is made: see `sepconv.models.factorize.factorize`. A PyTorch
    module changes in place: see `sepconv.modules.factorize.factorize`.

    Args:
        layer_or_model: a Keras model or `Conv2D`, or a `torch.nn.Module`.
        example_inputs: for a module: a tensor, or a tuple of what it is called with.
        rank: the depth multiplier of every layer. Exactly one goal is given: this or the next four.
        energy: the part of each layer's squared norm to keep.
        max_error: the relative error to allow each layer.
        flops: the multiply-adds to come down to, a fraction or a number.
        parameters: the weights to come down to, a fraction or a number.
        data: inputs on which outputs are approximated, or None.
        verify: whether to compare outputs, or inputs to do so with.

    Returns:
        A named tuple: the new model or the module, and a report.

    Raises:
        TypeError: `layer_or_model` is none of these, or an argument is for the other kind.
        ValueError: a goal is out of range or reach, or something cannot be factorized.

    Example:
        >>> import keras, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3)])
        >>> smaller, report = sepconv.factorize(model, flops=0.4)
        >>> smaller.layers[0].depth_multiplier
        2
    """
    goals: dict[str, Any] = {
        "rank": rank,
        "energy": energy,
        "max_error": max_error,
        "flops": flops,
        "parameters": parameters,
    }
    if is_torch_module(layer_or_model):
        from sepconv.modules.factorize import factorize as of_module

        return of_module(layer_or_model, example_inputs, **goals, data=data, verify=verify)
    if example_inputs is not None:
        raise TypeError(
            "example_inputs are for PyTorch modules; a Keras model says itself what it takes. "
            f"Received: layer_or_model of the class {type(layer_or_model).__name__}"
        )
    from sepconv.models.factorize import factorize as of_model

    return of_model(layer_or_model, **goals, data=data, verify=verify)
