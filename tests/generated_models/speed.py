"""What makes tiny models quick to run once: operations one by one, and short compilations."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
from keras.src.backend import random
from keras.src.initializers import random_initializers
from keras.src.trainers.trainer import Trainer


@contextlib.contextmanager
def eager():
    """Has Keras compile no function of its own, whatever models are compiled with.

    A function would be compiled for one model and called once or twice. Operations are compiled
    once a shape, and the models share them.
    """
    before = Trainer.run_eagerly
    Trainer.run_eagerly = property(lambda self: True, before.fset)
    try:
        yield
    finally:
        Trainer.run_eagerly = before


class _NumPy:
    """The functions of random numbers that initializers use, of NumPy's numbers."""

    def __init__(self):
        self.random = np.random.default_rng(0)

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return self._tensor(self.random.uniform(minval, maxval, shape), dtype)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return self._tensor(self.random.normal(mean, stddev, shape), dtype)

    truncated_normal = normal

    def __getattr__(self, name):
        return getattr(random, name)

    @staticmethod
    def _tensor(values, dtype):
        return keras.ops.convert_to_tensor(values, dtype)


@contextlib.contextmanager
def quickly():
    """Has the engine spend little on what it compiles, and no threads on what is too small.

    Weights get their values afterwards, so where random ones would be a program a shape (JAX),
    NumPy makes the first ones.
    """
    engine = keras.backend.backend()
    if engine == "jax":
        import jax

        before = jax.config.read("jax_disable_most_optimizations"), random_initializers.random
        jax.config.update("jax_disable_most_optimizations", True)
        random_initializers.random = _NumPy()
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before[0])
            random_initializers.random = before[1]
    elif engine == "torch":
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
    else:
        yield
