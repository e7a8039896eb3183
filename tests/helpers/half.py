"""1x1 convolutions and batch normalization of the half types, drawn, on each engine.

What `numerics.md` promises: a sum of n products is within ``e + u |y|`` of the exact one, and
engines give NumPy's bits. The suite draws a few, ``tests/fuzz/half.py`` as many as there is time
for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import sepconv
from helpers.configurations import assert_near
from helpers.hostile_engines import HALF

#: What rounding to a half type costs at the most, relative.
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
_EPSILON = 1e-3  # of batch normalization
#: The least normal number of float32: denormal ones may count as zeros.
_LEAST = 2.0**-126


class Engine(NamedTuple):
    """An engine's functions of arrays, given and returned as NumPy's.

    Both return what a function gives, and the gradients for its operands where the first of
    what it gives has the gradient dy.
    """

    product: Callable[[Sequence[np.ndarray], np.ndarray, str], list[np.ndarray]]
    #: None: it has none.
    normalize: Callable[[Sequence[np.ndarray], np.ndarray, int], list[np.ndarray]] | None


# --- the engines ---------------------------------------------------------------------------------


def jax_engine() -> Engine:
    """`jax.vjp` of what layers call."""
    import jax

    from sepconv.engines.jax.batch_norm import batch_norm
    from sepconv.engines.jax.pointwise import pointwise

    def derived(function: Any, operands: Any, dy: Any) -> list[np.ndarray]:
        y, pull = jax.vjp(function, *map(jax.numpy.asarray, operands))
        first, *rest = y if isinstance(y, tuple) else (y,)
        cotangents = jax.numpy.asarray(dy), *map(jax.numpy.zeros_like, rest)
        pulled = pull(cotangents if isinstance(y, tuple) else cotangents[0])
        return [np.asarray(a) for a in (first, *rest, *pulled)]

    return Engine(
        lambda a, dy, form: derived(lambda *o: pointwise(*o, data_format=form), a, dy),
        lambda a, dy, axis: derived(lambda *o: batch_norm(*o, axis=axis, epsilon=_EPSILON), a, dy),
    )


def torch_engine() -> Engine:
    """Autograd of what layers call."""
    import torch

    from helpers.torch_arrays import array_of, tensor_of
    from sepconv.engines.torch.batch_norm import batch_norm
    from sepconv.engines.torch.pointwise import pointwise

    def derived(function: Any, operands: Any, dy: Any) -> list[np.ndarray]:
        leaves = [tensor_of(a).requires_grad_() for a in operands]
        y = function(*leaves)
        results = y if isinstance(y, tuple) else (y,)
        grads = torch.autograd.grad(results[0], leaves, tensor_of(dy))
        return [array_of(t) for t in (*results, *grads)]

    return Engine(
        lambda a, dy, form: derived(lambda *o: pointwise(*o, data_format=form), a, dy),
        lambda a, dy, axis: derived(lambda *o: batch_norm(*o, axis=axis, epsilon=_EPSILON), a, dy),
    )


def numpy_engine() -> Engine:
    """Sepconv's own functions, without batch normalization."""

    def product(operands: Any, dy: Any, form: str) -> list[np.ndarray]:
        y = sepconv.pointwise_conv2d(*operands, data_format=form)
        grads = sepconv.pointwise_conv2d_grad(*operands, dy, data_format=form)
        return [y, grads.x, grads.pointwise_kernel]

    return Engine(product, None)


def tensorflow_engine() -> Engine:
    """GradientTape of what layers call, whose products are TensorFlow's own."""
    import tensorflow as tf

    from sepconv.engines.tensorflow.batch_norm import batch_norm

    def normalize(operands: Any, dy: Any, axis: int) -> list[np.ndarray]:
        given = [tf.convert_to_tensor(a) for a in operands]
        with tf.GradientTape() as tape:
            tape.watch(given)
            results = batch_norm(*given, axis=axis, epsilon=_EPSILON)
        grads = tape.gradient(results[0], given, output_gradients=tf.convert_to_tensor(dy))
        return [t.numpy() for t in (*results, *grads)]

    return Engine(numpy_engine().product, normalize)


MAKERS = {
    "numpy": numpy_engine,
    "jax": jax_engine,
    "torch": torch_engine,
    "tensorflow": tensorflow_engine,
}

# --- what is drawn -------------------------------------------------------------------------------


def check(engine: Engine, seed: int, dtypes: Sequence[str] = HALF) -> None:
    """Holds a drawn product and a drawn batch normalization; always the same ones for a seed.

    Raises:
        AssertionError: a number is further from the exact one than it may be; it says of what.
    """
    _check_product(engine, seed, dtypes)
    if engine.normalize is not None:
        _check_norm(engine.normalize, seed, dtypes)


def _check_product(engine: Engine, seed: int, dtypes: Sequence[str]) -> None:
    dice, numbers = random.Random(seed), np.random.default_rng(seed)
    dtype = dice.choice(dtypes)
    form = dice.choice(("channels_last", "channels_last", "channels_first"))
    batch, height, width = dice.randint(1, 3), dice.randint(1, 9), dice.randint(1, 9)
    channels, filters = (dice.choice((1, 2, 3, 7, 8, 16, 31, 33, 64, 70)) for _ in range(2))
    if dice.random() < 0.1:
        height, channels = 41, 300  # more than a block of the product
    first = form == "channels_first"
    shapes = [
        (batch, c, height, width) if first else (batch, height, width, c)
        for c in (channels, filters)
    ]
    scale = dice.choice((1, 1, 1e-4, 30))
    x, dy = ((scale * numbers.standard_normal(s)).astype(dtype) for s in shapes)
    kernel = numbers.standard_normal((1, 1, channels, filters)).astype(dtype)
    said = f"seed {seed}: product, {dtype}, {form}, {shapes}, scale {scale}"
    found = engine.product((x, kernel), dy, form)
    rows = [np.moveaxis(a, 1, -1) if first else a for a in (x, dy)]
    wide = [a.astype("float64").reshape(-1, a.shape[-1]) for a in rows]
    matrix = kernel[0, 0].astype("float64")
    pairs = (wide[0], matrix), (wide[1], matrix.T), (wide[0].T, wide[1])
    for name, y, (a, b) in zip(("y", "dx", "dkernel"), found, pairs, strict=True):
        assert y.dtype == dtype, (said, name)
        if y.ndim == 4 and name != "dkernel" and first:
            y = np.moveaxis(y, 1, -1)
        y = y.astype("float64").reshape(-1, y.shape[-1])
        _assert_bound(y, a @ b, np.abs(a) @ np.abs(b), a.shape[1], dtype, f"{said}: {name}")
    own = numpy_engine().product((x, kernel), dy, form)
    for name, a, b in zip(("y", "dx", "dkernel"), found, own, strict=True):
        assert a.tobytes() == b.tobytes(), f"{said}: {name} has not NumPy's bits"


def _assert_bound(
    y: np.ndarray, exact: np.ndarray, sizes: np.ndarray, terms: int, dtype: str, said: str
) -> None:
    """The bound of numerics.md; float16 numbers below the least normal one have fewer bits."""
    own = 2.0**-23 * (8 + 4 * np.sqrt(terms)) * sizes
    least = 2.0**-25 if dtype == "float16" else _LEAST * max(terms, 1)
    bound = own + UNIT[dtype] * (np.abs(exact) + own) + least
    beyond = np.abs(exact) > 65504 if dtype == "float16" else np.zeros(exact.shape, bool)
    error = np.abs(y - exact)
    assert (error[~beyond] <= bound[~beyond]).all(), f"{said}: {np.max(error - bound)} beyond"


def normalized(operands: Any, dy: np.ndarray, axis: int) -> list[np.ndarray]:
    """Batch normalization and its gradients in float64, as the engines give them."""
    x, gamma, beta, dy = (a.astype("float64") for a in (*operands, dy))
    others = tuple(i for i in range(x.ndim) if i != axis)

    def along(vector: np.ndarray) -> np.ndarray:
        return vector.reshape([-1 if i == axis else 1 for i in range(x.ndim)])

    mean, variance = x.mean(others), x.var(others)
    inverse = 1 / np.sqrt(variance + _EPSILON)
    normal = (x - along(mean)) * along(inverse)
    dbeta, dgamma = dy.sum(others), (dy * normal).sum(others)
    count = max(x.size // x.shape[axis], 1)
    dx = along(gamma * inverse) * (dy - along(dbeta / count) - normal * along(dgamma / count))
    return [normal * along(gamma) + along(beta), mean, variance, dx, dgamma, dbeta]


def _check_norm(normalize: Any, seed: int, dtypes: Sequence[str]) -> None:
    dice, numbers = random.Random(seed + 1), np.random.default_rng(seed)
    dtype = dice.choice(dtypes)
    shape = [dice.randint(1, 9) for _ in range(dice.randint(1, 5))]
    axis = dice.randrange(len(shape))
    shape[axis] = dice.choice((1, 2, 3, 8, 17, 40))
    if dice.random() < 0.1:
        shape[0] = 300
    # The mean of a channel is float32, which is near beside deviations that are not much smaller.
    offset, scale = dice.choice(((0, 1), (0, 1e-2), (0, 20), (3, 1), (3, 0), (50, 20)))
    x = (offset + scale * numbers.standard_normal(shape)).astype(dtype)
    gamma, beta = (numbers.standard_normal(shape[axis]).astype("float32") for _ in range(2))
    dy = numbers.standard_normal(shape).astype(dtype)
    said = f"seed {seed}: normalization, {dtype}, {shape}, axis {axis}, {offset} ± {scale}"
    found = normalize((x, gamma, beta), dy, axis)
    exact = normalized((x, gamma, beta), dy, axis)
    names = "y", "mean", "variance", "dx", "dgamma", "dbeta"
    for name, a, b in zip(names, found, exact, strict=True):
        assert np.isfinite(a.astype("float64")).all(), (said, name)
        assert_near(a, b, dtype if name in ("y", "dx") else "float32", f"{said}: {name}")
