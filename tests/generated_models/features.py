"""The menu of what any floats may go through: normalization, dense layers, activations."""

from __future__ import annotations

import numpy as np
from keras import layers, ops

from generated_models import own
from generated_models.draw import UnfitError
from generated_models.menu import on


def _channels(d, shape):
    return shape[0] if d.format == "channels_first" else shape[-1]


def _axis(d):
    return 1 if d.format == "channels_first" else -1


@on("floats", weight=2.5, first=True)
def batch_normalization(d, shape):
    options = {"axis": _axis(d), "epsilon": d.one(1e-3, 1e-2), "momentum": d.one(0.99, 0.8)}
    if d.format == "channels_last" and len(shape) > 1 and d.chance(0.1) and shape[0]:
        options["axis"] = 1
    options |= {"center": d.chance(0.85), "scale": d.chance(0.85)}
    return d.layer(layers.BatchNormalization, half=True, **options)


@on("floats")
def layer_normalization(d, shape):
    kind = d.one(layers.LayerNormalization, layers.RMSNormalization)
    if shape[-1] < 3:
        raise UnfitError
    return d.layer(kind, axis=-1, half=True)


@on("floats", first=True, weight=0.8)
def group_normalization(d, shape):
    channels = _channels(d, shape)
    if channels % 2 or channels < 4:
        raise UnfitError
    return d.layer(layers.GroupNormalization, groups=d.one(2, 1), axis=_axis(d))


@on("floats", first=True, weight=0.5)
def unit_normalization(d, shape):
    if _channels(d, shape) < 3:
        raise UnfitError
    return d.layer(layers.UnitNormalization, axis=_axis(d))


@on("floats", weight=1.5)
def normalization(d, shape):
    channels = shape[-1]
    if d.chance(0.4):
        mean, variance = d.array(channels), np.exp(0.3 * d.array(channels))
        options = {"mean": mean.tolist(), "variance": variance.tolist(), "invert": d.chance(0.2)}
        return d.layer(layers.Normalization, **options)
    layer = d.layer(layers.Normalization, invert=d.chance(0.1))
    sizes = [8, *(size or 8 for size in shape)]
    data = 0.5 + (1 + np.arange(channels) / channels) * d.array(*sizes)
    d.say(f"{layer.name} is adapted")
    d.later.append(lambda: layer.adapt(data.astype("float32")))
    return layer


@on("floats", weight=2)
def dense(d, shape):
    options = {"activation": d.activation(0.5), "use_bias": d.chance(0.8)}
    options.update(d.regularized("kernel", "bias"))
    lora = d.chance(0.2)
    if lora and d.chance(0.5):
        options["lora_rank"] = 2
        options.pop("kernel_constraint", None)
    layer = d.layer(layers.Dense, d.width(), half=not lora, **options)
    _adapt(d, layer, lora and "lora_rank" not in options)
    return layer


def _adapt(d, layer, lora):
    """LoRA and int8, once the layer is built."""
    if lora:
        d.say(f"{layer.name}.enable_lora(2)")
        d.later.append(lambda: layer.enable_lora(2))
        d.features.add("lora")
    elif d.chance(0.1):
        mode = d.one("int8", "int8", "int4")
        d.say(f"{layer.name}.quantize({mode})")
        d.features.add("int8")
        d.last.append(lambda: layer.quantize(mode))


@on("series", weight=1.2)
def einsum_dense(d, shape):
    if None in shape:
        raise UnfitError
    options = {"activation": d.activation(0.4), "bias_axes": "c"}
    lora = d.chance(0.25)
    if lora:
        options["lora_rank"] = 2
    layer = d.layer(layers.EinsumDense, "abd,dc->abc", (None, d.width()), **options)
    _adapt(d, layer, False)
    return layer


@on("vector", "series", weight=0.5)
def spectral_dense(d, shape):
    return d.layer(layers.SpectralNormalization, layers.Dense(d.width(), name="inner"))


@on("floats", weight=1.5, first=True)
def activation(d, shape):
    pick = d.number(0, 7)
    if pick == 0:
        chosen = d.activation(1)
        return d.layer(layers.Activation, chosen)
    if pick == 1 and None not in shape:
        shared = None
        if len(shape) == 3:
            shared = d.one(None, (2, 3) if d.format == "channels_first" else (1, 2))
        return d.layer(layers.PReLU, shared_axes=shared)
    if pick == 2:
        return d.layer(layers.LeakyReLU, negative_slope=0.3)
    if pick == 3:
        return d.layer(layers.ELU, alpha=0.7)
    if pick == 4:
        return d.layer(layers.ReLU, d.one(None, 6.0), negative_slope=d.one(0.0, 0.1))
    if pick == 5 and _channels(d, shape) > 2:
        return d.layer(layers.Softmax, axis=_axis(d))
    return d.layer(layers.Activation, d.one("relu", "silu", "tanh", "hard_silu", "relu6"))


@on("floats", weight=1.5, first=True)
def regularization(d, shape):
    kind, arguments = d.one(
        (layers.Dropout, (0.3,)),
        (layers.GaussianNoise, (0.2,)),
        (layers.GaussianDropout, (0.2,)),
        (layers.AlphaDropout, (0.1,)),
        (layers.ActivityRegularization, (1e-3,)),
        (layers.Identity, ()),
    )
    options = {}
    if kind not in (layers.ActivityRegularization, layers.Identity):
        options["seed"] = d.one(None, d.seed())
    return d.layer(kind, *arguments, **options)


@on("floats", weight=1)
def functions(d, shape):
    pick = d.number(0, 2)
    if pick == 0:
        return d.layer(layers.Lambda, own.shifted)
    if pick == 1:
        d.features.add("lambda")
        return d.layer(layers.Lambda, lambda x, factor: x * factor + 0.1, arguments={"factor": 0.8})
    factor = 0.6  # of the closure
    d.features.add("lambda")
    return d.layer(layers.Lambda, lambda x: x * factor)


@on("floats", weight=0.5, plain=False)
def operator(d, shape):
    d.say("an operator between a tensor and an array")
    array = 1 + 0.3 * d.array(1, *(size or 1 for size in shape))
    return lambda x: x * array - 0.2


@on("floats", weight=1.6, first=True)
def own_layer(d, shape):
    pick = d.number(0, 7)
    if pick == 0 and d.format == "channels_last" and shape[-1]:
        return d.layer(own.Scale)
    if pick == 1:
        return d.layer(own.Power, d.one(0.2, 0.4))
    if pick == 2:
        layer, gain = d.layer(own.Tuned), d.one(1.5, 0.7)
        d.say(f"{layer.name}.gain is set")
        layer.gain = gain
        d.features.add("attribute")
        return layer
    if pick == 3 and d.format == "channels_last":
        layer = d.layer(own.Table)
        layer.table = d.array(shape[-1])
        d.features.add("own state")
        return layer
    if pick == 4:
        layer = d.layer(own.Lexicon)
        layer.numbers = [1.5, 1.5 + d.random.random()]
        d.features.add("own state")
        return layer
    if pick == 5:
        return d.layer(own.Counting)
    if pick == 6 and d.chance(0.3):
        d.features.add("no config")
        return d.layer(own.Bare, d.array(1))
    raise UnfitError


@on("vector", weight=0.8)
def to_series(d, shape):
    if shape[0] % 2:
        return d.layer(layers.RepeatVector, 4)
    return d.layer(layers.Reshape, (-1, shape[0] // 2))


@on("vector", weight=0.4)
def discretization(d, shape):
    mode = d.one("multi_hot", "one_hot", "int")
    if d.chance(0.5):
        boundaries = [-0.8, -0.2, 0.3, 0.9]
        return d.layer(layers.Discretization, bin_boundaries=boundaries, output_mode=mode)
    layer = d.layer(layers.Discretization, num_bins=5, output_mode=mode)
    layer.adapt(d.array(32, *shape))
    d.say(f"{layer.name} is adapted")
    return layer


@on("vector", "picture", weight=0.7, plain=False)
def vector_operations(d, shape):
    pick = d.number(0, 2)
    d.say(f"operation {pick}")
    if pick == 0:
        return lambda x: ops.concatenate([x, ops.square(x) * 0.5], axis=-1)
    if pick == 1:
        return lambda x: ops.softplus(-x)
    return lambda x: ops.add(x, ops.flip(x, axis=-1)) / 1.5
