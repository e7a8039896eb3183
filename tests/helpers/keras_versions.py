"""Which tests need a newer Keras than the oldest one, and what it can do on its engine."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest


def is_since(version: str) -> bool:
    """Whether Keras is of a version or of a later one."""
    installed, needed = (tuple(map(int, v.split(".")[:2])) for v in (keras.__version__, version))
    return installed >= needed


def since(version: str, what: str) -> pytest.MarkDecorator:
    """Skips a test with the versions of Keras that came before something that it needs."""
    return pytest.mark.skipif(not is_since(version), reason=f"{what}: Keras {version}")


@functools.cache
def convolves_channels_first() -> bool:
    """Whether Keras' own convolutions take channels_first; on TensorFlow's CPU, only newer ones."""
    x, kernel = np.zeros((1, 1, 3, 3), "float32"), np.zeros((3, 3, 1, 1), "float32")
    try:
        keras.ops.conv(x, kernel, data_format="channels_first")
    # TensorFlow's errors have a class of their own.
    except Exception:
        return False
    return True
