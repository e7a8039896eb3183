"""Has flax compute batch normalization by `flax_functions` while a patch of JAX is on.

Flax's layers, of `flax.linen` and of `flax.nnx`, all call two functions of their module, which are
private to flax: one computes mean and variance, one normalizes by them. Both are replaced. What is
not a batch normalization that our kernels serve goes to flax's own function.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from sepconv._imports import when_imported
from sepconv.engines.jax import flax_functions
from sepconv.engines.jax.refusal import is_spread

__all__ = ["FlaxPatch"]

_STATISTICS = "x axes dtype axis_name axis_index_groups use_mean use_fast_variance mask"
_ARRAYS = "x mean var scale bias reduction_axes feature_axes dtype epsilon"
_MODULE = (
    "mdl x mean var reduction_axes feature_axes dtype param_dtype epsilon use_bias use_scale "
    "bias_init scale_init force_float32_reductions"
)

#: The parameters of the two functions, by module, in all versions of flax that are tested.
_KNOWN = {
    "flax.linen.normalization": {
        "_compute_stats": f"{_STATISTICS} force_float32_reductions",
        "_normalize": _MODULE,
    },
    "flax.nnx.nn.normalization": {"_compute_stats": _STATISTICS, "_normalize": _ARRAYS},
}

#: How many elements an array has at least: XLA takes less time for smaller ones than for a call.
_FEWEST = 4096

Report = Callable[[str | None], None]


class FlaxPatch:
    """Replaces flax's functions, at once or when flax is imported.

    Args:
        report: hears of each normalization: None where it is ours, or why it is not.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.RLock()  # of the patch's caller and of a thread that imports flax
        self._on = False
        self._replaced: dict[tuple[str, str], tuple[Any, Any]] = {}  # flax's function and ours

    def put(self) -> None:
        """Replaces the functions of what is imported, and of the rest when it is."""
        with self._lock:
            self._on = True
            flax_functions.report_to(self._report)
            for name in _KNOWN:
                when_imported(name, functools.partial(self._put_in, name))

    def take(self) -> None:
        """Puts flax's functions back, but for those that someone else has replaced since."""
        with self._lock:
            self._on = False
            flax_functions.report_to(None)
            for (name, attribute), (original, ours) in self._replaced.items():
                module = sys.modules.get(name)
                if getattr(module, attribute, None) is ours:
                    setattr(module, attribute, original)
            self._replaced.clear()

    def _put_in(self, name: str) -> None:
        with self._lock:
            self._replace(name)

    def _replace(self, name: str) -> None:
        module = sys.modules.get(name)
        if module is None or not self._on or (name, "_normalize") in self._replaced:
            return
        known = _KNOWN[name]
        functions = {attribute: getattr(module, attribute, None) for attribute in known}
        if not all(_parameters(functions[attribute]) == known[attribute] for attribute in known):
            version = getattr(sys.modules.get("flax"), "__version__", "of this version")
            warnings.warn(
                f"patch_jax() does not know how flax {version} normalizes, so that JAX computes "
                "batch normalization as without the patch: it knows flax 0.10 to 0.12.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        normalize = _normalize_arrays if known["_normalize"] == _ARRAYS else _normalize_module
        makers = {"_compute_stats": _compute_stats, "_normalize": normalize}
        for attribute, original in functions.items():
            ours = self._function(original, makers[attribute])
            self._replaced[name, attribute] = original, ours
            setattr(module, attribute, ours)

    def _function(self, original: Any, ours: Callable[..., Any]) -> Any:
        """A function with the parameters of flax's, which it gets as well."""
        signature = inspect.signature(original)

        @functools.wraps(original)
        def function(*args: Any, **kwargs: Any) -> Any:
            if not self._on:  # someone else has kept ours
                return original(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return ours(original, bound.arguments, self._report)

        return function


def _parameters(function: Any) -> str | None:
    """The names of a function's parameters."""
    return " ".join(inspect.signature(function).parameters) if callable(function) else None


# --- Flax's functions -----------------------------------------------------------------------------


def _compute_stats(original: Any, given: dict[str, Any], _: Report) -> Any:
    x, axis = given["x"], _channel_axis(given["x"], given["axes"])
    plain = all(given[name] is None for name in ("axis_name", "axis_index_groups", "mask"))
    if plain and given["use_mean"] and axis is not None and not _refusal(x, given["dtype"]):
        return flax_functions.moments(x, axis=axis, fast=bool(given["use_fast_variance"]))
    return original(**given)


def _normalize_arrays(original: Any, given: dict[str, Any], report: Report) -> Any:
    """That of `flax.nnx`: scale and shift are arguments."""
    x, axis = given["x"], _channel_axis(given["x"], given["reduction_axes"])
    vectors = [given[name] for name in ("mean", "var", "scale", "bias")]
    reason = _normalize_refusal(x, axis, vectors, given)
    if reason is None and axis is not None:
        return _normalized(x, vectors, axis, given["epsilon"])
    report(reason)
    return original(**given)


def _normalize_module(original: Any, given: dict[str, Any], report: Report) -> Any:
    """That of `flax.linen`, which makes or fetches the parameters of its layer."""
    x, axis = given["x"], _channel_axis(given["x"], given["reduction_axes"])
    reason = _normalize_refusal(x, axis, [given["mean"], given["var"]], given)
    if reason is None and axis is not None:
        shape, dtype = [x.shape[axis]], given["param_dtype"]
        parameters = {
            name: given["mdl"].param(name, given[f"{name}_init"], shape, dtype)
            for name in ("scale", "bias")
            if given[f"use_{name}"]
        }
        vectors = [given["mean"], given["var"], parameters.get("scale"), parameters.get("bias")]
        reason = _normalize_refusal(x, axis, vectors, given)
        if reason is None:
            return _normalized(x, vectors, axis, given["epsilon"])
        given["mdl"] = _Fetched(parameters)  # a layer makes each of them once
    report(reason)
    return original(**given)


class _Fetched:
    """Stands for a layer of flax whose parameters have been fetched."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def param(self, name: str, *_: Any) -> Any:
        """One of them."""
        return self._parameters[name]


def _normalized(x: Any, vectors: list[Any], axis: int, epsilon: float) -> Any:
    mean, variance, scale, shift = vectors
    scale = jnp.ones_like(mean) if scale is None else scale
    shift = jnp.zeros_like(mean) if shift is None else shift
    epsilon = float(epsilon)
    return flax_functions.normalize(x, mean, variance, scale, shift, axis=axis, epsilon=epsilon)


# --- Which are ours -------------------------------------------------------------------------------


def _channel_axis(x: Any, axes: Any) -> int | None:
    """The one axis that is not reduced, if there is one; the first, of the batch, is none."""
    rank = getattr(x, "ndim", 0)
    reduced = {int(axis) % rank for axis in (axes if isinstance(axes, Iterable) else (axes,))}
    left = set(range(rank)) - reduced
    return left.pop() if len(left) == 1 and left != {0} else None


def _normalize_refusal(
    x: Any, axis: int | None, vectors: list[Any], given: dict[str, Any]
) -> str | None:
    """Why a normalization is flax's, if it is."""
    features = given["feature_axes"]
    features = features if isinstance(features, Iterable) else (features,)
    if axis is None or {int(feature) % x.ndim for feature in features} != {axis}:
        return "not one mean for each channel, as in layer or group normalization"
    if not isinstance(given["epsilon"], (int, float)):
        return "an epsilon that is an array"
    for vector in vectors:
        if vector is None:
            continue
        if not isinstance(vector, jax.Array) or vector.shape != (x.shape[axis],):
            return "means or parameters that are not one number for each channel"
        if vector.dtype != x.dtype:
            return "arrays of more than one dtype"
        if is_spread(vector):
            return "arrays with a sharding in their type"
    return _refusal(x, given["dtype"])


def _refusal(x: Any, dtype: Any) -> str | None:
    """Why a normalization of an array is flax's, if it is."""
    if not isinstance(x, jax.Array) or x.dtype not in ("float32", "float64"):
        return f"dtype {getattr(x, 'dtype', None)}"
    if dtype is not None and jnp.dtype(dtype) != x.dtype:
        return "a result of another dtype"
    if not all(isinstance(size, int) for size in x.shape):  # a symbol of `jax.export`'s
        return "sizes that are not known"
    if x.size < _FEWEST:
        return f"fewer than {_FEWEST} elements"
    return "arrays with a sharding in their type" if is_spread(x) else None
