"""Random calls of `lax.conv_general_dilated`: many that are depthwise or 1x1, and all others."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import sepconv

__all__ = ["TOLERANCE", "Call", "agree", "check", "draw"]

#: How far ours may be from stock's, relative to the largest. Both round to a half type, and stock
#: may round sums in it, too.
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
_TOGETHER = 20  # calls in one program, since most of the time goes into compiling

_IMAGES = {1: ("NWC", "NCW", "WNC"), 2: ("NHWC", "NCHW", "NWHC", "HWNC")}
_KERNELS = {1: ("WIO", "OIW", "IOW"), 2: ("HWIO", "OIHW", "OHWI", "WHIO", "IOHW")}


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """The shapes of lhs and rhs, and the options."""

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    options: dict[str, Any]

    def __call__(self, lhs: Any, rhs: Any) -> Any:
        """The result."""
        return lax.conv_general_dilated(lhs, rhs, **self.options)

    def derived(self, lhs: Any, rhs: Any, dy: Any) -> list[Any]:
        """The result, and the gradients for that of the result."""
        y, pull = jax.vjp(self, lhs, rhs)
        return [y, *pull(dy)]

    def arrays(self, seed: int, dtype: Any = "float32") -> list[Any]:
        """lhs, rhs and a gradient of the result."""
        rng = np.random.default_rng(seed)
        shape = jax.eval_shape(self, *map(_abstract, (self.lhs, self.rhs))).shape
        drawn = [rng.standard_normal(s) for s in (self.lhs, self.rhs, shape)]
        return [jnp.asarray(a, dtype) for a in drawn]


def agree(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Holds arrays against others: shapes, dtypes, and values relative to the largest."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(v, "float64") for v in (a, b))
        assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=0)


def check(first: int, count: int, dtype: str = "float32") -> Any:
    """Holds so many random calls and their gradients against stock's; returns the patch's record.

    Raises:
        AssertionError: one differs; it names the call.
    """
    calls = [draw(first + i) for i in range(count)]
    arrays = [call.arrays(first + i, dtype) for i, call in enumerate(calls)]

    def run() -> list[Any]:
        results: list[Any] = []
        for start in range(0, count, _TOGETHER):
            some = calls[start : start + _TOGETHER]
            program = jax.jit(
                lambda operands, some=some: [
                    call.derived(*a) for call, a in zip(some, operands, strict=True)
                ]
            )
            results += program(arrays[start : start + _TOGETHER])
        return results

    stock = run()
    with sepconv.patch_jax() as record:
        ours = run()
    for seed, (found, expected) in enumerate(zip(ours, stock, strict=True), first):
        try:
            agree(found, expected, TOLERANCE[dtype])
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {draw(seed)}") from error
    return record


def draw(seed: int) -> Call:
    """A call, always the same for a seed; half of them have two axes of space."""
    dice = random.Random(seed)
    while True:
        call = _draw(dice)
        try:
            y = jax.eval_shape(call, *map(_abstract, (call.lhs, call.rhs)))
        except (ValueError, TypeError):
            continue
        if 0 < y.size < 20_000:
            return call


def _abstract(shape: tuple[int, ...]) -> Any:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _draw(dice: random.Random) -> Call:
    rank = dice.choice((1, 2, 2, 2))
    kind = dice.choice(("depthwise", "depthwise", "depthwise", "depthwise", "1x1", "1x1", "other"))
    images = dice.choice(_IMAGES[rank][:2] * 3 + _IMAGES[rank])
    result = images if dice.random() < 0.9 else dice.choice(_IMAGES[rank])
    kernels = dice.choice(_KERNELS[rank])
    groups = batch_groups = 1
    channels, filters = dice.randint(1, 12), dice.randint(1, 12)
    batch = dice.randint(1, 3)
    sizes = [dice.randint(1, 9) for _ in range(rank)]
    taps = [dice.randint(1, 5) for _ in range(rank)]
    inputs = channels
    if kind == "depthwise":
        groups, inputs = channels, 1
        filters = channels * dice.choice((1, 1, 1, 2, 3))
    elif kind == "1x1":
        channels = inputs = dice.choice((3, 8, 9, 9, 16))
        filters = dice.choice((5, 8, 8, 12))
        taps = [1] * rank
    elif dice.random() < 0.3:
        groups, inputs, filters, channels = 2, 2, 4, 4
    elif dice.random() < 0.4:
        batch_groups = dice.choice((2, 3))
        batch *= batch_groups * dice.choice((0, 1)) or 1
        batch, filters = max(batch, batch_groups), batch_groups * dice.randint(1, 3)
    dilations = [dice.choice((1, 1, 2, 3)) for _ in range(rank)]

    def pads(axis: int) -> tuple[int, int]:
        """Padding with which JAX's own convolution and gradients are right.

        Where fewer than no zeros go before the image and some after it, it may read outside of its
        array; in gradients that comes of padding beyond the kernel's reach.
        """
        most = (taps[axis] - 1) * dilations[axis]
        before, after = (min(dice.choice((-1, 0, 0, 1, 2, 3)), most) for _ in range(2))
        return before, 0 if before < 0 < after else after

    options = {
        "window_strides": [dice.choice((1, 1, 2, 3)) for _ in range(rank)],
        "padding": dice.choice(("SAME", "VALID", *[[pads(i) for i in range(rank)]] * 3)),
        "lhs_dilation": [dice.choice((1, 1, 1, 2)) for _ in range(rank)]
        if dice.random() < 0.3
        else [1] * rank,
        "rhs_dilation": dilations,
        "dimension_numbers": (images, kernels, result),
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
    }
    lhs = _shape(images, {"N": batch, "C": channels}, sizes)
    rhs = _shape(kernels, {"I": inputs, "O": filters}, taps)
    return Call(lhs, rhs, options)


def _shape(letters: str, sizes: dict[str, int], space: list[int]) -> tuple[int, ...]:
    """The shape by its letters; the axes of space in the order H, W."""
    names = "W" if len(space) == 1 else "HW"
    known = {**sizes, **dict(zip(names, space, strict=True))}
    return tuple(known[letter] for letter in letters)
