"""A program: a network as one native call, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from sepconv import _native
from sepconv.program.named import listed
from sepconv.program.network import OPERATIONS, Input, Network, Step
from sepconv.program.shapes import shapes as shapes_of
from sepconv.program.validate import validate

__all__ = ["Memory", "Program", "StepReport", "Tuning", "as_list"]

_DTYPE_CODES = {"float32": 0, "float64": 1}

#: What "to the end" is to ``native/program/step.h``.
_TO_THE_END = 2**63 - 1


class Tuning(NamedTuple):
    """Choices that change how fast a program is, and no bit of its results.

    Attributes:
        chain_from_bytes: neighbouring steps are computed together, by bands of rows, where the
            value between them has at least so many bytes an image; -1 for never.
        strip_bytes: how many bytes the rows may have that are kept between such steps.
        most_links: how many steps go together at most.
    """

    chain_from_bytes: int
    strip_bytes: int
    most_links: int


class Memory(NamedTuple):
    """The memory of a program, in bytes.

    Attributes:
        weights: packed for this processor; once, however many calls there are.
        arena: of one call, for all that lies between its inputs and outputs.
        naive: what the same would take if every step had memory of its own.
    """

    weights: int
    arena: int
    naive: int


class StepReport(NamedTuple):
    """What a step did in a call.

    Attributes:
        name: of the layer that it was.
        operation: its kind, as in `sepconv.program.network.OPERATIONS`.
        shape: of its output.
        seconds: that it took.
        multiply_adds: of its convolution or product, else 0.
        weight_bytes: of its weights.
        plan: how it went, where there is more to say than its kind.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    seconds: float
    multiply_adds: int
    weight_bytes: int
    plan: str


class Program:
    """A network whose weights are packed, to be called on NumPy arrays.

    It is native from input to output: no Python, no engine, no memory from the system between its
    steps. It may be called from many threads at once, and releases Python's lock while it computes.
    The results are the same bits for every number of threads.

    Args:
        network: what it computes.
        tuning: None, or choices other than the usual ones.
        notes: strings by name, which `save` writes beside it.
        keep: whether to keep the network, which `save` needs.

    Raises:
        ValueError: the network is not a valid one; the message names the step.

    Example:
        >>> from sepconv.program.network import Input, Network, Step
        >>> step = Step("unary", "relu", (0,), {"function": "clip", "a": 0.0, "b": 6.0, "c": 0.0})
        >>> program = Program(Network("float32", [Input("x", (None, 3))], [step], [1], ["y"], []))
        >>> program([[-1.0, 2.0, 9.0]])
        array([[0., 2., 6.]], dtype=float32)
    """

    def __init__(
        self,
        network: Network,
        *,
        tuning: Tuning | None = None,
        notes: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> None:
        validate(network)
        if network.dtype not in _DTYPE_CODES:
            raise ValueError(
                f"A program computes in one of {tuple(_DTYPE_CODES)}. "
                f"Received: network.dtype={network.dtype!r}"
            )
        #: The dtype of its arrays.
        self.dtype = np.dtype(network.dtype)
        tensors = [np.require(array, requirements="C") for array in network.tensors]
        self._native = _native.Program(
            _DTYPE_CODES[network.dtype],
            [[-1 if size is None else size for size in one.shape] for one in network.inputs],
            [_flat(step) for step in network.steps],
            list(network.outputs),
            tensors,
            tuning,
        )
        #: How it runs, where that is not the usual way.
        self.tuning = tuning
        #: What was written down beside it.
        self.notes = dict(notes or {})
        #: What it takes: names, and shapes with None for sizes that may be any.
        self.inputs = tuple(network.inputs)
        #: What it gives: names, and shapes with None for sizes that follow from the inputs'.
        self.outputs = tuple(
            Input(name, shape)
            for name, shape in zip(network.output_names, self._open_shapes(network), strict=True)
        )
        self._network = network if keep else None

    def __call__(
        self, *inputs: Any, out: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Computes the outputs.

        Args:
            inputs: the network's, in its order: arrays, or what NumPy makes arrays of; or one
                mapping of them by the names in `Program.inputs`; of several also one list. Other
                floating dtypes, integers and bools are converted to the program's dtype.
            out: None; or an array for the result, or a sequence of them where there are several:
                C-contiguous, of the program's dtype, and apart from the inputs.

        Returns:
            An array, or a tuple of them where the network has several outputs.

        Raises:
            ValueError: there are too many or too few inputs, or a shape does not fit.
            TypeError: a dtype is of another kind.
        """
        arrays = self._arrays(inputs)
        results = self._results(arrays, out)
        self._native.run(arrays, results)
        return results[0] if len(results) == 1 else tuple(results)

    def profile(self, *inputs: Any) -> list[StepReport]:
        """Computes the outputs as a call does, and tells what each step took.

        Args:
            inputs: as of a call.

        Returns:
            A report a step, in order.
        """
        arrays = self._arrays(inputs)
        rows = self._native.profile(arrays, self._results(arrays, None))
        return [
            StepReport(name, operation, shape, seconds, multiply_adds, weight_bytes, plan)
            for operation, name, shape, multiply_adds, weight_bytes, seconds, plan in rows
        ]

    def output_shapes(self, *shapes: Sequence[int]) -> list[tuple[int, ...]]:
        """The outputs' shapes for inputs of these shapes.

        Raises:
            ValueError: they do not fit.
        """
        return list(self._native.output_shapes([tuple(shape) for shape in shapes]))

    def memory(self, *shapes: Sequence[int]) -> Memory:
        """The memory that a call on inputs of these shapes takes.

        Args:
            shapes: the inputs'; without any, those of the network, with a batch of 1. Other sizes
                that are open must be given.
        """
        if not shapes:
            own = [
                [size for size in (1, *one.shape[1:]) if size is not None] for one in self.inputs
            ]
            if [len(sizes) for sizes in own] != [len(one.shape) for one in self.inputs]:
                raise ValueError(
                    "The inputs' shapes must be given, since some of their sizes are open: "
                    f"{[one.shape for one in self.inputs]}"
                )
            return Memory(*self._native.memory(own))
        return Memory(*self._native.memory([tuple(shape) for shape in shapes]))

    def save(self, path: str | Path) -> None:
        """Writes the program to a file, which `sepconv.load` opens.

        It holds the network as it was given, so that it opens on another processor too.

        Args:
            path: of the file, by custom ``.sepconv``. A file that is there is replaced once the new
                one is whole.
        """
        from sepconv.program import file
        from sepconv.program.tune import to_notes

        file.write(path, self.network, self.notes | to_notes(self.tuning))

    @property
    def network(self) -> Network:
        """What it computes.

        Raises:
            ValueError: the program was loaded from a file, and holds packed weights alone.
        """
        if self._network is None:
            raise ValueError(
                "This program was loaded from a file, and holds its weights only as this processor "
                "reads them. Copy the file instead, or read it with sepconv.program.file.read."
            )
        return self._network

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A program cannot be copied or pickled, since its weights are packed for this "
            "processor. Write it to a file with Program.save, and open that with sepconv.load "
            "where it is needed. Threads may share one program, and so may children of fork()."
        )

    def _arrays(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        if len(inputs) == 1 and inputs[0].__class__ is not np.ndarray:
            inputs = listed(inputs, self.inputs, "A program's call")
        return [self._array(i, value) for i, value in enumerate(inputs)]

    def _array(self, index: int, value: Any) -> np.ndarray:
        # The usual case first: it is what small networks spend their time on.
        if value.__class__ is np.ndarray and value.dtype is self.dtype and value.flags.carray:
            return value
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise TypeError(
                f"Input {index} must hold numbers. Received: an array of dtype {array.dtype}"
            )
        return np.ascontiguousarray(array, self.dtype).reshape(array.shape)

    def _results(
        self, arrays: list[np.ndarray], out: np.ndarray | Sequence[np.ndarray] | None
    ) -> list[np.ndarray]:
        if out is None:
            shapes = self._native.output_shapes([array.shape for array in arrays])
            return [np.empty(shape, self.dtype) for shape in shapes]
        results = [out] if isinstance(out, np.ndarray) else list(out)
        for result in results:
            if not (isinstance(result, np.ndarray) and result.dtype == self.dtype):
                raise TypeError(
                    f"out must be of NumPy arrays of {self.dtype}. Received: "
                    f"{getattr(result, 'dtype', type(result).__name__)}"
                )
            if not result.flags.carray:
                raise ValueError("out must be C-contiguous and writable.")
        return results

    def _open_shapes(self, network: Network) -> list[tuple[int | None, ...]]:
        """The outputs' shapes, with None for sizes that follow from open ones."""
        batches = {one.shape[:1] for one in self.inputs}
        if len(batches) > 1 or any(None in one.shape[1:] for one in self.inputs):
            found = shapes_of(network)
            return [found[number] for number in network.outputs]
        # With one batch alone open, the program itself can tell; and what does not fit shows now.
        first, second = (
            self._native.output_shapes(
                [
                    tuple(batch if size is None else size for size in one.shape)
                    for one in self.inputs
                ]
            )
            for batch in (2, 3)
        )
        return [
            tuple(a if a == b else None for a, b in zip(one, other, strict=True))
            for one, other in zip(first, second, strict=True)
        ]


def as_list(outputs: Any) -> list[np.ndarray]:
    """What a program's call gives, an array or a tuple of several, as a list."""
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def _flat(step: Step) -> tuple[Any, ...]:
    """A step as ``native/program/step.h`` has it."""
    operation = OPERATIONS[step.operation]
    integers: list[int] = []
    floats: list[float] = []
    for name, kind, choices, _ in operation.fields:
        value = step.attributes[name]
        if kind == "float":
            floats.append(value)
        elif kind == "choice":
            integers.append(choices.index(value))
        elif kind in ("ints", "bounds"):
            integers.append(len(value))
            integers += [_TO_THE_END if item is None else item for item in value]
        else:
            integers.append(int(value))
    tensors = [step.weights.get(part) for part in operation.weights]
    return step.operation, step.name, list(step.inputs), integers, floats, tensors
