"""JAX's operations by NumPy: those that networks compute their predictions with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sepconv import fused
from sepconv.pointwise import pointwise_conv2d

__all__ = ["NUMPY_DTYPES", "rule"]

#: The dtypes of operands and results. NumPy rounds half types at other places than XLA does.
NUMPY_DTYPES = tuple(np.dtype(code) for code in "?bhilqBHILQfd")

Params = Mapping[str, Any]


def rule(name: str, params: Params, operands: Sequence[Any]) -> Callable[..., Any] | None:
    """What computes an operation, given its operands as arrays; None where nothing here does.

    Args:
        name: of JAX's primitive.
        params: of the operation.
        operands: things that have the operands' `aval`.

    Example:
        >>> rule("add", {}, [])(1, 2)
        np.int64(3)
        >>> rule("cholesky", {}, []) is None
        True
    """
    if name in _FLOATING and operands[0].aval.dtype.kind != "f":
        return None
    if name in _ELEMENTWISE:
        return _ELEMENTWISE[name]
    if name not in _RULES or (name in _LIMITS and not _LIMITS[name](params, operands)):
        return None
    return functools.partial(_RULES[name], params)


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _rsqrt(x: Any) -> Any:
    return 1 / np.sqrt(x)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "and": np.bitwise_and,
    "atan2": np.arctan2,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "copy": np.asarray,
    "copy_p": np.asarray,
    "cos": np.cos,
    "cosh": np.cosh,
    "div": np.divide,
    "eq": np.equal,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": _logistic,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "rsqrt": _rsqrt,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": np.asarray,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "xor": np.bitwise_xor,
}
#: Those that JAX computes otherwise for integers.
_FLOATING = ("div", "integer_pow", "pow", "round", "sign")


# --- Shapes ---------------------------------------------------------------------------------------


def _broadcast_in_dim(params: Params, x: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _pad(params: Params, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = params["padding_config"]
    spread = [n + max(n - 1, 0) * inside for n, (_, _, inside) in zip(x.shape, config, strict=True)]
    sizes = [n + low + high for n, (low, high, _) in zip(spread, config, strict=True)]
    y = np.full(sizes, value, x.dtype)
    to, of = [], []
    for size, result, (low, _, inside) in zip(x.shape, sizes, config, strict=True):
        step = inside + 1
        first = max(0, -(low // step))  # of the elements that are not cut off
        last = min(size, -((low - result) // step))
        of.append(slice(first, max(first, last)))
        to.append(slice(low + first * step, low + max(first, last) * step, step))
        if last <= first:
            return y
    y[tuple(to)] = x[tuple(of)]
    return y


def _slice(params: Params, x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*limit) for limit in limits)]


def _dynamic_slice(params: Params, x: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    sizes = params["slice_sizes"]
    firsts = [
        min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, sizes, strict=True)
    ]
    return x[tuple(slice(a, a + n) for a, n in zip(firsts, sizes, strict=True))]


def _iota(params: Params, *_: Any) -> np.ndarray:
    shape, axis = params["shape"], params["dimension"]
    ones = [1] * len(shape)
    ones[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(ones), shape)


def _select(params: Params, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(np.broadcast_to(which, cases[0].shape), cases)


def _gather(params: Params, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Elements, or whole slices along the axes that are not indexed."""
    numbers = params["dimension_numbers"]
    axes = numbers.start_index_map
    sizes = np.array([x.shape[axis] for axis in axes])
    inside = ((indices >= 0) & (indices < sizes)).all(-1)
    kept = np.clip(indices, 0, np.maximum(sizes - 1, 0))
    y = np.moveaxis(x, axes, range(len(axes)))[tuple(np.moveaxis(kept, -1, 0))]
    rest = x.ndim - len(axes)
    y = np.moveaxis(y, range(y.ndim - rest, y.ndim), numbers.offset_dims)
    if "FILL" not in params["mode"].name:
        return y
    for axis in sorted(numbers.offset_dims):
        inside = np.expand_dims(inside, axis)
    fill = params["fill_value"]
    if fill is None:
        kind = x.dtype.kind
        fill = np.nan if kind == "f" else kind == "b" or _least(x.dtype)
    return np.where(inside, y, np.asarray(fill, x.dtype))


def _least(dtype: np.dtype) -> Any:
    """What stands for an integer that there is not."""
    return np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def _gathers_slices(params: Params, operands: Sequence[Any]) -> bool:
    numbers, shape = params["dimension_numbers"], operands[0].aval.shape
    indexed = numbers.start_index_map
    whole = all(
        size == (1 if axis in indexed else shape[axis])
        for axis, size in enumerate(params["slice_sizes"])
    )
    plain = sorted(numbers.collapsed_slice_dims) == sorted(indexed)
    return whole and plain and not numbers.operand_batching_dims and 0 not in shape


# --- Sums and windows -----------------------------------------------------------------------------


def _reduction(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def reduce(params: Params, x: np.ndarray) -> np.ndarray:
        return function(x, axis=tuple(params["axes"]))

    return reduce


def _arg(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def find(params: Params, x: np.ndarray) -> np.ndarray:
        return function(x, axis=params["axes"][0])

    return find


def _cumulative(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def run(params: Params, x: np.ndarray) -> np.ndarray:
        axis = params["axis"]
        if params["reverse"]:
            return np.flip(function(np.flip(x, axis), axis=axis, dtype=x.dtype), axis)
        return function(x, axis=axis, dtype=x.dtype)

    return run


def _windows(function: Callable[..., Any], start: Callable[[np.dtype], Any]) -> Callable[..., Any]:
    """A window's elements with one another, an offset in the window at a time."""

    def reduce(params: Params, x: np.ndarray) -> np.ndarray:
        config = [(*pads, 0) for pads in params["padding"]]
        x = _pad({"padding_config": config}, x, np.asarray(start(x.dtype), x.dtype))
        window = params["window_dimensions"]
        taps = _taps(x.shape, window, params["window_strides"], params["window_dilation"])
        return functools.reduce(function, (x[at] for _, at in taps))

    return reduce


def _lowest(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else _extreme(dtype, "min")


def _highest(dtype: np.dtype) -> Any:
    return np.inf if dtype.kind == "f" else _extreme(dtype, "max")


def _extreme(dtype: np.dtype, which: str) -> Any:
    return which == "max" if dtype.kind == "b" else getattr(np.iinfo(dtype), which)


def _taps(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each offset in a window, and where the elements at it are, of all windows."""
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    counts = [max(0, (n - r) // s + 1) for n, r, s in zip(sizes, reach, strides, strict=True)]
    return [
        (
            offset,
            tuple(
                slice(o * d, o * d + (count - 1) * s + 1 if count else o * d, s)
                for o, d, s, count in zip(offset, dilation, strides, counts, strict=True)
            ),
        )
        for offset in np.ndindex(*window)
    ]


def _dot_general(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (x_sum, y_sum), (x_batch, y_batch) = params["dimension_numbers"]
    x_free = [a for a in range(x.ndim) if a not in (*x_sum, *x_batch)]
    y_free = [a for a in range(y.ndim) if a not in (*y_sum, *y_batch)]
    batch = [x.shape[a] for a in x_batch]
    inner = math.prod(x.shape[a] for a in x_sum)
    left = x.transpose(*x_batch, *x_free, *x_sum).reshape(
        *batch, math.prod(x.shape[a] for a in x_free), inner
    )
    right = y.transpose(*y_batch, *y_sum, *y_free).reshape(
        *batch, inner, math.prod(y.shape[a] for a in y_free)
    )
    free = [*(x.shape[a] for a in x_free), *(y.shape[a] for a in y_free)]
    return (left @ right).reshape(*batch, *free)


def _convolution(params: Params, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A correlation over any number of axes, in groups or not, dilated or not."""
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    x_batch, x_features, *x_space = numbers.lhs_spec
    filters, features, *kernel_space = numbers.rhs_spec
    x = x.transpose(x_batch, *x_space, x_features)
    kernel = kernel.transpose(*kernel_space, features, filters)
    inside = [d - 1 for d in params["lhs_dilation"]]
    config = [(*pads, i) for pads, i in zip(params["padding"], inside, strict=True)]
    if any(map(any, config)):
        x = _pad({"padding_config": [(0, 0, 0), *config, (0, 0, 0)]}, x, np.zeros((), x.dtype))
    window = kernel.shape[:-2]
    taps = _taps(x.shape[1:-1], window, params["window_strides"], params["rhs_dilation"])
    parts = [x[(slice(None), *at)] for _, at in taps]
    if groups == 1:
        y = _mixed(parts, kernel.reshape(len(taps), *kernel.shape[-2:]))
    elif kernel.shape[-2] == 1:
        # The channel of the input changes more slowly than the filters for it.
        flat = kernel.reshape(len(taps), groups, -1)
        terms = (p[..., None] * k for p, k in zip(parts, flat, strict=True))
        y = functools.reduce(np.add, terms)
        y = y.reshape(*y.shape[:-2], -1)
    else:
        split = [np.split(p, groups, -1) for p in parts]
        kernels = np.split(kernel.reshape(len(taps), *kernel.shape[-2:]), groups, -1)
        y = np.concatenate([_mixed([s[g] for s in split], kernels[g]) for g in range(groups)], -1)
    y_batch, y_features, *y_space = numbers.out_spec
    order = (y_batch, *y_space, y_features)
    return y.transpose(np.argsort(order))


def _mixed(parts: Sequence[np.ndarray], kernel: np.ndarray) -> np.ndarray:
    """The sum of products of parts with the kernel's matrices, several parts in one product."""
    step = max(1, 128 // max(1, kernel.shape[1]))
    terms = []
    for i in range(0, len(parts), step):
        some = parts[i : i + step]
        together = some[0] if len(some) == 1 else np.concatenate(some, -1)
        matrix = kernel[i : i + step].reshape(-1, kernel.shape[2])
        product = together.reshape(-1, len(matrix)) @ matrix
        terms.append(product.reshape(*together.shape[:-1], -1))
    return functools.reduce(np.add, terms)


# --- sepconv's own --------------------------------------------------------------------------------


def _sepconv_forward(params: Params, *operands: np.ndarray) -> np.ndarray:
    own = params["params"]
    return fused.fuse(own.split(operands), own.block)


def _sepconv_pointwise(params: Params, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    matrix = matrix.T if params["transposed"] else matrix
    return pointwise_conv2d(x, matrix[None, None], data_format=params["spec"].data_format)


_RULES: dict[str, Callable[..., Any]] = {
    "argmax": _arg(np.argmax),
    "argmin": _arg(np.argmin),
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": lambda params, low, x, high: np.minimum(np.maximum(x, low), high),
    "concatenate": lambda params, *parts: np.concatenate(parts, params["dimension"]),
    "conv_general_dilated": _convolution,
    "convert_element_type": lambda params, x: x.astype(params["new_dtype"]),
    "cumprod": _cumulative(np.cumprod),
    "cumsum": _cumulative(np.cumsum),
    "device_put": lambda params, x: x,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "gather": _gather,
    "integer_pow": lambda params, x: x ** params["y"],
    "iota": _iota,
    "pad": _pad,
    "reduce_and": _reduction(np.all),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "reduce_or": _reduction(np.any),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_window_max": _windows(np.maximum, _lowest),
    "reduce_window_min": _windows(np.minimum, _highest),
    "reduce_window_sum": _windows(np.add, lambda dtype: 0),
    "reshape": lambda params, x: x.reshape(params["new_sizes"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "round": lambda params, x: np.round(x),
    "select_n": _select,
    "sepconv_forward": _sepconv_forward,
    "sepconv_pointwise": _sepconv_pointwise,
    "slice": _slice,
    "squeeze": lambda params, x: np.squeeze(x, tuple(params["dimensions"])),
    "tile": lambda params, x: np.tile(x, params["reps"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
}


def _is_bool(params: Params, operands: Sequence[Any]) -> bool:
    return operands[0].aval.dtype == bool


def _converts(params: Params, operands: Sequence[Any]) -> bool:
    """What a float is as an integer that cannot hold it, NumPy leaves open."""
    return operands[0].aval.dtype.kind != "f" or np.dtype(params["new_dtype"]).kind in "fb"


#: Where an operation is one of those above: parameters and operands to whether it is.
_LIMITS: dict[str, Callable[[Params, Sequence[Any]], bool]] = {
    "conv_general_dilated": lambda params, _: params["batch_group_count"] == 1,
    "convert_element_type": _converts,
    "device_put": lambda params, operands: len(operands) == 1,
    "gather": _gathers_slices,
    "reduce_and": _is_bool,
    "reduce_or": _is_bool,
    "reduce_window_max": lambda params, _: not any(d > 1 for d in params["base_dilation"]),
    "reduce_window_min": lambda params, _: not any(d > 1 for d in params["base_dilation"]),
    "reduce_window_sum": lambda params, _: not any(d > 1 for d in params["base_dilation"]),
    "reshape": lambda params, _: params["dimensions"] is None,
    "round": lambda params, _: "EVEN" in params["rounding_method"].name,
}
