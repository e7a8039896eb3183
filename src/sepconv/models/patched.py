"""The functions that replace Keras' own while a patch is on.

They call Keras' own functions where our kernels do not apply, and in traces for an export.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.src.backend import nn

from sepconv.arrays import DTYPES
from sepconv.engines.contract import Engine
from sepconv.engines.front import convolve_1d, convolve_2d, spec_builder
from sepconv.geometry import ConvSpec, conv_spec_1d
from sepconv.layers.batch_normalization import normalize
from sepconv.layers.devices import runs_on_cpu
from sepconv.layers.empty import is_empty, lend_an_image
from sepconv.layers.ordinary import convolve, plausible, refusal
from sepconv.models.exports import is_traced_for_export

__all__ = ["MAKERS"]


def _with_one_kernel(
    original: Callable[..., Any], compute: Callable[[Any, Any, tuple[Any, ...]], Any]
) -> Callable[..., Any]:
    """`compute(inputs, kernel, options)` with the signature of two of Keras' three functions."""

    @functools.wraps(original)
    def convolution(
        inputs: Any,
        kernel: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
    ) -> Any:
        return compute(inputs, kernel, (strides, padding, data_format, dilation_rate))

    return convolution


def _depthwise_conv(original: Callable[..., Any], engine: Engine) -> Callable[..., Any]:
    """Keras' `depthwise_conv`, computed by our engine where that takes the arguments."""

    def compute(inputs: Any, kernel: Any, options: tuple[Any, ...]) -> Any:
        return _compute(original, engine, (inputs, kernel), options)

    return _with_one_kernel(original, compute)


def _separable_conv(original: Callable[..., Any], engine: Engine) -> Callable[..., Any]:
    """Keras' `separable_conv`, computed by our engine where that takes the arguments."""

    @functools.wraps(original)
    def separable_conv(
        inputs: Any,
        depthwise_kernel: Any,
        pointwise_kernel: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
    ) -> Any:
        operands = inputs, depthwise_kernel, pointwise_kernel
        options = strides, padding, data_format, dilation_rate
        return _compute(original, engine, operands, options)

    return separable_conv


def _conv(original: Callable[..., Any], engine: Engine) -> Callable[..., Any]:
    """Keras' `conv`, computed by our engine where it is a depthwise or a 1x1 convolution."""

    def compute(inputs: Any, kernel: Any, options: tuple[Any, ...]) -> Any:
        if _rank(kernel) == 4 and not is_traced_for_export() and plausible(kernel.shape):
            arrays = [keras.ops.convert_to_tensor(operand) for operand in (inputs, kernel)]
            served = _served(engine, arrays, _ordinary_fits, *options)
            if served is not None:
                return convolve(arrays[0], arrays[1], served)
        if is_empty(inputs):  # if known only at run time, a test would slow small networks
            return lend_an_image(lambda x: original(x, kernel, *options), inputs)
        return original(inputs, kernel, *options)

    return _with_one_kernel(original, compute)


def _call_of_batch_normalization(
    original: Callable[..., Any], engine: Engine
) -> Callable[..., Any]:
    """`call` of Keras' BatchNormalization, computed by our kernels in training."""

    @functools.wraps(original)
    def call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if is_traced_for_export():
            return original(self, inputs, training=training, mask=mask)
        return normalize(self, functools.partial(original, self), inputs, training, mask)

    return call


#: The makers of the replacements, by the (owner, name) of the replaced attribute.
MAKERS = {
    (nn, "conv"): _conv,
    (nn, "depthwise_conv"): _depthwise_conv,
    (nn, "separable_conv"): _separable_conv,
    (keras.layers.BatchNormalization, "call"): _call_of_batch_normalization,
}


def _compute(
    original: Callable[..., Any],
    engine: Engine,
    operands: tuple[Any, ...],
    options: tuple[Any, ...],
) -> Any:
    if is_traced_for_export():
        return original(*operands, *options)
    arrays = [keras.ops.convert_to_tensor(operand) for operand in operands]
    spec = _served(engine, arrays, _shapes_fit, *options)
    if spec is None:
        return original(*operands, *options)
    x, kernel, *pointwise = arrays
    convolve = convolve_1d if len(x.shape) == 3 else convolve_2d
    return convolve(engine, x, kernel, pointwise[0] if pointwise else None, None, spec)


# ---- the calls that our kernels take


def _served(
    engine: Engine,
    arrays: Sequence[Any],
    fit: Callable[[Sequence[Any], dict[str, Any]], bool],
    strides: Any,
    padding: Any,
    data_format: str | None,
    dilation_rate: Any,
) -> ConvSpec | None:
    """The convolution's spec, or None where Keras' own function computes or raises.

    `fit` tells whether the shapes fit, given the options.
    """
    ranks = {_rank(array) for array in arrays}
    rank = ranks.pop()
    if ranks or rank not in (3, 4) or not isinstance(padding, str):
        return None
    options = {
        "strides": _sizes(strides, rank - 2),
        "padding": padding.lower(),
        "data_format": data_format or keras.config.image_data_format(),
        "dilation_rate": _sizes(dilation_rate, rank - 2),
    }
    served = (
        options["strides"] is not None
        and options["dilation_rate"] is not None
        and options["padding"] in ("valid", "same")
        and fit(arrays, options)
        and _dtypes_fit(arrays)
        and runs_on_cpu(*arrays)
    )
    if not served:
        return None
    build = spec_builder(engine)
    arguments: tuple[Any, Any, Any, Any] = (
        options["strides"],
        options["padding"],
        options["dilation_rate"],
        options["data_format"],
    )
    if rank == 3:
        return conv_spec_1d(arrays[1].shape[0], *arguments, build)
    return build(*arguments)


def _rank(array: Any) -> int | None:
    try:
        return len(array.shape)
    except (AttributeError, ValueError):  # no tensor; or its rank is not known on TensorFlow
        return None


def _sizes(value: Any, rank: int) -> tuple[int, ...] | None:
    """`value` as `rank` positive integers, or None where it is something else."""
    sizes = (value,) * rank if isinstance(value, int) else tuple(value or ())
    fits = len(sizes) == rank and all(isinstance(n, int) and n > 0 for n in sizes)
    return sizes if fits else None


def _shapes_fit(arrays: Sequence[Any], options: dict[str, Any]) -> bool:
    """Whether shapes fit each other and the output is not empty, as far as sizes are known."""
    kernel = tuple(arrays[1].shape)
    channels, space = _split(arrays[0], options)
    *kernel_size, kernel_channels, multiplier = kernel
    if not all(kernel) or channels != kernel_channels or not _is_in(space, kernel_size, options):
        return False
    if len(arrays) == 2:
        return True
    *ones, pointwise_channels, filters = tuple(arrays[2].shape)
    return (
        all(size == 1 for size in ones)
        and pointwise_channels == kernel_channels * multiplier
        and bool(filters)
    )


def _ordinary_fits(arrays: Sequence[Any], options: dict[str, Any]) -> bool:
    """`_shapes_fit` for an ordinary convolution; also False for one that we do not compute."""
    kernel, dtype = tuple(arrays[1].shape), keras.backend.standardize_dtype(arrays[1].dtype)
    channels, space = _split(arrays[0], options)
    fits = all(kernel) and channels != 0 and _is_in(space, kernel[:2], options)
    return fits and refusal(channels, kernel, dtype, options["data_format"]) is None


def _split(x: Any, options: dict[str, Any]) -> tuple[int | None, tuple[int | None, ...]]:
    """The channels of an input, and its spatial sizes."""
    shape = tuple(x.shape)
    if options["data_format"] == "channels_first":
        return shape[1], shape[2:]
    return shape[-1], shape[1:-1]


def _is_in(space: Sequence[Any], kernel_size: Sequence[int], options: dict[str, Any]) -> bool:
    """Whether a kernel fits into an input, as far as spatial sizes are known."""
    valid = options["padding"] == "valid"
    for size, k, dilation in zip(space, kernel_size, options["dilation_rate"], strict=True):
        if size is not None and size < ((k - 1) * dilation + 1 if valid else 1):
            return False
    return True


def _dtypes_fit(arrays: Sequence[Any]) -> bool:
    names = {keras.backend.standardize_dtype(array.dtype) for array in arrays}
    return len(names) == 1 and names <= set(DTYPES)
