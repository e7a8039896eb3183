"""`sepconv.quantize`: an int8 network of a Keras model, a PyTorch module or a program."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

from sepconv.models.dispatch import is_torch_module
from sepconv.program.dtypes import value_dtypes
from sepconv.program.network import Network
from sepconv.program.program import Program
from sepconv.quantization.calibration import arrays_of
from sepconv.quantization.origin import NOTE, Origin, write_origin
from sepconv.quantization.record import Record
from sepconv.quantization.search import quantized

__all__ = ["Int8", "Quantized", "given", "quantize", "quantize_network"]


class Quantized(NamedTuple):
    """The result of `quantize`.

    Attributes:
        model: what was made.
        record: what became of every block; prints as a table.
    """

    model: Any
    record: Record


def quantize(
    model: Any,
    calibration: Any = None,
    *,
    keep: Sequence[str] = (),
    tolerance: float | None = None,
    trainable: bool = False,
) -> Quantized:
    """Makes an int8 network of one in float, for inference: smaller, and faster on processors.

    Values become whole numbers of 0 to 255, and weights of -127 to 127, with a scale an output
    channel. Nothing is trained: the scales come of what the values are on the calibration data,
    those with the least expected squared error. What has no int8 form stays float, and the record
    says why. Where it lessens the error on the calibration data, channels are equalised across
    layers, and biases make up for the mean error of rounded weights.

    Where that is not close enough, `trainable` gives a Keras model that computes the same in
    floats, with simulated rounding and gradients that pass straight through it (Jacob et al.,
    https://arxiv.org/abs/1712.05877). `fit` trains it, and `quantize` of it, without more, freezes
    it to an int8 model.

    Args:
        model: a built Sequential or Functional model of Keras'; a `torch.nn.Module`; or a
            `sepconv.program.program.Program` of float32 that knows its network. It stays as it is.
            Or a Keras model that was made with `trainable`, to be frozen.
        calibration: examples like those that will be predicted, a hundred or more: an array, as
            many as there are inputs, or batches, as `fit` takes them; targets are left out. None
            for a model that is to be frozen: it keeps its scales.
        keep: names of blocks that stay float, as the record has them, or patterns such as
            ``"block_1*"``.
        tolerance: None, or the largest error of the outputs: the root mean square of their
            difference from the float network's over that of the outputs, on examples of the
            calibration data; where an output is a softmax, of what goes into it. As many blocks
            as that needs stay float, those that add the most noise first.
        trainable: for a Keras model, whether to make one that is trained before it is int8. Batch
            normalization is folded into the layers before it, and dropout left out.

    Returns:
        A named tuple. `model` is a Keras model where one was given, which saves and loads on every
        engine, and of which `sepconv.compile` makes a program; a `sepconv.modules.ProgramModule`
        of a module, whose `program` is one; and a program of a program. `record` is a
        `sepconv.quantization.record.Record`. Of a model that was trained it has no error: there is
        no float network that it could be the error from.

    Raises:
        TypeError: the model, the calibration data or an argument is of another kind.
        ValueError: the model does not compile, see `sepconv.compile`; the data does not fit it; a
            name of `keep` is of no block; or a trained model's weights cannot be rounded.

    Example:
        >>> import keras, numpy as np, sepconv
        >>> layers = [keras.layers.SeparableConv2D(8, 3, activation="relu"),
        ...           keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> pictures = np.random.default_rng(0).standard_normal((64, 8, 8, 3))
        >>> small, record = sepconv.quantize(model, pictures)
        >>> [block.int8 for block in record]
        [True, True, True]
        >>> small.predict(pictures, verbose=0).shape
        (64, 3)

        Trained with simulated rounding, and frozen:

        >>> simulated, _ = sepconv.quantize(model, pictures, trainable=True)
        >>> simulated.compile("adam", "mse")
        >>> _ = simulated.fit(pictures, np.ones((64, 3)), verbose=0)
        >>> small, record = sepconv.quantize(simulated)
        >>> expected = simulated.predict(pictures, verbose=0)
        >>> bool(np.allclose(small.predict(pictures, verbose=0), expected, atol=0.02))
        True
    """
    if isinstance(model, Program):
        if model.dtype != "float32":
            raise ValueError(
                f"quantize takes programs of float32. Received: a program of {model.dtype}"
            )
        _refuse_training(trainable, "a program")
        found = quantize_network(model.network, given(calibration), keep, tolerance)
        return Quantized(found.program(), found.record)
    if is_torch_module(model):
        from sepconv.modules.quantize import quantize as of_module

        _refuse_training(trainable, f"a PyTorch module, {type(model).__name__}")
        return of_module(model, given(calibration), keep=keep, tolerance=tolerance)
    from sepconv.models.quantize import quantize as of_model

    return of_model(model, calibration, keep=keep, tolerance=tolerance, trainable=trainable)


def _refuse_training(trainable: bool, what: str) -> None:
    if trainable:
        raise TypeError(
            f"trainable=True makes a model that fit trains, of a Keras model. Received: {what}"
        )


def given(calibration: Any) -> Any:
    """Calibration data, which may be missing only where a trained model is frozen."""
    if calibration is None:
        raise TypeError(
            "quantize needs calibration, examples like those that will be predicted; only a Keras "
            "model that was made with trainable=True is quantised without. Received: None"
        )
    return calibration


class Int8(NamedTuple):
    """An int8 network.

    Attributes:
        network: which computes it.
        origin: what its bytes stand for.
        record: what became of every block.
    """

    network: Network
    origin: Origin
    record: Record

    def program(self) -> Program:
        """Its program, with a note of the origin."""
        return Program(self.network, notes={NOTE: write_origin(self.origin)})


def quantize_network(
    network: Network,
    calibration: Any,
    keep: Sequence[str] = (),
    tolerance: float | None = None,
) -> Int8:
    """The int8 network of a float one, as `quantize` makes it.

    Raises:
        TypeError: see `quantize`.
        ValueError: see there; or the network is of another dtype than float32.
    """
    if isinstance(keep, str):
        raise TypeError(f"keep must be a list of names. Received: keep={keep!r}")
    if not (tolerance is None or (isinstance(tolerance, Real) and tolerance is not True)):
        raise TypeError(f"tolerance must be a number or None. Received: tolerance={tolerance!r}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be above 0. Received: tolerance={tolerance}")
    dtypes = sorted(set(value_dtypes(network)) | {network.dtype})
    if dtypes != ["float32"]:
        raise ValueError(
            "quantize takes networks of float32 alone: quantise the model that this one was made "
            f"from. Received: values of {' and '.join(dtypes)}"
        )
    arrays = arrays_of(calibration, network.inputs)
    made, record = quantized(network, arrays, keep, tolerance)
    return Int8(made.network, made.origin, record)
