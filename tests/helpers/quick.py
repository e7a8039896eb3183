"""What makes tiny layers and models quick to run once: short compilations, or none."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
from keras.src.backend import random
from keras.src.initializers import random_initializers
from keras.src.random import seed_generator
from keras.src.trainers.trainer import Trainer
from keras.src.utils.jax_utils import is_in_jax_tracing_scope


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
    """Keras' functions of random numbers that initializers use, with NumPy's numbers."""

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        if is_in_jax_tracing_scope():
            return random.uniform(shape, minval, maxval, dtype, seed)
        return self._tensor(self._random(seed).uniform(minval, maxval, shape), dtype)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        if is_in_jax_tracing_scope():
            return random.normal(shape, mean, stddev, dtype, seed)
        return self._tensor(self._random(seed).normal(mean, stddev, shape), dtype)

    def truncated_normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        """As Keras' own: of a normal distribution, within two standard deviations."""
        if is_in_jax_tracing_scope():
            return random.truncated_normal(shape, mean, stddev, dtype, seed)
        source = self._random(seed)
        values = source.normal(0.0, 1.0, shape)
        while (far := np.abs(values) > 2).any():
            values = np.where(far, source.normal(0.0, 1.0, shape), values)
        return self._tensor(mean + stddev * values, dtype)

    def __getattr__(self, name):
        return getattr(random, name)

    @staticmethod
    def _random(seed):
        """The same numbers for the same seed; a seed generator moves on, as it does in Keras."""
        return np.random.default_rng(np.asarray(seed_generator.draw_seed(seed)))

    @staticmethod
    def _tensor(values, dtype):
        return keras.ops.convert_to_tensor(np.asarray(values, dtype or keras.config.floatx()))


@contextlib.contextmanager
def short_compilations():
    """Has JAX spend little on what it compiles, and compile nothing for the first weights.

    With JAX's random numbers an initializer is a program for each shape; with NumPy's it is none.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations"), random_initializers.random
    jax.config.update("jax_disable_most_optimizations", True)
    random_initializers.random = _NumPy()
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before[0])
        random_initializers.random = before[1]


@contextlib.contextmanager
def one_thread():
    """Has PyTorch use no threads for what is too small for them."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
