"""A model as programs where programs know its layers, and as Keras' layers elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, NoReturn, overload

import keras
import numpy as np
from keras import tree

from sepconv.models.copying import LayerCopier
from sepconv.models.graph import Graph, Step, Value, connect
from sepconv.models.lowering import NotLowered, lower
from sepconv.models.lowering.checks import fits
from sepconv.models.partition import Partition, Section
from sepconv.models.running import as_tensor
from sepconv.models.structures import input_names
from sepconv.program.named import listed
from sepconv.program.network import Input, Network
from sepconv.program.program import Program, as_list

__all__ = ["Part", "PartialProgram", "Parts", "partial_program"]


class Part(NamedTuple):
    """A part of a model.

    Attributes:
        kind: what computes it: ``"program"`` or ``"keras"``.
        layers: the names of its layers, with those of the models around them.
        classes: their classes.
        why: for each of them, why it was left to Keras; empty in a program.
        runs: the `Program`, or the Keras model of copied layers.
    """

    kind: str
    layers: tuple[str, ...]
    classes: tuple[str, ...]
    why: tuple[str, ...]
    runs: Any


class Parts(Sequence[Part]):
    """The parts of a model, in the order of computation; prints as a table, a line a layer.

    Example:
        >>> parts = [Part("program", ("mix",), ("Dense",), ("",), None),
        ...          Part("keras", ("gru",), ("GRU",), ("it is not known",), None)]
        >>> print(Parts(parts))
        compile: 1 of 2 layers in 1 program, the others left to Keras
          1  program  mix  Dense
          2  keras    gru  GRU    it is not known
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Part, ...]: ...
    def __getitem__(self, index: int | slice) -> Part | tuple[Part, ...]:
        return self._parts[index]

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def __str__(self) -> str:
        rows = [
            (str(number), part.kind, *row)
            for number, part in enumerate(self, 1)
            for row in zip(part.layers, part.classes, part.why, strict=True)
        ]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
        compiled = [part for part in self if part.kind == "program"]
        layers = sum(len(part.layers) for part in compiled)
        lines = [
            f"compile: {layers} of {len(rows)} layers in {len(compiled)} "
            f"program{'s'[: len(compiled) != 1]}, the others left to Keras"
        ]
        for *cells, why in rows:
            start = "  ".join(f"{c:{w}}" for c, w in zip(cells, widths, strict=True))
            lines.append(f"  {start}  {why}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Parts({list(self._parts)!r})"


class _Stage(NamedTuple):
    """A part that can be called, and the values that it takes and gives."""

    part: Part
    inputs: list[Value]
    outputs: list[Value]


class PartialProgram:
    """A model in parts: programs, and Keras models of the layers that programs do not know.

    `sepconv.compile` makes it with ``partial=True``. It is called as a program is, and needs Keras
    and its engine. Between parts, values are NumPy arrays. It shares no weight with the model.

    Attributes:
        parts: what computes which layers, and why; prints as a table.
        dtype: of its programs, and of the results that the model has in its own dtype.
        inputs: what it takes: names, and shapes with None for sizes that may be any.
        outputs: what it gives.

    Example:
        >>> import sepconv
        >>> layers = [keras.layers.GRU(3, name="gru"), keras.layers.Dense(2, name="mix")]
        >>> model = keras.Sequential([keras.Input((5, 4)), *layers])
        >>> partial = sepconv.compile(model, partial=True)
        >>> print(partial.parts)
        compile: 1 of 2 layers in 1 program, the others left to Keras
          1  keras    gru  GRU    it is not known
          2  program  mix  Dense
        >>> partial(np.ones((1, 5, 4), "float32")).shape
        (1, 2)
    """

    def __init__(self, graph: Graph, stages: Sequence[_Stage], own: str, dtype: str) -> None:
        self._name, self._given, self._asked = graph.name, graph.inputs, graph.outputs
        self._stages, self._own = stages, own
        self.parts = Parts([stage.part for stage in stages])
        # Programs that compute in bfloat16 take and give float32.
        self.dtype = np.dtype("float32" if dtype == "bfloat16" else dtype)
        self.inputs = _described(input_names(graph.model), graph.inputs)
        self.outputs = _described(graph.model.output_names, graph.outputs)

    def __call__(self, *inputs: Any) -> np.ndarray | tuple[np.ndarray, ...]:
        """Computes the outputs.

        Args:
            inputs: the model's, in its order: arrays, or what NumPy makes arrays of, which are
                converted to the dtypes that the model takes; or one mapping of them by their names;
                of several also one list.

        Returns:
            An array, or a tuple of them where the model has several outputs.

        Raises:
            ValueError: there are too many or too few inputs, or a shape does not fit.
        """
        arrays = listed(inputs, self.inputs, f"A call of the model {self._name!r}")
        if len(arrays) != len(self._given):
            raise ValueError(
                f"The model {self._name!r} takes {len(self._given)} inputs: "
                f"{[one.name for one in self.inputs]}. Received: {len(arrays)}"
            )
        values = {
            value: self._input(one, value, array)
            for one, value, array in zip(self.inputs, self._given, arrays, strict=True)
        }
        for stage in self._stages:
            arrays = [values[value] for value in stage.inputs]
            run = _run_program if stage.part.kind == "program" else _run_keras
            found = run(stage.part.runs, arrays)
            values.update(zip(stage.outputs, found, strict=True))
        results = tuple(self._result(values[value], value) for value in self._asked)
        return results[0] if len(results) == 1 else results

    def save(self, path: Any) -> NoReturn:
        """Refuses: a file holds a whole program, and what is Keras' cannot be in it.

        Raises:
            ValueError: always.
        """
        left = [name for part in self.parts if part.kind == "keras" for name in part.layers]
        raise ValueError(
            f"The model {self._name!r} cannot be saved as a program, since layers of it are left "
            f"to Keras: {left}. Save the model with Keras, by model.save, and compile it once it "
            "is loaded; or save parts by themselves, as parts[i].runs.save does."
        )

    def _input(self, described: Input, value: Value, given: Any) -> Any:
        """An input as the model takes it, of a shape that fits."""
        array = np.asarray(given)
        if value.dtype != "string":
            array = array.astype(value.dtype, copy=False)
        fits = len(array.shape) == len(value.shape) and all(
            size in (None, found) for size, found in zip(value.shape, array.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"The input {described.name!r} must have the shape {value.shape}, with None for "
                f"any size. Received: {array.shape}"
            )
        return array

    def _result(self, array: np.ndarray, value: Value) -> np.ndarray:
        """An output: an array of the caller's own, of the program's dtype where it has floats."""
        array = array.astype(self.dtype, copy=False) if fits(value.dtype, self._own) else array
        return (
            np.array(array) if value in self._given else np.require(array, requirements=("C", "W"))
        )


def _described(names: Sequence[str], values: Sequence[Value]) -> tuple[Input, ...]:
    return tuple(Input(name, v.shape) for name, v in zip(names, values, strict=True))


def _run_program(program: Program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    return as_list(program(*arrays))


def _run_keras(model: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    with _without_gradients():
        found = tree.flatten(model([as_tensor(array) for array in arrays], training=False))
        return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in found]


def _without_gradients() -> AbstractContextManager[Any]:
    """A context in which PyTorch, which would otherwise, records nothing for gradients."""
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    return torch.no_grad()


def partial_program(
    model: Any, dtype: str | None, compiled: Callable[[Network], Program]
) -> PartialProgram:
    """Makes a partial program of a model.

    Args:
        model: a built Sequential or Functional model, which stays as it is.
        dtype: as for `lower`.
        compiled: makes a program of a network.

    Raises:
        ValueError: the model computes in another dtype than programs, an input may be missing or is
            sparse, or a layer cannot be copied.
    """
    graph = Graph(model)
    partition = Partition(graph)
    copies = _Copies(graph, LayerCopier(model))
    while True:
        sections = partition.sections()
        networks = [_lowered(section, partition, copies, dtype) for section in sections]
        if all(n is not None for s, n in zip(sections, networks, strict=True) if s.known):
            break
    stages = []
    for section, network in zip(sections, networks, strict=True):
        runs = copies.model(section)[0] if network is None else compiled(network)
        part = Part(
            "keras" if network is None else "program",
            tuple(step.label for step in section.steps),
            tuple(type(step.operation).__name__ for step in section.steps),
            tuple(partition.why.get(step, "") for step in section.steps),
            runs,
        )
        stages.append(_Stage(part, section.inputs, section.outputs))
    return PartialProgram(graph, stages, partition.dtype, dtype or partition.dtype)


def _lowered(
    section: Section, partition: Partition, copies: _Copies, dtype: str | None
) -> Network | None:
    """The network of a part; None where it is Keras', or where a step of it is now left to Keras.

    Of some layers it shows only now that they have no counterpart.
    """
    if not section.known:
        return None
    model, names = copies.model(section)
    try:
        return lower(model, dtype)
    except NotLowered as error:
        refused = [s for s, n in zip(section.steps, names, strict=True) if n == error.label]
        if not refused:
            raise
        partition.leave(refused[0], error.why)
        return None


class _Copies:
    """Makes Keras models of parts, of copied layers; a layer has one copy in all of them.

    Args:
        graph: of the model.
        copier: of its layers.
    """

    def __init__(self, graph: Graph, copier: LayerCopier) -> None:
        self._graph, self._copier = graph, copier
        tensors = zip(graph.inputs, graph.model.inputs, strict=True)
        self._names = {value: tensor.name for value, tensor in tensors}
        self._names |= {v: f"{step.name}_output" for step in graph.steps for v in step.outputs}

    def model(self, section: Section) -> tuple[Any, list[str]]:
        """The model of a part, and the names of its steps' layers."""
        tensors: dict[Value, Any] = {}
        used: set[str] = set()
        for value in section.inputs:
            name = self._names[value]
            while name in used:
                name += "_"
            used.add(name)
            tensors[value] = keras.Input(batch_shape=value.shape, dtype=value.dtype, name=name)
        names = connect(section.steps, tensors, self._make)
        inputs, outputs = ([tensors[v] for v in values] for values in section[2:])
        return keras.Model(inputs, outputs, name=f"{self._graph.name}_part"), names

    def _make(self, step: Step, name: str) -> Any:
        copy = self._copier.copy(step.operation)
        copy.name = name
        return copy
