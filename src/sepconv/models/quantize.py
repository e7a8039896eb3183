"""An int8 model of a Keras model: `sepconv.quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from sepconv.layers.program_layer import ProgramLayer
from sepconv.models.lowering import lower
from sepconv.quantization.quantize import Quantized, quantize_network

__all__ = ["quantize"]


def quantize(
    model: Any,
    calibration: Any,
    *,
    keep: Sequence[str] = (),
    tolerance: float | None = None,
) -> Quantized:
    """An int8 model of a Keras model: see `sepconv.quantize`.

    Args:
        model: a built Sequential or Functional model, also one that `sepconv.optimize` made.
        calibration: see there.
        keep: see there.
        tolerance: see there.

    Returns:
        `model`, a Keras model of one layer, a `sepconv.layers.ProgramLayer`, with the inputs and
        outputs of the model that was given; and `record`.

    Raises:
        TypeError: the model is no Sequential or Functional one, or the data is of another kind.
        ValueError: see there.
    """
    network = lower(model, "float32")
    found = quantize_network(network, calibration, keep, tolerance)
    layer = ProgramLayer(found.program(), name="int8")
    inputs = [
        keras.Input(batch_shape=entry.shape, name=entry.name, dtype="float32")
        for entry in network.inputs
    ]
    outputs = layer(inputs[0] if len(inputs) == 1 else inputs)
    made = keras.Model(
        inputs[0] if len(inputs) == 1 else inputs, outputs, name=f"{model.name}_int8"
    )
    return Quantized(made, found.record)
