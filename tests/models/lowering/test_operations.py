"""Operations of keras.ops in functional models, and operators with numbers and arrays."""

from __future__ import annotations

import keras
import numpy as np
from helpers.lowering import compare, compare_each
from keras import ops

SHAPE = (4, 5, 6)
POSITIVE = np.random.default_rng(0).uniform(0.2, 3, (2, *SHAPE)).astype("float32")
ROW = np.random.default_rng(1).uniform(0.5, 2, 6).astype("float32")
TABLE = np.random.default_rng(1).uniform(0.5, 2, (5, 6)).astype("float32")


def test_functions_of_one_value():
    names = "exp log sqrt rsqrt square absolute negative reciprocal sin cos floor ceil round sign"
    branches = {name: getattr(ops, name) for name in [*names.split(), "tanh", "erf", "copy"]}
    branches["clip"] = lambda x: ops.clip(x, 0.5, 2)
    branches["stopped"] = ops.stop_gradient
    branches["cast"] = lambda x: ops.cast(x, "float32")
    branches["negated"] = lambda x: -x
    branches["magnitude"] = lambda x: abs(x - 1.0)
    compare_each(SHAPE, branches, POSITIVE)


def test_numbers_and_arrays():
    branches = {
        "plus": lambda x: x + 2,
        "plus_first": lambda x: 2.5 + x,
        "minus": lambda x: x - 1.5,
        "minus_first": lambda x: 1 - x,
        "times": lambda x: x * 3,
        "over": lambda x: x / 3,
        "over_first": lambda x: 2 / x,
        "power": lambda x: x**2.5,
        "squared": lambda x: x**2,
        "root": lambda x: x**0.5,
        "power_first": lambda x: 2.0**x,
        "maximum": lambda x: ops.maximum(x, 1.0),
        "minimum": lambda x: ops.minimum(1.0, x),
        "row_plus": lambda x: x + ROW,
        "row_times": lambda x: ops.multiply(ROW, x),
        "row_over": lambda x: x / ROW,
        "row_minus": lambda x: ops.subtract(ROW, x),
        "row_under": lambda x: ops.divide(ROW, x),
        "row_power": lambda x: ops.power(x, ROW),
        "row_largest": lambda x: ops.maximum(x, ROW),
        "table": lambda x: x * TABLE,
        "columns": lambda x: x + TABLE[:, :1],
        "zero": lambda x: x / np.array([1, 2, 4, 0.5, 1, np.inf], "float32"),
        "more_axes": lambda x: x * np.ones((1, 1, 1, 1, 6), "float32"),
        "more_elements": lambda x: x[:, :1] + np.ones((4, 1, 1), "float32"),
        "tensor": lambda x: x + ops.convert_to_tensor(ROW),
    }
    compare_each(SHAPE, branches, POSITIVE)


def test_functions_of_two_values():
    a, b = keras.Input(SHAPE), keras.Input((1, 6))
    functions = (ops.add, ops.subtract, ops.multiply, ops.divide, ops.true_divide, ops.maximum)
    functions += (ops.minimum, ops.power)
    model = keras.Model([a, b], {f.__name__: f(a, b[:, None]) for f in functions})
    compare(model, POSITIVE, POSITIVE[:, 0, :1])


def test_reductions():
    branches = {
        name: lambda x, name=name: getattr(ops, name)(x, (1, -2), keepdims=True)
        for name in ("mean", "max", "min", "sum", "amax", "amin")
    }
    branches["last"] = lambda x: ops.mean(x, -1)
    branches["outer"] = lambda x: ops.sum(x, (1, 3))
    compare_each(SHAPE, branches, POSITIVE)
    x = keras.Input(batch_shape=(2, 3))
    compare(keras.Model(x, {"all": ops.mean(x, keepdims=True)}), POSITIVE[0, :2, 0, :3].copy())


def test_moves():
    branches = {
        "reshaped": lambda x: ops.reshape(x, (-1, 20, 6)),
        "transposed": lambda x: ops.transpose(x, (0, 3, 1, 2)),
        "swapped": lambda x: ops.swapaxes(x, 1, -1),
        "moved": lambda x: ops.moveaxis(x, (1, 3), (2, 1)),
        "moved_last": lambda x: ops.moveaxis(x, 1, -1),
        "joined": lambda x: ops.concatenate([x, x + 1.0], axis=2),
        "stacked": lambda x: ops.stack([x, x + 1.0], axis=1),
        "stacked_last": lambda x: ops.stack([x, x], axis=-1),
        "expanded": lambda x: ops.expand_dims(x, -1),
        "expanded_twice": lambda x: ops.expand_dims(x, (1, 3)),
        "squeezed": lambda x: ops.squeeze(x[:, :1, :, 2:3], axis=(1, 3)),
        "padded": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0))),
        "padded_with": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0)), constant_values=2.5),
        "one": lambda x: x[:, 1],
        "last_one": lambda x: x[:, :, -1],
        "range": lambda x: x[:, 1:-1, ::2],
        "ellipsis": lambda x: x[..., 1:],
        "new_axis": lambda x: x[:, None, 1, ..., 2],
        "halves": lambda x: ops.split(x, 2, axis=-1)[1],
        "parts": lambda x: ops.split(x, (1, 4), axis=-1)[2],
    }
    compare_each(SHAPE, branches, POSITIVE)


def test_shapes_that_are_all_known():
    x = keras.Input(batch_shape=(2, 3, 1))
    outputs = {
        "turned": ops.transpose(x),
        "mixed": ops.reshape(x, (3, 2)),
        "squeezed": ops.squeeze(x),
    }
    compare(keras.Model(x, outputs), POSITIVE[:, :3, 0, :1].copy())
