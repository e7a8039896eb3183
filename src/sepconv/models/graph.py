"""A functional Keras model as a list of steps that can be changed, and back.

Models within the model are dissolved into their steps, unless they compute in a way of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import tree
from keras.src.backend.common.masking import get_keras_mask

from sepconv.models.structures import flat_inputs, functional, structured

__all__ = ["OTHERWISE", "Graph", "Step", "Value", "computes_otherwise", "connect"]

#: Why a layer for which `computes_otherwise` holds is left alone.
OTHERWISE = "it was given a way of its own to compute"


class Value:
    """A tensor between steps.

    Attributes:
        shape: with None for unknown sizes.
        dtype: Keras' name, or None where it is not known. For some lookup layers, and for layers
            without weights after them, Keras names a float dtype where the values are integers.
        masked: whether the tensor has a mask.
        dense: whether it is neither sparse nor ragged.
    """

    def __init__(self, tensor: Any) -> None:
        self.shape = tuple(tensor.shape)
        producer = tensor._keras_history.operation
        self.dtype = None if hasattr(producer, "output_mode") else tensor.dtype
        self.masked = get_keras_mask(tensor) is not None
        self.dense = not (getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False))


class Step:
    """One call of a layer or operation.

    Attributes:
        operation: the layer or operation, or a description of a new one.
        name: of its layer in the new model.
        arguments: (args, kwargs) of the call, with `Value` in the place of tensors.
        inputs: the values among them.
        outputs: what the call returns, flat.
        path: the names of the models around it, outermost first, and its own.
    """

    def __init__(
        self, operation: Any, arguments: Any, outputs: list[Value], path: tuple[str, ...]
    ) -> None:
        self.operation, self.outputs, self.path = operation, outputs, path
        self.name = path[-1]
        self.set_arguments(*arguments)

    def set_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Replaces the call's arguments."""
        self.arguments = args, kwargs
        self.inputs = [v for v in tree.flatten(self.arguments) if isinstance(v, Value)]

    @property
    def label(self) -> str:
        """Its path as one name."""
        return "/".join(self.path)

    @property
    def output(self) -> Value:
        """The only output."""
        (output,) = self.outputs
        return output

    def takes_one(self) -> bool:
        """Whether it is called with one tensor and no other argument that matters at inference."""
        args, kwargs = self.arguments
        plain = all(v in (None, False) for v in kwargs.values() if not isinstance(v, Value))
        return len(self.inputs) == 1 and len(args) == 1 and args[0] is self.inputs[0] and plain


class Graph:
    """The steps of a model, in an order in which they can be computed.

    Args:
        model: a built Sequential or Functional model.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is not built.
    """

    def __init__(self, model: Any) -> None:
        whole = functional(model)
        if whole is None:
            raise TypeError(
                "model must be a Sequential or Functional Keras model, whose layers can be seen. "
                f"Received: model={model!r} of the class {type(model).__name__}"
            )
        self.model = whole
        self.name = model.name
        self.inputs = [Value(tensor) for tensor in whole.inputs]
        self._whole: set[int] = set()  # ids of nested models that stay whole
        known = -1
        # A model that is called twice is dissolved in both calls or in none, to have one copy.
        while known != len(self._whole):
            known = len(self._whole)
            self.steps: list[Step] = []
            self.outputs = self._trace(whole, self.inputs, ())
        for name, value in zip(whole.output_names, self.outputs, strict=True):
            producer = self.producer(value)
            if producer is not None and producer.operation is not None:
                producer.name = name
        calls = Counter(id(step.operation) for step in self.steps)
        #: Why layers and operations stay as they are, by their ids.
        self.kept = {key: "it is called more than once" for key, n in calls.items() if n > 1}
        for step in self.steps:
            if computes_otherwise(step.operation):
                self.kept[id(step.operation)] = OTHERWISE

    def _trace(self, model: Any, inputs: list[Value], path: tuple[str, ...]) -> list[Value]:
        values = {id(tensor): v for tensor, v in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                arguments = node.arguments.fill_in(values)
                inner = functional(node.operation)
                here = (*path, node.operation.name)
                if inner is not None and not _dissolves(inner, *arguments):
                    self._whole.add(id(node.operation))
                if inner is not None and id(node.operation) not in self._whole:
                    outputs = self._trace(inner, flat_inputs(inner, *arguments[0]), here)
                else:
                    outputs = [Value(tensor) for tensor in node.outputs]
                    step = Step(node.operation, arguments, outputs, here)
                    self.steps.append(step)
                    if any(value.dtype is None for value in step.inputs) and not _has_weights(step):
                        for value in outputs:
                            value.dtype = None
                for tensor, value in zip(node.outputs, outputs, strict=True):
                    values[id(tensor)] = value
        return [values[id(tensor)] for tensor in model.outputs]

    def producer(self, value: Value) -> Step | None:
        """The step that computes a value; None for an input."""
        return next((step for step in self.steps if value in step.outputs), None)

    def consumers(self, value: Value) -> int:
        """The number of uses of a value, outputs of the model included."""
        uses = sum(step.inputs.count(value) for step in self.steps)
        return uses + self.outputs.count(value)

    def only_before(self, step: Step, value: Value) -> Step | None:
        """The step that computes `value`, if only `step` uses that; else None."""
        producer = self.producer(value)
        if producer is None or len(producer.outputs) != 1 or self.consumers(value) != 1:
            return None
        return producer

    def merge(self, first: Step, second: Step) -> None:
        """Replaces `second` by `first`, whose value it used; name and output stay the second's."""
        first.outputs, first.name = second.outputs, second.name
        self.steps.remove(first)
        self.steps[self.steps.index(second)] = first

    def absorb(self, first: Step, second: Step) -> None:
        """Removes `first`: `second` takes its input."""
        replaced = tree.map_structure(
            lambda v: first.inputs[0] if v is first.output else v, second.arguments
        )
        second.set_arguments(*replaced)
        self.steps.remove(first)

    def bypass(self, step: Step) -> None:
        """Removes a step that changes nothing: its users take its input."""
        source, gone = step.inputs[0], step.output
        self.steps.remove(step)
        for other in self.steps:
            if gone in other.inputs:
                replaced = tree.map_structure(lambda v: source if v is gone else v, other.arguments)
                other.set_arguments(*replaced)
        self.outputs = [source if v is gone else v for v in self.outputs]

    def build(self, make: Callable[[Step, str], Any], fill: Callable[[Step, Any], None]) -> Any:
        """The model that the steps make.

        Args:
            make: a step and the name of its layer to something to call with the step's arguments.
            fill: gives that, once it has been called, its weights.
        """
        tensors: dict[Value, Any] = {}
        for value, tensor in zip(self.inputs, self.model.inputs, strict=True):
            tensors[value] = keras.Input(
                batch_shape=tensor.shape,
                dtype=tensor.dtype,
                sparse=getattr(tensor, "sparse", False),
                name=tensor.name,
                optional=getattr(tensor._keras_history.operation, "optional", False),
            )
        connect(self.steps, tensors, make, fill)
        inputs, outputs = ([tensors[v] for v in values] for values in (self.inputs, self.outputs))
        return structured(inputs, outputs, self.model, self.name)


def connect(
    steps: list[Step],
    tensors: dict[Value, Any],
    make: Callable[[Step, str], Any],
    fill: Callable[[Step, Any], None] | None = None,
) -> list[str]:
    """Calls what is made of steps, on Keras' inputs.

    Args:
        steps: in an order in which they can be computed.
        tensors: of the values that they take, and from now on of those that they give.
        make: see `Graph.build`.
        fill: see there.

    Returns:
        The names of the steps' layers.
    """
    names = _unique_names([tensor.name for tensor in tensors.values()], steps)
    calls: dict[int, Any] = {}
    for step, name in zip(steps, names, strict=True):
        key = id(step.operation)
        new = key not in calls
        if new:
            calls[key] = make(step, name)
        args, kwargs = tree.map_structure(
            lambda v: tensors[v] if isinstance(v, Value) else v, step.arguments
        )
        results = tree.flatten(calls[key](*args, **kwargs))
        if new and fill is not None:
            fill(step, calls[key])
        for value, tensor in zip(step.outputs, results, strict=True):
            tensors[value] = tensor
    return names


def computes_otherwise(operation: Any) -> bool:
    """Whether a layer or operation was given a way to compute that is not its class'.

    Example:
        >>> layer = keras.layers.ReLU()
        >>> layer.call = lambda x: x
        >>> computes_otherwise(layer)
        True
    """
    return not {"call", "convolution_op", "__call__"}.isdisjoint(vars(operation))


def _has_weights(step: Step) -> bool:
    """Whether it computes with weights, which makes integers floats."""
    return bool(getattr(step.operation, "weights", ()))


def _dissolves(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of a nested model computes just its steps.

    It does not where it is given a mask or a mode, or tensors that it casts or reshapes.
    """
    given = flat_inputs(model, *args) if len(args) == 1 else []
    return (
        all(v is None or v is False for v in tree.flatten(kwargs))
        and len(given) == len(model.inputs)
        and all(
            isinstance(value, Value)
            and value.dtype == tensor.dtype
            and len(value.shape) == len(tensor.shape)
            for value, tensor in zip(given, model.inputs, strict=True)
        )
    )


def _unique_names(taken: Iterable[str], steps: list[Step]) -> list[str]:
    """A name for every step: its own, or with its models' names where the name is taken."""
    operations: dict[int, str] = {}
    used = set(taken)
    names = []
    for step in steps:
        key = id(step.operation)
        if key not in operations:
            name = step.name
            if name in used:
                name = "_".join((*step.path[:-1], step.name))
            count = 1
            while name in used:
                count += 1
                name = f"{step.name}_{count}"
            used.add(name)
            operations[key] = name
        names.append(operations[key])
    return names
