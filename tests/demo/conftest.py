"""The outcome of a demo that nobody had to wait for."""

import numpy as np
import pytest

from sepconv.demo.compare import Comparison
from sepconv.demo.training import Run


@pytest.fixture
def comparison():
    """A comparison where sepconv is ten times as fast."""

    def run(layers, seconds):
        rng = np.random.default_rng(0)
        return Run(
            layers=layers,
            epoch_seconds=[5 * seconds, seconds, 2 * seconds, seconds],
            compile_seconds=1.5,
            history={
                "loss": [1.0, 0.5, 0.2, 0.1],
                "accuracy": [0.5, 0.8, 0.9, 0.99],
                "val_loss": [2.0, 0.5, 0.2, 0.1],
                "val_accuracy": [0.1, 0.8, 0.9, 0.975],
            },
            peak_bytes=123_400_000,
            kernels={"block_1": rng.standard_normal((5, 5, 5)).tolist()},
            parameters=12345,
        )

    return Comparison("jax", "digits", 0, run("keras", 4.0), run("sepconv", 0.4))
