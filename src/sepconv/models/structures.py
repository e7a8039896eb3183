"""In which structures Keras models take their inputs and give their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import tree
from keras.src.models.functional import Functional

from sepconv.program.named import by_name

__all__ = ["flat_inputs", "functional", "input_names", "structured"]


def functional(model: Any) -> Any:
    """The functional model that a model is or contains; None for one with a `call` of its own."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        if model._functional is None:
            raise ValueError(
                f"The model {model.name!r} must be built: give it an Input, or call it once."
            )
        return model._functional
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    return None


def structured(inputs: list[Any], outputs: list[Any], like: Any, name: str) -> Any:
    """A model that takes and gives its tensors in the structures in which another does.

    Args:
        inputs: its symbolic tensors, flat.
        outputs: likewise.
        like: a Functional model, or a Sequential one, which takes and gives a tensor.
        name: of the new model.

    Example:
        >>> x = keras.Input((2,))
        >>> like = keras.Model({"x": x}, {"y": keras.layers.ReLU()(x)})
        >>> model = structured([x], [keras.layers.ELU()(x)], like, "elu")
        >>> list(model.input), list(model.output)
        (['x'], ['y'])
    """
    if isinstance(like, keras.Sequential):
        return keras.Model(inputs[0], outputs[0], name=name)
    return keras.Model(
        tree.pack_sequence_as(like._inputs_struct, inputs),
        tree.pack_sequence_as(like._outputs_struct, outputs),
        name=name,
    )


def input_names(model: Any) -> list[str]:
    """What the inputs of a functional model are called where it is called with a mapping.

    These are its keys where the model was made with a mapping of inputs, and else the inputs' own
    names.

    Example:
        >>> left, right = keras.Input((2,), name="first"), keras.Input((2,), name="second")
        >>> total = keras.layers.Add()([left, right])
        >>> input_names(keras.Model({"y": left, "x": right}, total))
        ['x', 'y']
        >>> input_names(keras.Model([left, right], total))
        ['first', 'second']
    """
    given = model._inputs_struct
    if isinstance(given, dict) and all(isinstance(key, str) for key in given):
        keys = {id(tensor): key for key, tensor in given.items()}
        if len(keys) == len(model.inputs) and all(id(tensor) in keys for tensor in model.inputs):
            return [keys[id(tensor)] for tensor in model.inputs]
    return [tensor.name for tensor in model.inputs]


def flat_inputs(model: Any, inputs: Any) -> list[Any]:
    """What a model is called with, in the order of its inputs: a mapping has them by their names.

    Args:
        model: a built Sequential or Functional model.
        inputs: a structure of arrays or tensors that it takes.

    Raises:
        ValueError: a mapping lacks an input.

    Example:
        >>> left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
        >>> model = keras.Model([right, left], keras.layers.Add()([left, right]))
        >>> flat_inputs(model, {"left": 1, "right": 2})
        [2, 1]
    """
    whole = functional(model)
    wanted = whole._inputs_struct
    nested = isinstance(wanted, dict) and any(map(tree.is_nested, wanted.values()))
    if isinstance(inputs, Mapping) and not nested:
        return by_name(inputs, input_names(whole), f"The model {model.name!r}")
    return tree.flatten(inputs)
