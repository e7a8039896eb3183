"""The values, numbers or words, that a Keras layer expects as its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

__all__ = ["Default", "Domain", "domain_of", "domain_within", "moves_numbers"]

#: Layers and operations that move or drop values and compute nothing.
_MOVING_LAYERS = (
    BaseImagePreprocessingLayer,
    layers.ActivityRegularization,
    layers.Concatenate,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.Dropout,
    layers.Flatten,
    layers.GaussianNoise,
    layers.Identity,
    layers.InputLayer,
    layers.Masking,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.Permute,
    layers.RepeatVector,
    layers.Reshape,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_MOVING_OPERATIONS = (
    "BroadcastTo",
    "Cast",
    "Concatenate",
    "ConvertToTensor",
    "Copy",
    "ExpandDims",
    "Flip",
    "GetItem",
    "Identity",
    "Moveaxis",
    "Pad",
    "Ravel",
    "Repeat",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Stack",
    "Swapaxes",
    "Tile",
    "Transpose",
    "Unstack",
)
#: The least constant that is taken for a divisor of a picture's values.
_PICTURES = 16
_UNKNOWN_WORD = "unheardof"
#: The least height and width of an array of four axes that is taken for pictures; and the number of
#: waves that their values are drawn as.
_PICTURE, _WAVES = 8, 4


class Domain:
    """A kind of values that inputs are drawn from.

    Attributes:
        rank: of two domains of one input, the one of lower rank is used.
        is_text: whether the values are strings.
    """

    rank: float = 9
    is_text: bool = False

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        raise NotImplementedError


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Roughly standard normal numbers; in a picture they change slowly from pixel to pixel.

    In pictures of pure noise, rounding errors grow from layer to layer until they hide real
    differences.
    """
    noise = rng.standard_normal(shape)
    if len(shape) != 4 or min(shape[1:3]) < _PICTURE:
        return noise
    waves = np.zeros(shape)
    pixels = np.arange(max(shape[1:3]))[:, None, None] / max(shape[1:3])
    for _ in range(_WAVES):
        # Every example and channel has its own direction, wavelength and phase.
        down, across, phase = rng.uniform(-20, 20, (3, shape[0], 1, 1, shape[3]))
        rows, columns = pixels[: shape[1]], pixels[: shape[2]]
        angle = down * rows + phase + across * columns.reshape(1, -1, 1)
        waves += np.sin(angle)
    return (waves + 0.3 * noise) / np.sqrt(_WAVES / 2 + 0.09)


class Default(Domain):
    """The default: standard normal numbers, small integers, booleans or a few words, by dtype."""

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        if dtype == "bool":
            values = rng.random(shape) < 0.7
            if values.ndim:
                values[..., :1] = True  # a mask that is all False leaves nothing to compute
            return values
        if dtype == "string":
            return Words(["one", "two", "three"]).draw(shape, dtype, rng)
        if keras.backend.is_float_dtype(dtype):
            return _as_dtype(_smooth(shape, rng), dtype)
        return rng.integers(0, 2, shape).astype(dtype)


class Integers(Domain):
    """Integers from 0 to below a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, int(limit))
        # Of several limits, the smallest is used.
        self.rank = 2 + self.limit / (self.limit + 1)

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        high = self.limit
        if dtype == "bool":
            return rng.random(shape) < 0.5
        if not keras.backend.is_float_dtype(dtype):
            high = min(high, int(np.iinfo(dtype).max))
        return _as_dtype(rng.integers(0, high, shape), dtype)


class Choice(Domain):
    """Values that are each one of some numbers."""

    rank = 1

    def __init__(self, numbers: Sequence[Any]) -> None:
        self.numbers = list(numbers) or [0]

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of the values, in which the last number occurs."""
        at = rng.integers(0, len(self.numbers), shape)
        if at.size:
            at.flat[-1] = len(self.numbers) - 1
        return _as_dtype(np.asarray(self.numbers)[at], dtype)


class Words(Domain):
    """Texts of some words each; the last word of the list always occurs."""

    rank = 1
    is_text = True

    def __init__(self, words: Sequence[str], length: int = 1) -> None:
        self.words, self.length = list(words) or [_UNKNOWN_WORD], length

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        at = rng.integers(0, len(self.words), (*shape, self.length))
        if at.size:
            at.flat[-1] = len(self.words) - 1
        texts = [" ".join(self.words[i] for i in row) for row in at.reshape(-1, self.length)]
        return np.array(texts).reshape(shape)


class Hashed(Domain):
    """Any values of the dtype."""

    rank = 3

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        if dtype == "string":
            return Words([f"word{i}" for i in range(20)]).draw(shape, dtype, rng)
        return Integers(100).draw(shape, dtype, rng)


class Uniform(Domain):
    """Floats between two bounds."""

    rank = 4

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        if not keras.backend.is_float_dtype(dtype) and dtype != "bool":
            return rng.integers(
                int(self.low), max(int(self.high), int(self.low) + 1), shape
            ).astype(dtype)
        spread = (self.high - self.low) / 4  # so that some reach the bounds
        numbers = (self.low + self.high) / 2 + spread * _smooth(shape, rng)
        return _as_dtype(np.clip(numbers, self.low, self.high), dtype)


class Normal(Domain):
    """Floats around a mean; mean and deviation may be arrays that broadcast to an example."""

    rank = 5

    def __init__(self, mean: Any, deviation: Any) -> None:
        self.mean, self.deviation = np.asarray(mean, "float64"), np.asarray(deviation, "float64")

    def draw(self, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
        """An array of such values."""
        numbers = _smooth(shape, rng)
        try:
            numbers = np.broadcast_to(numbers * self.deviation + self.mean, shape)
        except ValueError:  # the layer sees the input in another shape
            numbers = numbers * self.deviation.mean() + self.mean.mean()
        return _as_dtype(numbers, dtype)


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "string":
        return array.astype(str)
    if dtype == "bfloat16":  # unknown to NumPy
        return array.astype("float32")
    return array.astype(dtype)


def moves_numbers(operation: Any) -> bool:
    """Whether an operation of a functional graph only moves or drops values.

    Example:
        >>> moves_numbers(layers.Flatten()), moves_numbers(layers.Dense(1))
        (True, False)
    """
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, _MOVING_LAYERS)
    return type(operation).__name__ in _MOVING_OPERATIONS


def domain_of(operation: Any, node: Any = None, tensor: Any = None) -> Domain | None:
    """The values that a layer or operation expects of an input; None where that is not known.

    Args:
        operation: a layer, or an operation of a functional graph.
        node: its call in the graph, or None.
        tensor: the input in question, or None.

    Example:
        >>> domain_of(layers.Embedding(10, 2)).limit
        10
        >>> domain_of(layers.Rescaling(1 / 255)).high
        255.0
    """
    if isinstance(operation, layers.TimeDistributed):
        return domain_of(operation.layer)
    for kind, rule in _RULES:
        if isinstance(operation, kind):
            return rule(operation)
    if isinstance(operation, keras.layers.Layer):
        # A user's own layer: integers that every embedding in it can look up.
        sizes = [
            x.input_dim for x in operation._flatten_layers() if isinstance(x, layers.Embedding)
        ]
        return Integers(min(sizes)) if sizes else None
    return _of_function(operation, node, tensor)


def domain_within(model: Any) -> Domain:
    """The domain of the first layer that has one, in a model without a graph."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, tuple(kind for kind, _ in _RULES)):
            domain = domain_of(layer)
            if domain is not None:
                return domain
        if layer.weights and not list(layer._flatten_layers(include_self=False)):
            break  # it computes, so the layers after it see other values
    return Default()


def _lookup(layer: Any) -> Domain:
    words = layer.get_vocabulary(include_special_tokens=False)
    text = isinstance(layer, layers.StringLookup)
    if layer.invert:
        return Integers(layer.vocabulary_size())
    stranger: list[Any] = (
        [] if not layer.num_oov_indices else [_UNKNOWN_WORD if text else _other(words)]
    )
    return Words([*words, *stranger]) if text else Choice([*words, *stranger])


def _other(numbers: Sequence[int]) -> int:
    return max(map(int, numbers), default=0) + 1


def _sentences(layer: Any) -> Domain:
    # The empty word and the one for unknown words do not occur in text.
    words = [w for w in layer.get_vocabulary() if w and w != "[UNK]" and " " not in w]
    return Words([*words[:1000], _UNKNOWN_WORD], length=5)


def _around_boundaries(layer: Any) -> Domain | None:
    boundaries = layer.bin_boundaries
    if boundaries is None or len(boundaries) == 0:
        return None
    edges = np.sort(np.asarray(boundaries, "float64"))
    span = max(edges[-1] - edges[0], 1.0)
    steps = np.diff([edges[0] - span / len(edges), *edges, edges[-1] + span / len(edges)])
    # Values between the boundaries, nearer to the upper one: on a boundary, rounding would decide.
    return Choice([edges[0] - steps[0] / 3, *(edges + steps[1:] * 2 / 3)])


def _rescaling(layer: Any) -> Domain | None:
    scale, offset = (np.asarray(x, "float64") for x in (layer.scale, layer.offset))
    if not scale.all():
        return None
    low = -1.0 if (offset < 0).any() else 0.0
    bounds = (np.array([low, 1.0]).reshape(2, *[1] * max(scale.ndim, offset.ndim)) - offset) / scale
    return Uniform(float(bounds.min()), float(bounds.max()))


def _normalization(layer: Any) -> Domain | None:
    if layer.mean is None or layer.invert:
        return None
    return _normal(layer.mean, layer.variance)


def _normal(mean: Any, variance: Any) -> Domain:
    mean, variance = (keras.ops.convert_to_numpy(x).astype("float64") for x in (mean, variance))
    return Normal(mean, np.sqrt(np.maximum(variance, 0)))


def _batch_normalization(layer: Any) -> Domain | None:
    if not layer.built or layer.axis not in (-1, layer.input_spec.ndim - 1):
        return None
    return _normal(layer.moving_mean, layer.moving_variance)


_RULES: tuple[tuple[Any, Any], ...] = (
    (layers.Embedding, lambda layer: Integers(layer.input_dim)),
    (layers.CategoryEncoding, lambda layer: Integers(layer.num_tokens)),
    (layers.TextVectorization, _sentences),
    ((layers.StringLookup, layers.IntegerLookup), _lookup),
    ((layers.Hashing, layers.HashedCrossing), lambda layer: Hashed()),
    (layers.Discretization, _around_boundaries),
    (layers.Rescaling, _rescaling),
    (layers.Normalization, _normalization),
    (layers.BatchNormalization, _batch_normalization),
)


def _of_function(operation: Any, node: Any, tensor: Any) -> Domain | None:
    """The domain of an operation without a layer, by the constants that it is called with."""
    kind = type(operation).__name__
    if kind == "OneHot":
        return Integers(operation.num_classes)
    if node is None:
        return None
    args = [*node.arguments.args, *node.arguments.kwargs.values()]
    if kind == "Take" and len(args) > 1 and args[1] is tensor and hasattr(args[0], "shape"):
        axis = operation.axis
        return Integers(np.prod(args[0].shape) if axis is None else args[0].shape[axis])
    numbers = [abs(a) for a in args if isinstance(a, int | float) and not isinstance(a, bool)]
    if kind in ("TrueDivide", "Divide") and args[0] is tensor and numbers:
        return Uniform(0.0, float(numbers[0])) if numbers[0] >= _PICTURES else None
    if kind == "Multiply" and numbers and 0 < numbers[0] <= 1 / _PICTURES:
        return Uniform(0.0, 1 / float(numbers[0]))
    return None
