"""A network whose costs can be counted by hand, and a machine of round numbers."""

import math

import numpy as np
import pytest

from sepconv.bench.roofline import Level, Machine

MACHINE = Machine(1, 1e9, (Level("L2", 4000, 1e9), Level("memory", math.inf, 1e8)))


@pytest.fixture(scope="module")
def network(keras):
    """One layer of each kind, where everything can be counted by hand."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(6, 3, strides=2, name="sep"),
            layers.Conv2D(8, 3, groups=2, name="conv"),
            layers.Flatten(),
            layers.Dense(5, name="fc"),
        ],
        name="small",
    )


@pytest.fixture(scope="session")
def machine():
    return MACHINE


@pytest.fixture(scope="module")
def explain(keras):
    from sepconv.explain import analysis

    def run(model, *shape):
        return analysis.explain(model, np.ones(shape, "float32"), MACHINE, lambda *_: None)

    return run


@pytest.fixture
def quick(monkeypatch):
    """The command without its measurement of the machine."""
    monkeypatch.setattr("sepconv.bench.roofline.measure", lambda threads, seconds: MACHINE)
