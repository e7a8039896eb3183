"""Computes a model's predictions and its layers' outputs once, without side effects.

Neither `predict` nor a compiled function is used: compiling a network takes longer than computing
it once. PyTorch and TensorFlow compute eagerly, layer by layer. JAX would compile every operation
by itself (some five seconds for MobileNet), or each of two networks as a whole (half a second). So
the model is traced, which takes a tenth of a second, and `sepconv.models.jaxpr` computes the traced
program. Garbage collection is off meanwhile: with an engine's modules loaded, one collection takes
as long as all the rest.

MobileNet (224 pixels) and its copy take 0.5 to 0.65 s of one core's time on each engine.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np

from sepconv.models.untouched import untouched
from sepconv.models.watching import watched

__all__ = ["LayerOutput", "Outcome", "as_tensor", "pass_through", "run", "without_collecting"]


class LayerOutput(NamedTuple):
    """The result of one call of a layer.

    Attributes:
        layer: the layer.
        arrays: its outputs, flat.
    """

    layer: Any
    arrays: list[np.ndarray]


class Outcome(NamedTuple):
    """The result of a run of a model.

    Attributes:
        outputs: its predictions, flat.
        layers: the results of its layers in the order of computation; empty unless asked for.
    """

    outputs: list[np.ndarray]
    layers: list[LayerOutput]


def run(
    model: Any,
    inputs: Any,
    *,
    values: Sequence[tuple[Any, Any]] = (),
    layers: Iterable[Any] = (),
    by_engine: bool = False,
) -> Outcome:
    """Computes a model's predictions for one batch and undoes all side effects.

    Args:
        model: a built Keras model.
        inputs: an array, or the structure of arrays that the model takes.
        values: pairs of a variable of the model and an array to use as its value.
        layers: layers in the model whose outputs to return too.
        by_engine: whether JAX must compile the program, which takes longer, even if NumPy can
            compute it.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
        >>> outputs, seen = run(model, np.ones((1, 2), "float32"), layers=model.layers)
        >>> outputs[0].shape, [output.layer.name for output in seen]
        ((1, 3), ['dense'])
    """
    backend = keras.backend.backend()
    layers = list(layers)
    if backend == "jax":
        try:
            with untouched(model, values):
                return _traced(model, inputs, layers, by_engine)
        # A model that cannot be traced, for example with a layer that needs values, may still be
        # computed.
        except Exception:
            pass
    with untouched(model, values), _computing(backend):
        seen: list[LayerOutput] = []

        def note(layer: Any, given: Any, output: Any) -> None:
            leaves = [x for x in keras.tree.flatten(output) if _is_known(x)]
            seen.append(LayerOutput(layer, [_as_array(x) for x in leaves]))

        with watched(layers, note):
            outputs = _call(model, keras.tree.map_structure(as_tensor, inputs))
        return Outcome([_as_array(x) for x in keras.tree.flatten(outputs) if x is not None], seen)


def pass_through(model: Any, inputs: Any) -> None:
    """Calls a model's layers on inputs; on JAX, with shapes alone.

    All side effects are undone.

    Args:
        model: a built Keras model.
        inputs: an array, or the structure of arrays that the model takes.
    """
    backend = keras.backend.backend()
    with untouched(model), _computing(backend):
        if backend != "jax":
            _call(model, keras.tree.map_structure(as_tensor, inputs))
            return
        import jax

        arrays = keras.tree.map_structure(np.asarray, inputs)
        jax.eval_shape(lambda tensors: _call(model, tensors), arrays)


@contextmanager
def without_collecting() -> Iterator[None]:
    """A context in which Python collects no cyclic garbage, unless asked to."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _computing(backend: str) -> Iterator[None]:
    """A context in which PyTorch computes on one thread and records nothing for gradients.

    Its threads wait for each other after every operation. On a busy machine, that takes ten times
    as long as the work itself.
    """
    if backend != "torch":
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def _call(model: Any, inputs: Any) -> Any:
    if model._call_has_training_arg:
        return model(inputs, training=False)
    return model(inputs)


def as_tensor(value: Any) -> Any:
    """An array as a tensor of the engine; Keras converts text, sparse and ragged inputs itself."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "USO":
        return keras.ops.convert_to_tensor(value)
    if isinstance(value, np.ndarray) and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(value)
    return value


def _is_known(value: Any) -> bool:
    """Whether a tensor has values; within a loop that an engine traces, it has none."""
    if not hasattr(value, "dtype"):
        return False
    if keras.backend.backend() == "tensorflow":
        return hasattr(value, "numpy") or hasattr(value, "dense_shape")
    if keras.backend.backend() == "jax":
        import jax

        return not isinstance(value, jax.core.Tracer)
    return True


def _as_array(value: Any) -> np.ndarray:
    # Sparse and ragged ones become dense.
    return np.asarray(keras.ops.convert_to_numpy(value))


def _traced(model: Any, inputs: Any, layers: Sequence[Any], by_engine: bool) -> Outcome:
    """Traces the model with JAX and computes the traced program."""
    import jax

    from sepconv.engines.jax.compat import trace_state
    from sepconv.models.jaxpr import evaluate

    arrays = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    seen: list[tuple[Any, int]] = []

    def compute(*tensors: Any) -> list[Any]:
        outer = trace_state()
        extra: list[Any] = []

        def note(layer: Any, given: Any, output: Any) -> None:
            # Tensors inside a loop cannot be read outside of it.
            if trace_state() == outer:
                leaves = [x for x in keras.tree.flatten(output) if hasattr(x, "dtype")]
                extra.extend(leaves)
                seen.append((layer, len(leaves)))

        with watched(layers, note):
            outputs = _call(model, keras.tree.pack_sequence_as(inputs, tensors))
        return [*(x for x in keras.tree.flatten(outputs) if x is not None), *extra]

    program = jax.make_jaxpr(compute)(*arrays)
    results = list(evaluate(program, arrays, by_engine=by_engine))
    noted = []
    for layer, count in reversed(seen):
        noted.append(LayerOutput(layer, results[len(results) - count :]))
        del results[len(results) - count :]
    return Outcome(results, noted[::-1])
