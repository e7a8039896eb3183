"""Keeps our operations out of TensorFlow's files for other runtimes, which do not know them.

TensorFlow would write a SavedModel or an ONNX file with them without a warning, and it would load
only where sepconv is imported. JAX, and PyTorch's ONNX exporter, refuse such operations themselves.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn

import keras

__all__ = ["NotExported", "guard_tensorflow", "our_operations", "refusal"]

#: What TensorFlow's operations that call Python are, and the name of ours among them.
_CALLS_OF_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
_PROGRAM = "SepconvProgram"


class NotExported:
    """Makes TensorFlow refuse to write a layer into a SavedModel, and say why.

    Class attributes of a layer:
        _instead: what to export in its place.
    """

    _instead: ClassVar[str] = "Export sepconv.to_stock(model), which has Keras' own layers"

    def _trackable_children(self, save_type: str = "checkpoint", **options: Any) -> Any:
        """TensorFlow asks this of every object that it saves; a checkpoint has weights alone."""
        if save_type == "savedmodel":
            self._refuse()
        return super()._trackable_children(save_type, **options)  # type: ignore[misc]

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"The layer {getattr(self, 'name', '?')!r} computes with sepconv's operations, which "
            f"are known only where sepconv is imported. {self._instead}. "
            f"Received: {type(self).__name__}"
        )


def our_operations(graph: Any) -> list[str]:
    """The names of our operations in a TensorFlow `GraphDef` and in its functions.

    Example:
        >>> from types import SimpleNamespace as Graph
        >>> node = Graph(op="SepconvForward")
        >>> our_operations(Graph(node=[node], library=Graph(function=[])))
        ['SepconvForward']

    A program is a call of Python's, which has our name:

        >>> node = Graph(op="PyFunc", name="net/SepconvProgram")
        >>> our_operations(Graph(node=[node], library=Graph(function=[])))
        ['SepconvProgram']
    """
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    named = {node.op for node in nodes if node.op.startswith("Sepconv")}
    called = any(node.op in _CALLS_OF_PYTHON and _PROGRAM in node.name for node in nodes)
    return sorted({*named, _PROGRAM} if called else named)


def refusal(what: str, ours: Iterable[str]) -> str:
    """The error message for something to be exported that has our operations.

    Example:
        >>> refusal("The endpoint 'serve'", ["SepconvForward"])[:54]
        "The endpoint 'serve' computes with sepconv's operation"
    """
    ours = list(ours)
    if _PROGRAM in ours:
        return (
            f"{what} calls a program of sepconv's, which no other runtime has. Export the model "
            f"that the program was made from. Received: {', '.join(ours)}"
        )
    return (
        f"{what} computes with sepconv's operations, which are known only where sepconv is "
        f"imported. {NotExported._instead}. If the model has them already, a tf.function was "
        "traced while sepconv.patch_keras() was on: make that function anew, and export it before "
        f"it is called or after sepconv.unpatch_keras(). Received: {', '.join(ours)}"
    )


def guard_tensorflow() -> None:
    """Makes Keras' export archive and LiteRT's converter refuse our operations on TensorFlow.

    An endpoint of `keras.export.ExportArchive` may call a model that the archive does not track,
    and LiteRT's converter takes a layer's refusal for a reason to try in another way, and fails.
    """
    if keras.backend.backend() != "tensorflow":
        return
    # Both are private. Where they are missing, the reader of the file refuses it instead.
    with contextlib.suppress(ImportError, AttributeError):
        from keras.src.backend.tensorflow.export import TFExportArchive

        TFExportArchive.write_out = _checked(TFExportArchive.write_out)
    with contextlib.suppress(ImportError, AttributeError):
        from tensorflow.lite.python.lite import TFLiteKerasModelConverterV2 as Converter

        Converter.convert = _without_our_layers(Converter.convert)


def _without_our_layers(convert: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(convert)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        flatten = getattr(self._keras_model, "_flatten_layers", list)
        for layer in flatten():
            if isinstance(layer, NotExported):
                layer._refuse()
        return convert(self, *args, **kwargs)

    return checked


def _checked(write_out: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(write_out)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in self._endpoint_names:
            for function in _concrete_functions(self._get_concrete_fn(name)):
                ours = our_operations(function.graph.as_graph_def())
                if ours:
                    raise ValueError(refusal(f"The endpoint {name!r}", ours))
        return write_out(self, *args, **kwargs)

    return checked


def _concrete_functions(function: Any) -> list[Any]:
    """The traces of a `tf.function`, made now where there are none; of a trace, itself."""
    if hasattr(function, "graph"):
        return [function]
    return list(function._list_all_concrete_functions_for_serialization())
