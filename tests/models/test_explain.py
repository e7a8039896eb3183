"""What `sepconv explain` times computes, on this engine, what the model and its layer do."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from sepconv import layers
from sepconv.explain.timing import compiled, example, median_seconds


@pytest.mark.parametrize("whole", [True, False])
def test_it_computes_what_the_model_does(whole):
    layer = layers.SeparableConv2D(5, 3, padding="same", activation="relu")
    model = keras.Sequential([keras.Input((6, 7, 3)), layer, keras.layers.Dropout(0.9)])
    x = example((2, 6, 7, 3))
    # Before the other, for on JAX it gives the weights' memory away and takes new.
    expected = model.predict(x, verbose=0)
    run = compiled(model if whole else layer, (x,), xla=False)
    received = keras.ops.convert_to_numpy(run())
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)
    assert 0 < median_seconds(run, seconds=0.01) < 60
