"""`sepconv.layers.ProgramLayer`: a network as one native call, as a layer of Keras'."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from sepconv.engines import adapter
from sepconv.layers.devices import supports_jit
from sepconv.layers.exporting import NotExported
from sepconv.program.embedded import Embedded, bytes_of, open_program, results_of
from sepconv.program.named import listed
from sepconv.program.program import Program

__all__ = ["ProgramLayer", "fitting"]


@keras.saving.register_keras_serializable(package="sepconv")
class ProgramLayer(NotExported, keras.layers.Layer):
    """A network that computes as one native call, for inference in a Keras model.

    It computes what its program computes, on every engine: `sepconv.compile` makes one. Its only
    weight is the program's file, as bytes, so a model with it is saved and loaded as any other, and
    the weights are packed anew for the machine where it is loaded. `sepconv.compile` of a model
    with such a layer takes its steps into the new program.

    It has no derivative: training anything before it is an error. Compiled functions of JAX and
    TensorFlow call it back, on the CPU. `model.export` refuses it.

    Args:
        program: a `sepconv.program.program.Program` that knows its network, as `sepconv.compile`
            gives it; the path of its file; None for a layer whose weights are loaded.
        signature: what a layer without a program takes and gives, as in its config.
        **kwargs: `name` and what else `keras.layers.Layer` takes.

    Call arguments:
        inputs: what the program takes, with the batch first; of several inputs a list, or a
            mapping by their names.

    Output shape:
        The program's; of several outputs a list.

    Raises:
        ValueError: the program was loaded from a file, and holds packed weights alone; or there is
            no program in the file.
        TypeError: `program` is neither.

    Example:
        >>> import numpy as np, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(4, 3)])
        >>> served = keras.Sequential(
        ...     [keras.Input((8, 8, 3)), ProgramLayer(sepconv.compile(model))]
        ... )
        >>> served.predict(np.ones((2, 8, 8, 3), "float32"), verbose=0).shape
        (2, 6, 6, 4)
    """

    _instead = "Export the model that the program was made from"

    def __init__(
        self,
        program: Program | str | os.PathLike[str] | None = None,
        signature: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if program is None and signature is None:
            raise TypeError(
                "ProgramLayer takes a program, as sepconv.compile makes it, or the signature of "
                "one whose weights are loaded. Received: neither"
            )
        data = None if program is None else bytes_of(program, "ProgramLayer")
        if data is not None:
            made = program if isinstance(program, Program) else open_program(data, "ProgramLayer")
            signature = _signature(made, len(data))
        assert signature is not None
        # Programs convert their inputs themselves, and have a dtype of their own.
        kwargs["dtype"], kwargs["autocast"] = signature["dtype"], False
        kwargs["trainable"] = False
        super().__init__(**kwargs)
        self.signature: dict[str, Any] = signature
        self.file = self.add_weight(
            name="file",
            shape=(signature["size"],),
            dtype="uint8",
            trainable=False,
            autocast=False,
            initializer="zeros" if data is None else lambda shape, dtype: data,
        )
        self._attach()
        if data is not None:
            self._embedded.program()
        self.built = True

    def _attach(self) -> None:
        """Makes what computes, of whatever the weight holds."""
        engine = adapter(keras.backend.backend())

        # The layer's own value, where a function may be traced with others.
        def read() -> np.ndarray:
            return engine.file_bytes(self.file._value)

        self._embedded = Embedded(read, f"The layer {self.name!r}")
        self.supports_jit = supports_jit()

    @property
    def wanted(self) -> Sequence[tuple[str, Sequence[int | None]]]:
        """The names and shapes of what it takes."""
        return self.signature["inputs"]

    @property
    def program_file(self) -> np.ndarray:
        """The bytes of the program's file, as `Program.save` writes them."""
        data: np.ndarray = np.asarray(keras.ops.convert_to_numpy(self.file))
        return data

    def build(self, *shapes: Any) -> None:
        """Nothing is left to do: a program knows its sizes."""
        self.built = True

    def call(self, inputs: Any) -> Any:
        """See the class."""
        tensors = fitting(self.name, self.wanted, inputs)
        engine = adapter(keras.backend.backend())
        found = engine.run_program(self._embedded, self.file.value, tensors)
        return found[0] if len(found) == 1 else found

    def compute_output_spec(self, inputs: Any) -> Any:
        """The results' shapes, with None for sizes that follow from open ones."""
        fitting(self.name, self.wanted, inputs)
        found = [
            keras.KerasTensor(shape, dtype=dtype) for _, shape, dtype in self.signature["outputs"]
        ]
        return found[0] if len(found) == 1 else found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As `compute_output_spec`."""
        found = [tuple(shape) for _, shape, _ in self.signature["outputs"]]
        return found[0] if len(found) == 1 else found

    def load_own_variables(self, store: Any) -> None:
        """Loads the program's file, and opens it: a damaged one is an error here."""
        super().load_own_variables(store)
        self._attach()
        self._embedded.program()

    def get_config(self) -> dict[str, Any]:
        """What the program takes and gives; the program itself is a weight."""
        config = super().get_config()
        for name in ("dtype", "trainable"):
            config.pop(name, None)
        return {**config, "signature": self.signature}


def _signature(program: Program, size: int) -> dict[str, Any]:
    """What a layer must know before its weights are there, as JSON has it."""
    return {
        "dtype": program.dtype.name,
        "size": size,
        "inputs": [[one.name, _listed(one.shape)] for one in program.inputs],
        "outputs": [[one.name, _listed(one.shape), one.dtype.name] for one in results_of(program)],
    }


def _listed(shape: Sequence[int | None]) -> list[int | None]:
    return list(shape)


def fitting(
    layer: str, wanted: Sequence[tuple[str, Sequence[int | None]]], inputs: Any
) -> list[Any]:
    """The tensors that a layer is called with, checked.

    Args:
        layer: its name.
        wanted: the names and shapes of its inputs, with None for any size.
        inputs: a tensor, or a structure of several; in a mapping they have their names.

    Raises:
        ValueError: they are more or fewer, or do not fit.
    """
    tensors = tree.flatten(listed((inputs,), wanted, f"The layer {layer!r}"))
    if len(tensors) != len(wanted):
        raise ValueError(
            f"The layer {layer!r} takes {len(wanted)} inputs: "
            f"{[name for name, _ in wanted]}. Received: {len(tensors)}"
        )
    for tensor, (name, shape) in zip(tensors, wanted, strict=True):
        given = tuple(tensor.shape)
        fits = len(given) == len(shape) and all(
            None in pair or type(pair[1]) is not int or pair[0] == pair[1]
            for pair in zip(shape, given, strict=True)
        )
        if not fits:
            raise ValueError(
                f"The input {name!r} of the layer {layer!r} must have the shape "
                f"{tuple(shape)}, with None for any size. Received: {given}"
            )
    return tensors
