"""Random convolutions, the same at every run, and how far a result may be from the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: How far results may be from float64's, relative in norm. Of the half types twice what rounding
#: costs at the most: what is between two steps may round to the number beside the reference's.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2.0**-7, "float16": 2.0**-10}


@dataclass(frozen=True)
class Configuration:
    """One convolution: everything but the numbers, and the seed that those come from."""

    batch: int
    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    multiplier: int
    filters: int | None  # None: depthwise alone
    strides: tuple[int, int]
    padding: Any
    dilation_rate: tuple[int, int]
    data_format: str
    dtype: str
    bias: bool
    activation: str | None
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that forward and gradients share."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
        }

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.channels * self.multiplier if self.filters is None else self.filters

    def arrays(self) -> dict[str, np.ndarray]:
        """x, depthwise_kernel and, where there are such, pointwise_kernel and bias."""
        random = np.random.default_rng(self.seed)
        shape = (self.batch, *self.size, self.channels)
        if self.data_format == "channels_first":
            shape = (self.batch, self.channels, *self.size)
        shapes = {
            "x": shape,
            "depthwise_kernel": (*self.kernel, self.channels, self.multiplier),
        }
        if self.filters is not None:
            shapes["pointwise_kernel"] = (1, 1, self.channels * self.multiplier, self.filters)
        if self.bias:
            shapes["bias"] = (self.outputs,)
        return {name: random.standard_normal(s).astype(self.dtype) for name, s in shapes.items()}

    def gradient(self, shape: Sequence[int]) -> np.ndarray:
        """A gradient for an output of this shape."""
        random = np.random.default_rng(self.seed + 1)
        return random.standard_normal(tuple(shape)).astype(self.dtype)

    def has_output(self) -> bool:
        """Whether the kernel fits the padded input."""
        if self.padding == "same":
            return True
        pads = ((0, 0), (0, 0)) if self.padding == "valid" else self.padding
        return all(
            n + sum(p) >= (k - 1) * d + 1
            for n, p, k, d in zip(self.size, pads, self.kernel, self.dilation_rate, strict=True)
        )


def configurations(
    count: int,
    seed: int,
    *,
    channels: Sequence[int] = (1, 2, 3, 5, 8, 16, 17, 33),
    filters: Sequence[int | None] = (1, 3, 8, 16, 17, 40),
    largest: int = 9,
    dtypes: Sequence[str] = ("float32", "float64"),
) -> Iterator[Configuration]:
    """Yields `count` convolutions with an output, of inputs at most `largest` high and wide."""
    random = np.random.default_rng(seed)

    def pair(low, high):
        return int(random.integers(low, high + 1)), int(random.integers(low, high + 1))

    def pick(values):
        return values[int(random.integers(len(values)))]

    def kernel():
        chance = random.random()
        if chance < 0.06:
            return pair(9, 21)  # much of it beside an image of `largest`
        return pair(1, 7) if chance < 0.4 else pair(1, 4)

    made = 0
    while made < count:
        kind = pick(("valid", "same", "same", "explicit"))
        configuration = Configuration(
            batch=pick((0, 1, 1, 2, 3)),
            size=pair(1, largest),
            channels=pick(channels),
            kernel=kernel(),
            multiplier=pick((1, 1, 2, 3)),
            filters=pick(filters) if random.random() < 0.5 else None,
            strides=pair(1, 3),
            padding=(pair(0, 3), pair(0, 3)) if kind == "explicit" else kind,
            dilation_rate=pair(1, 3) if random.random() < 0.5 else (1, 1),
            data_format=pick(("channels_last", "channels_last", "channels_first")),
            dtype=pick(dtypes),
            bias=random.random() < 0.5,
            activation=pick((None, None, "relu", "relu6")),
            seed=int(random.integers(2**31)),
        )
        if configuration.has_output():
            made += 1
            yield configuration


def normal(seed: int, *shape: int) -> np.ndarray:
    """A float64 array of normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def assert_near(actual: Any, expected: Any, dtype: str, context: Any = "") -> None:
    """Raises where `actual` is further from `expected` than TOLERANCE[dtype], relative in norm.

    A sum that happens to cancel has a tiny norm for the rounding of its terms, so a norm is taken
    to be one at least.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{actual.shape} != {expected.shape}: {context}"
    distance = np.linalg.norm(actual - expected)
    bound = TOLERANCE[dtype] * max(np.linalg.norm(expected), 1.0)
    assert distance <= bound, f"{distance:.3g} > {bound:.3g}: {context}"
