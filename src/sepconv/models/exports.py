"""Keeps our operations out of the files that models are exported to for other runtimes.

While a patch is on, our operations are computed wherever Keras' functions are called. A file for
other runtimes must not contain them. So functions that trace a model and write it are run without
ours, traces that an engine reports as made for an export use Keras' own functions, and a file with
ours is refused.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import ModuleType
from typing import Any

import keras

from sepconv.layers.exporting import our_operations, refusal

__all__ = ["guard_exports", "is_traced_for_export"]

Scope = Callable[[], AbstractContextManager[None]]


# ---- whether an engine traces for an export


def _never() -> bool:
    return False


def _detector() -> Callable[[], bool]:
    """A function that tells whether Keras' current backend traces for an export."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        # PyTorch 2.7 and later know of torch.export; torch.onnx.export uses one or the other.
        exporting = getattr(torch.compiler, "is_exporting", _never)
        tracing = torch.jit.is_tracing  # type: ignore[attr-defined]
        return lambda: exporting() or tracing()
    if backend == "tensorflow":
        try:
            from tensorflow.python.saved_model.save_context import in_save_context
        except ImportError:  # private; `_refusing` below then refuses the file
            return _never
        return in_save_context
    return _never  # JAX tells when it lowers: see `engines.jax.calls`


#: Whether the engine is tracing for an export, as far as it tells.
is_traced_for_export = _detector()


# ---- functions that write models


def guard_exports(without_ours: Scope) -> Callable[[], None]:
    """Replaces the functions that write models, until the returned function is called.

    Args:
        without_ours: makes a context in which Keras computes with its own functions.

    Returns:
        A function that puts everything back.
    """
    undo = ExitStack()
    wrap = functools.partial(_with, without_ours)
    _replace(undo, keras.Model, "export", wrap)
    archive = _archive()
    for name in ("add_endpoint", "track_and_add_endpoint", "write_out"):
        _replace(undo, archive, name, wrap)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _guard_tensorflow(undo, without_ours)
    elif backend == "jax":
        from sepconv.engines.jax import calls

        calls.export_portably(True)
        undo.callback(calls.export_portably, False)
    return undo.close


def _archive() -> Any:
    """The class of the objects that `keras.export.ExportArchive` makes."""
    from keras.src.export import saved_model

    return getattr(saved_model, "BackendSavedModelExportArchive", keras.export.ExportArchive)


def _replace(
    undo: ExitStack, owner: Any, name: str, make: Callable[[Callable[..., Any]], Any]
) -> None:
    """Sets an attribute to `make` of its value; an inherited attribute is only hidden."""
    if not hasattr(owner, name):
        return
    original, ours = vars(owner).get(name), make(getattr(owner, name))
    setattr(owner, name, ours)

    def restore() -> None:
        if vars(owner).get(name) is not ours:  # another program has replaced it since
            return
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)

    undo.callback(restore)


def _with(scope: Scope, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return function(*args, **kwargs)

    return within


# ---- TensorFlow, whose functions may have been traced long before they are written


def _guard_tensorflow(undo: ExitStack, without_ours: Scope) -> None:
    save, lite = (
        _private(f"tensorflow.{name}") for name in ("python.saved_model.save", "lite.python.lite")
    )
    if save is not None:
        _replace(undo, save, "_verify_ops", _refusing)
    for name in ("TFLiteConverterV2", "TFLiteKerasModelConverterV2"):
        converter = getattr(lite, name, None)
        if converter is not None:
            _replace(undo, converter, "convert", functools.partial(_explaining, without_ours))


def _private(name: str) -> ModuleType | None:
    """A private module of TensorFlow's, or None where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _refusing(verify: Callable[..., Any]) -> Callable[..., Any]:
    """`_verify_ops`, which TensorFlow calls with a SavedModel's graph before it writes anything."""

    @functools.wraps(verify)
    def refusing(graph_def: Any, *args: Any, **kwargs: Any) -> Any:
        ours = our_operations(graph_def)
        if ours:
            raise ValueError(refusal("What tf.saved_model.save was given", ours))
        return verify(graph_def, *args, **kwargs)

    return refusing


def _explaining(without_ours: Scope, convert: Callable[..., Any]) -> Callable[..., Any]:
    """LiteRT's `convert`, without our functions, and with a better word on our operations."""

    @functools.wraps(convert)
    def explaining(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            with without_ours():
                return convert(self, *args, **kwargs)
        except Exception as error:
            if "SepconvForward" not in str(error):
                raise
            message = refusal("What the LiteRT converter was given", ["SepconvForward"])
            raise ValueError(message) from error

    return explaining
