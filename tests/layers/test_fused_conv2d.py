"""`FusedConv2D` as a Keras layer: what it says of shapes that do not fit."""

from __future__ import annotations

import keras
import pytest

from sepconv import layers

KINDS = ({"filters": 5, "kernel_size": 3}, {"filters": 5}, {"kernel_size": 3})


@pytest.mark.parametrize("arguments", KINDS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_channels_must_be_known(arguments, data_format):
    layer = layers.FusedConv2D(**arguments, data_format=data_format, name="block_7")
    shape = (None, 8, 8, None) if data_format == "channels_last" else (None, None, 8, 8)
    for call in (
        lambda: layer.compute_output_spec(keras.KerasTensor(shape)),
        lambda: layer.compute_output_shape(shape),
        lambda: layer.build(shape),
        lambda: layer(keras.KerasTensor(shape)),
    ):
        with pytest.raises(ValueError, match="number of channels of the inputs of 'block_7'"):
            call()


@pytest.mark.parametrize("arguments", KINDS)
def test_there_must_be_four_axes(arguments):
    layer = layers.FusedConv2D(**arguments, name="block_7")
    for call in (layer.compute_output_shape, layer.build):
        with pytest.raises(ValueError, match="'block_7' must have 4 axes"):
            call((None, 8, 4))
