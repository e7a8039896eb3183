"""How long a layer or a network takes to predict, compiled as Keras compiles it on its engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

__all__ = ["compiled", "median_seconds"]


def compiled(layer: Any, inputs: tuple[Any, ...], xla: bool) -> Callable[[], Any]:
    """A function that runs the layer on the inputs once and waits for the result.

    On JAX the layer runs under `jit`, on TensorFlow in a `tf.function`, on PyTorch eagerly and
    without gradients: as in the `predict` of a Keras model that nobody set otherwise.

    Args:
        layer: a built layer or model.
        inputs: what the layer is called with: arrays, or structures of them.
        xla: whether TensorFlow is to compile with XLA, as it does where all of a model's layers
            support it.
    """
    engine = keras.backend.backend()
    # A layer alone may not know the argument.
    mode = {"training": False} if isinstance(layer, keras.Model) else {}
    if engine == "jax":
        return _jax(layer, inputs, mode)
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    if engine == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda *x: layer(*x, **mode), jit_compile=xla, autograph=False)
        return lambda: keras.tree.map_structure(lambda y: y.numpy(), call(*inputs))

    import torch

    def run() -> Any:
        with torch.no_grad():
            return layer(*inputs, **mode)

    return run


def _jax(layer: Any, inputs: tuple[Any, ...], mode: dict[str, Any]) -> Callable[[], Any]:
    import jax

    weights = [variable.value for variable in layer.trainable_variables]
    others = [variable.value for variable in layer.non_trainable_variables]

    @jax.jit
    def call(weights: Any, others: Any, *x: Any) -> Any:
        return layer.stateless_call(weights, others, *x, **mode)[0]

    inputs = jax.device_put(inputs)
    return lambda: jax.block_until_ready(call(weights, others, *inputs))


def median_seconds(run: Callable[[], Any], seconds: float = 0.15, least: int = 5) -> float:
    """The median time of a run, over at least `least` runs and about `seconds` of them."""
    run()
    samples: list[float] = []
    begun = time.perf_counter()
    while len(samples) < least or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def example(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal numbers of float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")
