"""Replaces Keras' own functions by ours while a patch is on.

Keras' layers and `keras.ops` both call functions of the module `keras.src.backend.nn`, which they
look up at every call. Three of those are replaced, and the `call` of BatchNormalization, which uses
several of them. So the patch also works for models, layers and imported names that are older than
it.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from sepconv._hold import Hold
from sepconv.engines import adapter
from sepconv.models.exports import guard_exports
from sepconv.models.patched import MAKERS

__all__ = ["Patch", "patch_keras", "unpatch_keras"]


def patch_keras() -> Patch:
    """Makes Keras' own convolutions and batch normalizations compute with our kernels.

    From then on, in the whole process, our kernels compute `keras.layers.SeparableConv1D`,
    `SeparableConv2D`, `DepthwiseConv1D` and `DepthwiseConv2D`, `keras.ops.depthwise_conv` and
    `keras.ops.separable_conv`, in models built or loaded before as well as after; `Conv2D` and
    `keras.ops.conv` where `sepconv.layers.Conv2D` does; and `BatchNormalization` where
    `sepconv.layers.BatchNormalization` does. It may be called again, from any thread.
    `unpatch_keras` undoes it, and so does the end of the ``with`` statement that it is used in; of
    nested or concurrent ones, the end of the last.

    Keras computes what our kernels do not: on other devices than the CPU, of integers and mixed
    dtypes, shapes that do not fit (which get Keras' own error) and, on TensorFlow, functions that
    XLA compiles (a model compiled with ``jit_compile=True``; Keras' default does not ask for it on
    a machine without a GPU).

    The steps that Keras has compiled for its models (`fit`, `evaluate`, `predict`) are compiled
    again at their next call, now and when the patch is undone. A function of your own that
    `jax.jit` or `tf.function` compiled before keeps what it was compiled with; `jax.clear_caches()`
    makes JAX compile again. `torch.compile` notices the change.

    Files for other runtimes contain the engine's own operations, as without a patch, if they are
    written by `Model.export`, `keras.export.ExportArchive`, `tf.saved_model.save`, LiteRT's
    converter, `torch.export`, `torch.onnx`, `torch.jit.trace` or `jax.export`. An older trace of a
    `tf.function` keeps our operations; if one would get into a file, an error says so. Other
    converters need `unpatch_keras` first.

    Returns:
        A context manager that undoes this call at its end. It need not be entered.

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
    """Undoes all calls of `patch_keras`.

    Example:
        >>> import sepconv
        >>> _ = sepconv.patch_keras()
        >>> sepconv.unpatch_keras()
    """
    _switch.release_all()


class Patch(Hold):
    """A call of `patch_keras`, to be used in a ``with`` statement or left alone."""

    def _acquire(self) -> int:
        return _switch.acquire()

    def _release(self, era: int) -> None:
        _switch.release(era)


class _Switch:
    """Switches Keras to our functions while a call holds the patch and nothing is exported."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders = 0
        self._era = 0  # how often all holds were ended at once
        self._exports = 0
        self._originals: dict[tuple[Any, str], Any] = {}  # Keras' functions, while replaced
        self._unguard_exports: Callable[[], None] = lambda: None

    def acquire(self) -> int:
        with self._lock:
            if self._holders == 0:
                adapter(keras.backend.backend())
                self._holders = 1
                self._unguard_exports = guard_exports(self._without_ours)
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
                self._unguard_exports()
                self._settle()
                _compile_again()

    @contextmanager
    def _without_ours(self) -> Iterator[None]:
        """A context in which Keras computes with its own functions in all threads, for exports."""
        self._count_export(1)
        try:
            yield
        finally:
            self._count_export(-1)

    def _count_export(self, change: int) -> None:
        with self._lock:
            self._exports += change
            self._settle()

    def _settle(self) -> None:
        wanted = self._holders > 0 and self._exports == 0
        if wanted and not self._originals:
            engine = adapter(keras.backend.backend())
            for (owner, name), make in MAKERS.items():
                self._originals[owner, name] = getattr(owner, name)
                setattr(owner, name, make(self._originals[owner, name], engine))
        elif not wanted:
            for (owner, name), original in self._originals.items():
                setattr(owner, name, original)
            self._originals = {}


_switch = _Switch()


def _compile_again() -> None:
    """Makes every model compile the functions of its steps again.

    A function is replaced, never taken away, since another thread may be about to call it.
    """
    for model in _models():
        for step in ("train", "test", "predict"):
            if vars(model).get(f"{step}_function") is not None:
                getattr(model, f"make_{step}_function")(force=True)


def _models() -> list[Any]:
    """All models of the process, found by the references to their classes.

    A look at all objects instead would take references to tuples that other threads are still
    building, which crashes Python.
    """
    kinds = [keras.Model]
    for kind in kinds:  # grows in the loop
        kinds += [other for other in kind.__subclasses__() if other not in kinds]
    return [thing for thing in gc.get_referrers(*kinds) if type(thing) in kinds]
