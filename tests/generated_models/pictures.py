"""The menu of what has a grid: convolutions of one to three axes, pooling, padding, pictures."""

from __future__ import annotations

import numpy as np
from keras import layers, ops

from generated_models import own
from generated_models.draw import UnfitError
from generated_models.menu import on

_GRIDS = ("series", "picture", "volume")


def grid(d, shape):
    """The sizes of the axes that are no channels, and the number of channels."""
    if d.format == "channels_first":
        return shape[1:], shape[0]
    return shape[:-1], shape[-1]


def class_of(name, rank):
    return getattr(layers, f"{name}{rank}D")


def _window(d, shape, same_strides=False):
    """Options that say where a convolution looks."""
    sizes, _ = grid(d, shape)
    kernel = tuple(d.one(1, 2, 3, 3) for _ in sizes)
    if d.chance(0.4):
        kernel = (3,) * len(sizes)
    padding = d.one("same", "same", "valid")
    strides = dilation = (1,) * len(sizes)
    if d.chance(0.3):
        strides = (2,) * len(sizes) if same_strides or d.chance(0.7) else (1, 2, 1)[: len(sizes)]
    elif d.chance(0.2):
        dilation = (2,) * len(sizes)
    for size, k, s, r in zip(sizes, kernel, strides, dilation, strict=True):
        if size is not None and ((k - 1) * r + 1 > size or size < 2 * s):
            raise UnfitError
    options = {"kernel_size": kernel, "strides": strides, "dilation_rate": dilation}
    return {**options, "padding": padding, "data_format": d.format, "use_bias": d.chance(0.7)}


@on(*_GRIDS, weight=3, first=True)
def convolution(d, shape):
    rank = len(shape) - 1
    options = {**_window(d, shape), **d.regularized("kernel", "bias")}
    filters, (_, channels) = d.width(), grid(d, shape)
    if d.chance(0.25) and filters % channels == 0:
        options["groups"] = channels
    elif d.chance(0.15) and channels % 2 == 0:
        options["groups"] = 2
    if d.engine == "tensorflow" and options.get("groups", 1) > 1 and rank == 3:
        del options["groups"]
    if rank == 1 and options["padding"] == "valid" and d.format == "channels_last":
        options["padding"] = d.one("valid", "causal")
    kind = own.Named if rank == 2 and d.chance(0.08) else class_of("Conv", rank)
    return d.layer(kind, filters, activation=d.activation(), half=rank < 3, **options)


@on("picture", weight=2.5, first=True)
def ordinary_2d(d, shape):
    """What `factorize` is for: 3x3 and many filters."""
    options = {"padding": "same", "data_format": d.format, "use_bias": d.chance(0.6)}
    options.update(d.regularized("bias"))
    return d.layer(layers.Conv2D, 8, 3, activation=d.activation(), half=True, **options)


@on("picture", weight=1.5, first=True)
def mix(d, shape):
    """1x1."""
    options = {"data_format": d.format, "use_bias": d.chance(0.5)}
    return d.layer(layers.Conv2D, 8, 1, activation=d.activation(0.4), half=True, **options)


@on("series", "picture", weight=3, first=True)
def depthwise(d, shape):
    rank = len(shape) - 1
    options = {**_window(d, shape, same_strides=True), **d.regularized("depthwise", "bias")}
    options["depth_multiplier"] = d.one(1, 1, 2)
    if grid(d, shape)[1] > 8:
        options["depth_multiplier"] = 1
    kind = own.Doubled if rank == 2 and d.chance(0.08) else class_of("DepthwiseConv", rank)
    return d.layer(kind, activation=d.activation(), half=True, **options)


@on("series", "picture", weight=3, first=True)
def separable(d, shape):
    options = {**_window(d, shape, same_strides=True)}
    options.update(d.regularized("depthwise", "pointwise", "bias"))
    options["depth_multiplier"] = d.one(1, 1, 2)
    kind = class_of("SeparableConv", len(shape) - 1)
    return d.layer(kind, d.width(), activation=d.activation(), half=True, **options)


@on(*_GRIDS, first=True)
def transposed(d, shape):
    sizes, _ = grid(d, shape)
    if max(size or 0 for size in sizes) > 8:
        raise UnfitError
    options = {"strides": d.one(1, 2), "padding": d.one("same", "valid")}
    kind = class_of("Conv", len(sizes)).__name__ + "Transpose"
    options |= {"data_format": d.format, "activation": d.activation(0.3)}
    return d.layer(getattr(layers, kind), d.width(), 3, **options)


@on(*_GRIDS, first=True)
def pooling(d, shape):
    sizes, _ = grid(d, shape)
    if min(size or 4 for size in sizes) < 4:
        raise UnfitError
    kind = class_of(d.one("MaxPooling", "AveragePooling"), len(sizes))
    options = {"padding": d.one("same", "valid"), "strides": d.one(None, 1)}
    return d.layer(kind, 2, data_format=d.format, **options)


@on(*_GRIDS, weight=0.4)
def adaptive_pooling(d, shape):
    if min(size or 0 for size in shape[:-1]) < 4:
        raise UnfitError
    kind = class_of(d.one("AdaptiveAveragePooling", "AdaptiveMaxPooling"), len(shape) - 1)
    return d.layer(kind, 4)


@on(*_GRIDS, weight=0.8)
def padding(d, shape):
    rank = len(shape) - 1
    if max(size or 0 for size in shape[:-1]) > 8:
        raise UnfitError
    if d.chance(0.5):
        return d.layer(class_of("ZeroPadding", rank), 1)
    pairs = ((0, 1), (1, 1), (1, 0))[:rank]
    return d.layer(class_of("ZeroPadding", rank), pairs if rank > 1 else pairs[0])


@on(*_GRIDS, weight=0.5)
def cropping(d, shape):
    rank = len(shape) - 1
    if min(size or 0 for size in shape[:-1]) < 5:
        raise UnfitError
    return d.layer(class_of("Cropping", rank), 1)


@on(*_GRIDS, weight=0.5, first=True)
def growing(d, shape):
    sizes, _ = grid(d, shape)
    if max(size or 9 for size in sizes) > 4:
        raise UnfitError
    options = {} if len(sizes) == 1 else {"data_format": d.format}
    if d.format == "channels_first" and len(sizes) == 1:
        raise UnfitError
    if len(sizes) == 2:
        options["interpolation"] = d.one("nearest", "bilinear")
    return d.layer(class_of("UpSampling", len(sizes)), 2, **options)


@on("picture")
def scaling(d, shape):
    if d.chance(0.5):
        if shape[-1] == 3 and d.chance(0.5):
            return d.layer(layers.Rescaling, [1.5, 0.5, 1.0], [0.1, 0.0, -0.1])
        return d.layer(layers.Rescaling, 1.0 / 0.8, offset=-0.1)
    method = d.one("bilinear", "nearest")
    return d.layer(layers.Resizing, 6, 6, interpolation=method)


_AUGMENTATIONS = (
    (layers.RandomFlip, ("horizontal",)),
    (layers.RandomRotation, (0.2,)),
    (layers.RandomTranslation, (0.2, 0.1)),
    (layers.RandomZoom, (0.2,)),
    (layers.RandomContrast, (0.3,)),
    (layers.RandomBrightness, (0.2,)),
    (layers.RandomErasing, ()),
)


@on("picture", weight=0.8)
def augmentation(d, shape):
    if None in shape:
        raise UnfitError
    kind, arguments = d.one(*_AUGMENTATIONS)
    if kind is layers.RandomErasing and shape[-1] not in (1, 3):
        raise UnfitError
    d.features.add("augmentation")
    return d.layer(kind, *arguments, seed=d.seed())


@on("picture", first=True)
def spatial_dropout(d, shape):
    return d.layer(layers.SpatialDropout2D, 0.3, data_format=d.format, seed=d.seed())


@on("picture", weight=1.5, first=True)
def block(d, shape):
    """A layer or subclassed model of one's own, with layers inside."""
    kind = d.one(own.Block, own.Stem)
    if kind is own.Stem:
        d.features |= {"subclassed inside", "config with layers"}
    d.features.add("layers in a layer")
    return d.layer(kind, d.width(), data_format=d.format)


@on("picture", weight=0.6)
def spectral(d, shape):
    inner = d.one(
        layers.Conv2D(4, 3, padding="same", name="inner"),
        layers.DepthwiseConv2D(3, name="inner", padding="same"),
    )
    return d.layer(layers.SpectralNormalization, inner)


@on("volume", weight=1.5)
def time_distributed(d, shape):
    kind, arguments = d.one(
        (layers.DepthwiseConv2D, (3,)),
        (layers.Conv2D, (4, 3)),
        (layers.SeparableConv2D, (4, 3)),
        (own.Block, (4,)),
    )
    options = {} if kind is own.Block else {"padding": "same", "activation": d.activation(0.3)}
    return d.layer(layers.TimeDistributed, kind(*arguments, name="inner", **options))


@on("volume", weight=1.5)
def conv_lstm(d, shape):
    if d.engine == "jax" and d.chance(0.8):  # a loop, which is compiled at each call
        raise UnfitError
    options = {"return_sequences": d.chance(0.4), "padding": "same"}
    return d.layer(layers.ConvLSTM2D, 4, 3, **options)


@on("picture", weight=1.2, plain=False)
def operations(d, shape):
    """Functions of `keras.ops` and operators, in a graph."""
    pick = d.number(0, 5)
    d.say(f"operation {pick} on a picture")
    if pick == 0:
        return lambda x: ops.tanh(x) * 0.7 + ops.flip(x, axis=1)
    if pick == 1:
        kernel = np.full((3, 3, shape[-1], 1), 1 / 5, "float32")
        return lambda x: ops.depthwise_conv(x, kernel, padding="same")
    if pick == 2:
        kernel = np.sin(np.arange(9.0 * shape[-1] * 4)).reshape(3, 3, shape[-1], 4) / 3
        return lambda x: ops.conv(x, kernel.astype("float32"), padding="same")
    if pick == 3:
        return lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 1], [0, 0]])[:, :-1, 1:]
    if pick == 4:
        return lambda x: ops.where(x > 0.2, x, 0.3 * ops.abs(x))
    return lambda x: x - ops.mean(x, axis=(1, 2), keepdims=True)
