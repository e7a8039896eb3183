"""The functions of one and two arrays that steps have, in Keras' operations.

They mean what `sepconv.program.reference` says. They also take Keras' symbolic tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

__all__ = ["BINARY_FUNCTIONS", "UNARY_FUNCTIONS"]


def _relu(x: Any, a: float, b: float, c: float) -> Any:
    if c != 0:
        y = ops.where(x >= c, x, a * (x - c))
    elif a == 0:
        return ops.relu(x) if math.isinf(b) else ops.clip(x, 0.0, b)
    else:
        y = ops.leaky_relu(x, a)
    return y if math.isinf(b) else ops.minimum(y, b)


#: Every function of `sepconv.program.network.UNARY`, with its numbers a, b and c.
UNARY_FUNCTIONS: dict[str, Callable[[Any, float, float, float], Any]] = {
    "relu": _relu,
    "sigmoid": lambda x, a, b, c: ops.sigmoid(x),
    "hard_sigmoid": lambda x, a, b, c: ops.hard_sigmoid(x),
    "silu": lambda x, a, b, c: ops.silu(x),
    "hard_silu": lambda x, a, b, c: ops.hard_silu(x),
    "tanh": lambda x, a, b, c: ops.tanh(x),
    "gelu": lambda x, a, b, c: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x, a, b, c: ops.gelu(x, approximate=True),
    "elu": lambda x, a, b, c: ops.elu(x, a),
    "selu": lambda x, a, b, c: ops.selu(x),
    "celu": lambda x, a, b, c: ops.celu(x, a),
    "softplus": lambda x, a, b, c: ops.softplus(x),
    "softsign": lambda x, a, b, c: ops.softsign(x),
    "mish": lambda x, a, b, c: x * ops.tanh(ops.softplus(x)),
    "exp": lambda x, a, b, c: ops.exp(x),
    "log": lambda x, a, b, c: ops.log(x),
    "sqrt": lambda x, a, b, c: ops.sqrt(x),
    "rsqrt": lambda x, a, b, c: ops.rsqrt(x),
    "square": lambda x, a, b, c: ops.square(x),
    "abs": lambda x, a, b, c: ops.absolute(x),
    "negative": lambda x, a, b, c: ops.negative(x),
    "reciprocal": lambda x, a, b, c: ops.reciprocal(x),
    "erf": lambda x, a, b, c: ops.erf(x),
    "sin": lambda x, a, b, c: ops.sin(x),
    "cos": lambda x, a, b, c: ops.cos(x),
    "floor": lambda x, a, b, c: ops.floor(x),
    "ceil": lambda x, a, b, c: ops.ceil(x),
    "round": lambda x, a, b, c: ops.round(x),
    "sign": lambda x, a, b, c: ops.sign(x),
    "clip": lambda x, a, b, c: ops.clip(x, a, b),
    "linear": lambda x, a, b, c: x * a + b,
    "soft_shrink": lambda x, a, b, c: ops.soft_shrink(x, a),
    "hard_shrink": lambda x, a, b, c: ops.hard_shrink(x, a),
    "threshold": lambda x, a, b, c: ops.threshold(x, a, b),
    "squareplus": lambda x, a, b, c: (x + ops.sqrt(ops.square(x) + a)) * 0.5,
    "sparse_plus": lambda x, a, b, c: ops.sparse_plus(x),
}

#: Every function of `sepconv.program.network.BINARY`.
BINARY_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": ops.add,
    "subtract": ops.subtract,
    "multiply": ops.multiply,
    "divide": ops.divide,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "power": ops.power,
}
