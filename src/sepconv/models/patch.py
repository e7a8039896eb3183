"""Keras' own convolutions, computed by our kernels where we have some, while a patch is on.

Keras' layers and `keras.ops` both end in functions of the module `keras.src.backend.nn`, which they
look up at every call. Three of those are replaced, and the `call` of BatchNormalization, which is
several of them, so models, layers and imported names that are older than the patch are served too.
"""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Any

import keras
from keras.src.backend import nn

from sepconv.engines import load
from sepconv.engines.front import DTYPES
from sepconv.layers.batch_normalization import normalize
from sepconv.layers.devices import runs_on_cpu
from sepconv.layers.empty import is_empty, lend_an_image
from sepconv.layers.ordinary import convolve, plausible, refusal

__all__ = ["Patch", "patch_keras", "unpatch_keras"]


def patch_keras() -> Patch:
    """Lets Keras' own convolutions and batch normalizations compute with our kernels.

    From then on, in the whole process, `keras.layers.SeparableConv1D`, `SeparableConv2D`,
    `DepthwiseConv1D` and `DepthwiseConv2D`, `keras.ops.depthwise_conv` and
    `keras.ops.separable_conv` do, in models built or loaded before as well as after; and `Conv2D`
    and `keras.ops.conv` where `sepconv.layers.Conv2D` does, and `BatchNormalization` where
    `sepconv.layers.BatchNormalization` does. It may be called again, from any
    thread, and is undone by `unpatch_keras`, or by leaving the ``with`` statement that it is used
    in; of nested or concurrent ones, the last to be left undoes it.

    What our kernels do not serve computes as before: other devices than the CPU, integers and
    mixed dtypes, shapes that do not fit (which get Keras' own error) and, on TensorFlow, whatever
    XLA compiles (a model compiled with ``jit_compile=True``; Keras' default does not ask for it on
    a machine without a GPU).

    The steps that Keras has compiled for its models (`fit`, `evaluate`, `predict`) are compiled
    anew at their next call, here and when the patch is undone. A function of your own that was
    compiled before, by `jax.jit` or `tf.function`, goes on with what it was compiled with;
    `jax.clear_caches()` makes JAX compile again. `torch.compile` notices by itself.

    `Model.export` writes Keras' own operations, which other runtimes know, as without a patch.

    Returns:
        A context manager that undoes this call when left. There is no need to enter it.

    Raises:
        ValueError: Keras runs on a backend that we have no kernels for.

    Example:
        >>> import keras, sepconv
        >>> layer = keras.layers.DepthwiseConv2D(3, padding="same")
        >>> with sepconv.patch_keras():
        ...     y = layer(keras.ops.ones((1, 8, 8, 4)))  # by our kernels
        >>> y = layer(keras.ops.ones((1, 8, 8, 4)))  # by Keras' own
    """
    return Patch()


def unpatch_keras() -> None:
    """Lets Keras compute as it did before the first `patch_keras`, however often that was called.

    Example:
        >>> import sepconv
        >>> _ = sepconv.patch_keras()
        >>> sepconv.unpatch_keras()
    """
    _switch.release_all()


class Patch:
    """A call of `patch_keras`, to be used in a ``with`` statement or left alone."""

    def __init__(self) -> None:
        self._entered = 0
        self._era: int | None = _switch.acquire()

    def __enter__(self) -> Patch:
        if self._era is None:  # entered once more, after it was left
            self._era = _switch.acquire()
        self._entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if self._entered == 0 and self._era is not None:
            _switch.release(self._era)
            self._era = None


class _Switch:
    """Whether Keras computes with our functions: while calls hold it, and nothing is exported."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders = 0
        self._era = 0  # the number of times that all holds were ended
        self._exports = 0
        self._originals: dict[tuple[Any, str], Any] = {}  # what ours stand in for, while they do
        self._original_export: Any = None

    def acquire(self) -> int:
        with self._lock:
            if self._holders == 0:
                load(keras.backend.backend())
                self._holders = 1
                self._original_export = keras.Model.export
                keras.Model.export = _with_original_functions(keras.Model.export)
                self._settle()
                _compile_again()
            else:
                self._holders += 1
            return self._era

    def release(self, era: int) -> None:
        with self._lock:
            if era != self._era:
                return
            if self._holders == 1:
                self.release_all()
            else:
                self._holders -= 1

    def release_all(self) -> None:
        with self._lock:
            self._era += 1
            if self._holders:
                self._holders = 0
                keras.Model.export = self._original_export
                self._settle()
                _compile_again()

    def export(self, change: int) -> None:
        """Notes that an export has begun (1) or ended (-1)."""
        with self._lock:
            self._exports += change
            self._settle()

    def _settle(self) -> None:
        wanted = self._holders > 0 and self._exports == 0
        if wanted and not self._originals:
            engine = load(keras.backend.backend())
            for (owner, name), make in _MAKERS.items():
                self._originals[owner, name] = getattr(owner, name)
                setattr(owner, name, make(self._originals[owner, name], engine))
        elif not wanted:
            for (owner, name), original in self._originals.items():
                setattr(owner, name, original)
            self._originals = {}


_switch = _Switch()


def _with_original_functions(export: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(export)
    def exporting(*args: Any, **kwargs: Any) -> Any:
        _switch.export(1)
        try:
            return export(*args, **kwargs)
        finally:
            _switch.export(-1)

    return exporting


def _compile_again() -> None:
    """Has every model make anew the functions that it has compiled, or will compile, its steps in.

    A function is replaced, never taken away, since another thread may be about to call it.
    """
    for model in _models():
        for step in ("train", "test", "predict"):
            if vars(model).get(f"{step}_function") is not None:
                getattr(model, f"make_{step}_function")(force=True)


def _models() -> list[Any]:
    """All models there are. Nobody lists them, but an object refers to its class.

    To look at all objects instead would take hold of tuples that other threads are still building,
    which Python does not survive.
    """
    kinds = [keras.Model]
    for kind in kinds:  # which grows on the way
        kinds += [other for other in kind.__subclasses__() if other not in kinds]
    return [thing for thing in gc.get_referrers(*kinds) if type(thing) in kinds]


# ---- what takes the place of Keras' own


def _with_one_kernel(
    original: Callable[..., Any], compute: Callable[[Any, Any, tuple[Any, ...]], Any]
) -> Callable[..., Any]:
    """`compute` of inputs, kernel and options, with the signature that two of Keras' three have."""

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


def _depthwise_conv(original: Callable[..., Any], engine: ModuleType) -> Callable[..., Any]:
    """Keras' `depthwise_conv`, computed by an engine of ours where that serves the arguments."""
    ours = engine.depthwise_conv1d, engine.depthwise_conv2d

    def compute(inputs: Any, kernel: Any, options: tuple[Any, ...]) -> Any:
        return _compute(original, ours, (inputs, kernel), options)

    return _with_one_kernel(original, compute)


def _separable_conv(original: Callable[..., Any], engine: ModuleType) -> Callable[..., Any]:
    """Keras' `separable_conv`, computed by an engine of ours where that serves the arguments."""
    ours = engine.separable_conv1d, engine.separable_conv2d

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
        return _compute(original, ours, operands, options)

    return separable_conv


def _conv(original: Callable[..., Any], engine: ModuleType) -> Callable[..., Any]:
    """Keras' `conv`, computed by an engine of ours where it is a convolution that we have."""

    def compute(inputs: Any, kernel: Any, options: tuple[Any, ...]) -> Any:
        if _rank(kernel) == 4 and plausible(kernel.shape):
            arrays = [keras.ops.convert_to_tensor(operand) for operand in (inputs, kernel)]
            served = _served(arrays, _ordinary_fits, *options)
            if served is not None:
                return convolve(*arrays, **served)
        if is_empty(inputs):  # not where that may turn out: it would cost every small network time
            return lend_an_image(lambda x: original(x, kernel, *options), inputs)
        return original(inputs, kernel, *options)

    return _with_one_kernel(original, compute)


def _call_of_batch_normalization(
    original: Callable[..., Any], engine: ModuleType
) -> Callable[..., Any]:
    """`call` of Keras' BatchNormalization, which trains by our kernels."""

    @functools.wraps(original)
    def call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return normalize(self, functools.partial(original, self), inputs, training, mask)

    return call


#: Whose attribute of which name is replaced, and by what.
_MAKERS = {
    (nn, "conv"): _conv,
    (nn, "depthwise_conv"): _depthwise_conv,
    (nn, "separable_conv"): _separable_conv,
    (keras.layers.BatchNormalization, "call"): _call_of_batch_normalization,
}


def _compute(
    original: Callable[..., Any],
    ours: tuple[Callable[..., Any], Callable[..., Any]],
    operands: tuple[Any, ...],
    options: tuple[Any, ...],
) -> Any:
    arrays = [keras.ops.convert_to_tensor(operand) for operand in operands]
    served = _served(arrays, _shapes_fit, *options)
    if served is None:
        return original(*operands, *options)
    return ours[len(arrays[0].shape) - 3](*arrays, **served)


# ---- what we serve


def _served(
    arrays: Sequence[Any],
    fit: Callable[[Sequence[Any], dict[str, Any]], bool],
    strides: Any,
    padding: Any,
    data_format: str | None,
    dilation_rate: Any,
) -> dict[str, Any] | None:
    """The options for our function, or None where Keras' own is to compute, or to complain.

    `fit` says whether shapes do, given the options.
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
    return options if served else None


def _rank(array: Any) -> int | None:
    try:
        return len(array.shape)
    except (AttributeError, ValueError):  # no tensor yet; TensorFlow does not know it
        return None


def _sizes(value: Any, rank: int) -> tuple[int, ...] | None:
    """`value` as so many positive integers, or None where it is no such thing."""
    sizes = (value,) * rank if isinstance(value, int) else tuple(value or ())
    fits = len(sizes) == rank and all(isinstance(n, int) and n > 0 for n in sizes)
    return sizes if fits else None


def _shapes_fit(arrays: Sequence[Any], options: dict[str, Any]) -> bool:
    """Whether shapes fit each other and leave an output, as far as a tracer knows them."""
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
    """`_shapes_fit` for an ordinary convolution, and whether it is one that we compute."""
    kernel, dtype = tuple(arrays[1].shape), keras.backend.standardize_dtype(arrays[1].dtype)
    channels, space = _split(arrays[0], options)
    fits = all(kernel) and channels != 0 and _is_in(space, kernel[:2], options)
    return fits and refusal(channels, kernel, dtype, options["data_format"]) is None


def _split(x: Any, options: dict[str, Any]) -> tuple[int | None, tuple[int | None, ...]]:
    """Of an input: its channels, and its sizes in space."""
    shape = tuple(x.shape)
    if options["data_format"] == "channels_first":
        return shape[1], shape[2:]
    return shape[-1], shape[1:-1]


def _is_in(space: Sequence[Any], kernel_size: Sequence[int], options: dict[str, Any]) -> bool:
    """Whether a kernel finds a place in an input's space, as far as a tracer knows its sizes."""
    valid = options["padding"] == "valid"
    for size, k, dilation in zip(space, kernel_size, options["dilation_rate"], strict=True):
        if size is not None and size < ((k - 1) * dilation + 1 if valid else 1):
            return False
    return True


def _dtypes_fit(arrays: Sequence[Any]) -> bool:
    names = {keras.backend.standardize_dtype(array.dtype) for array in arrays}
    return len(names) == 1 and names <= set(DTYPES)
