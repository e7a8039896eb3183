"""Training steps of networks of flax, for `jax_networks.py` to time.

MobileNetV1 is written twice, with flax's layers and with our functions in the place of each
depthwise convolution, 1x1 convolution and normalization: what a patch of JAX can reach at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax_programs import Program

import sepconv.jax
from sepconv.engines.jax import engine

__all__ = ["conformer", "convnext", "eegnet", "mobilenet"]

_CLASSES = 10


# --- MobileNetV1 ----------------------------------------------------------------------------------


class _Depthwise(nnx.Conv):
    """Flax's layer with our function; without bias."""

    def __call__(self, x: Any) -> Any:
        kernel = self.kernel[...]
        kernel = kernel.reshape(*kernel.shape[:2], -1, 1)
        return sepconv.jax.depthwise_conv2d(x, kernel, strides=self.strides, padding="same")


class _Pointwise(nnx.Conv):
    """Flax's layer with our function; without bias."""

    def __call__(self, x: Any) -> Any:
        return engine.pointwise(x, self.kernel[...], data_format="channels_last")


class _BatchNorm(nnx.BatchNorm):
    """Flax's layer with our function; in training."""

    def __call__(self, x: Any) -> Any:
        scale, shift = self.scale[...], self.bias[...]
        y, *moments = engine.batch_norm(x, scale, shift, axis=3, epsilon=self.epsilon)
        for moving, found in zip((self.mean, self.var), moments, strict=True):
            moving[...] = self.momentum * moving[...] + (1 - self.momentum) * found
        return y


class _Separable(nnx.Module):
    """A depthwise and a 1x1 convolution, each with batch normalization and relu6."""

    def __init__(
        self, channels: int, filters: int, stride: int, called: bool, rngs: nnx.Rngs
    ) -> None:
        depthwise, pointwise, norm = (
            (_Depthwise, _Pointwise, _BatchNorm) if called else (nnx.Conv, nnx.Conv, nnx.BatchNorm)
        )
        self.depthwise = depthwise(
            channels,
            channels,
            (3, 3),
            strides=stride,
            feature_group_count=channels,
            use_bias=False,
            rngs=rngs,
        )
        self.first = norm(channels, rngs=rngs)
        self.pointwise = pointwise(channels, filters, (1, 1), use_bias=False, rngs=rngs)
        self.second = norm(filters, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu6(self.first(self.depthwise(x)))
        return nnx.relu6(self.second(self.pointwise(x)))


class _MobileNet(nnx.Module):
    """MobileNetV1. Source: Howard et al., 2017, https://arxiv.org/abs/1704.04861."""

    def __init__(
        self, width: int, blocks: Sequence[tuple[int, int]], called: bool, rngs: nnx.Rngs
    ) -> None:
        self.stem = nnx.Conv(3, width, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = (_BatchNorm if called else nnx.BatchNorm)(width, rngs=rngs)
        layers, channels = [], width
        for factor, stride in blocks:
            layers.append(_Separable(channels, factor * width, stride, called, rngs))
            channels = factor * width
        self.blocks = nnx.List(layers)
        self.head = nnx.Linear(channels, _CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu6(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


# --- ConvNeXt -------------------------------------------------------------------------------------


class _ConvNeXt(nnx.Module):
    """Blocks of ConvNeXt. Source: Liu et al., 2022, https://arxiv.org/abs/2201.03545."""

    def __init__(self, channels: int, blocks: int, rngs: nnx.Rngs) -> None:
        def block() -> nnx.Sequential:
            return nnx.Sequential(
                nnx.Conv(channels, channels, (7, 7), feature_group_count=channels, rngs=rngs),
                nnx.LayerNorm(channels, rngs=rngs),
                nnx.Conv(channels, 4 * channels, (1, 1), rngs=rngs),
                nnx.gelu,
                nnx.Conv(4 * channels, channels, (1, 1), rngs=rngs),
            )

        self.stem = nnx.Conv(3, channels, (4, 4), strides=4, rngs=rngs)
        self.blocks = nnx.List([block() for _ in range(blocks)])
        self.head = nnx.Linear(channels, _CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((1, 2)))


# --- EEGNet ---------------------------------------------------------------------------------------


class _EEGNet(nnx.Module):
    """EEGNet-8,2 without dropout. Source: Lawhern et al., 2018, https://arxiv.org/abs/1611.08024."""

    def __init__(self, electrodes: int, samples: int, filters: int, rngs: nnx.Rngs) -> None:
        middle = 2 * filters

        def conv(inputs: int, outputs: int, size: tuple[int, int], **options: Any) -> nnx.Conv:
            return nnx.Conv(inputs, outputs, size, use_bias=False, rngs=rngs, **options)

        self.along_time = conv(1, filters, (1, 64))
        self.first = nnx.BatchNorm(filters, rngs=rngs)
        self.over_electrodes = conv(
            filters, middle, (electrodes, 1), padding="VALID", feature_group_count=filters
        )
        self.second = nnx.BatchNorm(middle, rngs=rngs)
        self.depthwise = conv(middle, middle, (1, 16), feature_group_count=middle)
        self.pointwise = conv(middle, middle, (1, 1))
        self.third = nnx.BatchNorm(middle, rngs=rngs)
        self.head = nnx.Linear(samples // 32 * middle, _CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.second(self.over_electrodes(self.first(self.along_time(x))))
        x = nnx.avg_pool(nnx.elu(x), (1, 4), (1, 4))
        x = nnx.elu(self.third(self.pointwise(self.depthwise(x))))
        x = nnx.avg_pool(x, (1, 8), (1, 8))
        return self.head(x.reshape(len(x), -1))


# --- Conformer ------------------------------------------------------------------------------------


class _ConformerModule(nnx.Module):
    """The convolution module of a Conformer block, with its residual."""

    def __init__(self, channels: int, size: int, rngs: nnx.Rngs) -> None:
        self.before = nnx.LayerNorm(channels, rngs=rngs)
        self.first = nnx.Conv(channels, 2 * channels, (1,), rngs=rngs)
        self.depthwise = nnx.Conv(
            channels, channels, (size,), feature_group_count=channels, rngs=rngs
        )
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        self.second = nnx.Conv(channels, channels, (1,), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        y = nnx.glu(self.first(self.before(x)))
        return x + self.second(nnx.swish(self.norm(self.depthwise(y))))


class _Conformer(nnx.Module):
    """Convolution modules of a Conformer. Source: Gulati et al., 2020, arXiv:2005.08100."""

    def __init__(self, channels: int, size: int, blocks: int, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([_ConformerModule(channels, size, rngs) for _ in range(blocks)])
        self.head = nnx.Linear(channels, _CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


# --- Training steps -------------------------------------------------------------------------------


def _step(graph: Any) -> Callable[..., Any]:
    """A step of SGD: from the state, inputs and classes to state and loss."""

    def step(state: Any, x: Any, y: Any) -> Any:
        model = nnx.merge(graph, state)

        def loss(model: Any) -> Any:
            scores = jax.nn.log_softmax(model(x))
            return -jnp.take_along_axis(scores, y[:, None], 1).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        parameters = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradients))
        return nnx.state(model), value

    return step


def _training_step(
    shape: Sequence[int], model: nnx.Module, called: nnx.Module | None = None
) -> Program:
    """A step on random inputs of a shape, and that of the same network with our functions."""
    graph, state = nnx.split(model)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), "float32")
    y = jnp.arange(shape[0]) % _CLASSES
    ours = None if called is None else _step(nnx.graphdef(called))
    return Program(_step(graph), (state, x, y), ours)


_BLOCKS = [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1)]


def mobilenet(
    batch: int = 8, size: int = 128, width: int = 32, blocks: Sequence[tuple[int, int]] = _BLOCKS
) -> Program:
    """MobileNetV1, by default whole, in flax's layers and in our functions."""
    stock, called = (_MobileNet(width, blocks, ours, nnx.Rngs(0)) for ours in (False, True))
    return _training_step((batch, size, size, 3), stock, called)


def convnext(batch: int = 8, size: int = 128, channels: int = 96, blocks: int = 6) -> Program:
    """A stack of ConvNeXt's blocks."""
    return _training_step((batch, size, size, 3), _ConvNeXt(channels, blocks, nnx.Rngs(0)))


def eegnet(batch: int = 32, electrodes: int = 64, samples: int = 128, filters: int = 8) -> Program:
    """EEGNet-8,2, of a second at 128 Hz."""
    model = _EEGNet(electrodes, samples, filters, nnx.Rngs(0))
    return _training_step((batch, electrodes, samples, 1), model)


def conformer(
    batch: int = 8, steps: int = 256, channels: int = 144, size: int = 31, blocks: int = 4
) -> Program:
    """Convolution modules of a small Conformer: depthwise convolutions in one dimension."""
    return _training_step((batch, steps, channels), _Conformer(channels, size, blocks, nnx.Rngs(0)))
