"""Keras' BatchNormalization, whose training is computed by sepconv."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from sepconv.arrays import DTYPES
from sepconv.engines import adapter
from sepconv.layers.base import ReplacementMixin
from sepconv.layers.devices import runs_on_cpu

__all__ = ["BatchNormalization", "layer_refusal", "normalize"]


@keras.saving.register_keras_serializable(package="sepconv")
class BatchNormalization(ReplacementMixin, keras.layers.BatchNormalization):
    """Batch normalization, computed by sepconv's kernels in training.

    Once convolutions are fast, the layers between them take as long to train. Made of an engine's
    general operations, mean and variance, the result, and their gradients take a dozen passes over
    the array. Here they take two passes forward and two backward.

    Everything but the computation is as in `keras.layers.BatchNormalization`: arguments, weights
    and their names, config and files. Sepconv computes it in training (``training=True``, and not
    frozen). With `renorm`, `synchronized` or a mask, and in inference, Keras computes it.

    Arrays of bfloat16 and float16 give what Keras makes of them on every engine: it casts them to
    float32, whatever the policy, takes weights in float32, normalizes there and casts the result
    back. Sepconv reads and writes them as they are, and keeps moving mean and variance in the dtype
    that Keras gave them, so that no array is held in float32.

    Args:
        *args: the arguments of `keras.layers.BatchNormalization`, as are:
        **kwargs: `axis`, `momentum`, `epsilon`, `center`, `scale`, the initializers, regularizers
            and constraints of `beta` and `gamma`, `moving_mean_initializer`,
            `moving_variance_initializer`, `renorm` and its options, `synchronized`, `name`,
            `trainable` and `dtype`.

    Input shape:
        Any, of known rank and with a known number of channels along `axis`.

    Output shape:
        The same.

    Source: Ioffe and Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167

    Example:
        >>> import keras
        >>> x = keras.random.uniform((8, 5, 5, 3), seed=0)
        >>> y = BatchNormalization(epsilon=1e-5)(x, training=True)
        >>> round(float(keras.ops.std(y)), 2)
        1.0
    """

    _stock = keras.layers.BatchNormalization

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attach()

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The normalized inputs, computed by our kernels in training."""
        return normalize(self, super().call, inputs, training, mask)


def layer_refusal(layer: keras.layers.BatchNormalization) -> str | None:
    """Why our kernels do not train a layer on Keras' current backend; None where they do.

    Example:
        >>> layer_refusal(BatchNormalization())
        >>> layer_refusal(BatchNormalization(renorm=True))
        'renormalizes batches'
    """
    if adapter(keras.backend.backend()).batch_norm is None:
        return f"{keras.backend.backend()} does not train"
    # Older versions of Keras lack one of these attributes or both.
    if getattr(layer, "renorm", False):
        return "renormalizes batches"
    return "synchronizes devices" if getattr(layer, "synchronized", False) else None


def normalize(
    layer: keras.layers.BatchNormalization,
    original: Callable[..., Any],
    inputs: Any,
    training: bool | None,
    mask: Any,
) -> Any:
    """The result of a layer's `call`, by our kernels where they train it, else by `original`."""
    x = _trained_by_us(layer, inputs) if training and layer.trainable and mask is None else None
    if x is None:
        return original(inputs, training=training, mask=mask)
    channels, real = layer.moving_mean.shape, keras.backend.result_type(x.dtype, "float32")
    gamma, beta = (
        ops.cast(weight, real) if weight is not None else make(channels, real)
        for weight, make in ((layer.gamma, ops.ones), (layer.beta, ops.zeros))
    )
    batch_norm = adapter(keras.backend.backend()).batch_norm
    assert batch_norm is not None  # or it would have been refused
    y, *moments = batch_norm(x, gamma, beta, axis=layer.axis % len(x.shape), epsilon=layer.epsilon)
    for moving, now in zip((layer.moving_mean, layer.moving_variance), moments, strict=True):
        share = ops.cast(moving, now.dtype) * layer.momentum + now * (1 - layer.momentum)
        moving.assign(share)
    return ops.cast(y, layer.compute_dtype)


def _trained_by_us(layer: keras.layers.BatchNormalization, inputs: Any) -> Any:
    """The inputs, in a dtype that our kernels normalize; None where Keras computes the layer.

    That is the dtype in which Keras normalizes, or a half type in which the result is wanted.
    """
    if layer_refusal(layer) is not None or not runs_on_cpu(inputs):
        return None
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if dtype in ("bfloat16", "float16") and dtype == layer.compute_dtype:
        return ops.convert_to_tensor(inputs)
    x = ops.cast(inputs, keras.backend.result_type(dtype, "float32"))
    return x if keras.backend.standardize_dtype(x.dtype) in DTYPES else None
