"""What makes tiny models quick to run once: operations one by one, and short compilations."""

from __future__ import annotations

import contextlib

import keras
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


@contextlib.contextmanager
def short_compilations():
    """Has the engine spend little on what it compiles, and threads on what is too small for them."""
    engine = keras.backend.backend()
    if engine == "jax":
        import jax

        before = jax.config.jax_disable_most_optimizations
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)
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
