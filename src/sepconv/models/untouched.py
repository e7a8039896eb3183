"""Undoes the side effects of a computation on models and on the global state of the process.

In `untouched`, Keras' variables are protected by a `keras.StatelessScope`, which drops assignments.
Everything else is saved before and restored after: the attributes of layers and the lists in them,
variables and modules of an engine's own, the random generators of Python, NumPy, Keras and the
engine, and Keras' counters of names.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import global_seed_generator

__all__ = ["restored", "untouched"]


@contextmanager
def untouched(model: Any, values: Sequence[tuple[Any, Any]] = ()) -> Iterator[None]:
    """A context in which a model may be called; side effects are undone at its end.

    Args:
        model: a Keras model.
        values: pairs of a variable of it and an array to use as its value.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5)])
        >>> before = model.non_trainable_variables[0].numpy()
        >>> with untouched(model):
        ...     result = model(keras.ops.ones((1, 2)), training=True)
        >>> bool((model.non_trainable_variables[0].numpy() == before).all())
        True
    """
    with ExitStack() as undo:
        undo.callback(_note_all(model))
        undo.enter_context(keras.StatelessScope(values, initialize_variables=False))
        yield


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """As `untouched`, for calls that compile functions, which assign to variables for good.

    The values of Keras' variables are restored at the end, also of those that Keras does not count
    among the model's: the states of a recurrent layer.
    """
    held = [v for layer in model._flatten_layers() for v in _values(layer)]
    variables = [v for v in (*model.variables, *held) if isinstance(v, keras.Variable)]
    values = [(v, ops.copy(v.value)) for v in {id(v): v for v in variables}.values()]
    with ExitStack() as undo:
        undo.callback(_note_all(model))
        try:
            yield
        finally:
            for variable, value in values:
                variable.assign(value)


def _note_all(model: Any) -> Callable[[], None]:
    """Saves everything but the values of Keras' variables; returns a function that restores it."""
    layers = model._flatten_layers()
    with ExitStack() as undo:
        for holder in (global_state.GLOBAL_STATE_TRACKER, *layers):
            undo.callback(_note(vars(holder)))
        for note in (_note_python, _note_numpy, _note_tensorflow, _note_torch):
            undo.callback(note(layers))
        # Made here, since within a scope its first use would come too late.
        global_seed_generator()
        return undo.pop_all().close


def _note(attributes: dict[str, Any]) -> Callable[[], None]:
    """Saves attributes, and lists, dicts and sets in them; returns what restores them."""
    before = dict(attributes)
    contents = [(c, list(_items(c))) for v in before.values() for c in _containers(v)]

    def put_back() -> None:
        for container, items in contents:
            now = list(_items(container))
            if len(now) != len(items) or any(_differ(*p) for p in zip(now, items, strict=True)):
                _refill(container, items)
        for name in attributes.keys() - before.keys():
            del attributes[name]
        # Without __setattr__, which would track the value.
        for name, value in before.items():
            if attributes.get(name) is not value:
                attributes[name] = value

    return put_back


def _containers(value: Any) -> list[Any]:
    """The lists, dicts and sets that a value is, or wraps on TensorFlow."""
    if not isinstance(value, list | dict | set):
        return []
    parts = [value, getattr(value, "__wrapped__", None), getattr(value, "_storage", None)]
    # A wrapper pretends to be a dict; its type does not.
    return [part for part in parts if issubclass(type(part), list | dict | set)]


def _items(container: Any) -> Iterable[Any]:
    return dict.items(container) if isinstance(container, dict) else container


def _differ(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) == 2:
        return a[0] is not b[0] or a[1] is not b[1]
    return a is not b


def _refill(container: Any, items: list[Any]) -> None:
    """Uses the built-in classes' methods: those of Keras' subclasses track, and may be locked."""
    if isinstance(container, list):
        list.clear(container)
        list.extend(container, items)
    elif isinstance(container, dict):
        dict.clear(container)
        dict.update(container, items)
    else:
        set.clear(container)
        set.update(container, items)


def _note_python(layers: Any) -> Callable[[], None]:
    state = random.getstate()
    return lambda: random.setstate(state)


def _note_numpy(layers: Any) -> Callable[[], None]:
    state = np.random.get_state()
    return lambda: np.random.set_state(state)


def _nothing() -> None:
    pass


def _note_tensorflow(layers: Any) -> Callable[[], None]:
    """Saves TensorFlow's generators, and its variables outside of Keras'."""
    if keras.backend.backend() != "tensorflow":
        return _nothing
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    eager = context.context()
    generator = getattr(eager, "_rng", None)
    state = None if generator is None else generator.getstate()
    seed = getattr(eager, "_seed", None)
    shared = stateful_random_ops.global_generator
    variables = [v for layer in layers for v in _values(layer) if isinstance(v, tf.Variable)]
    if shared is not None:
        variables.append(shared.state)
    values = [np.array(v.numpy()) for v in variables]

    def put_back() -> None:
        for variable, value in zip(variables, values, strict=True):
            if not np.array_equal(variable.numpy(), value):
                variable.assign(value)
        stateful_random_ops.global_generator = shared
        eager._seed = seed
        eager._rng = generator
        if generator is not None:
            generator.setstate(state)

    return put_back


def _note_torch(layers: Any) -> Callable[[], None]:
    """Saves PyTorch's generators, and modes and buffers of modules outside of Keras'."""
    # Keras' layers that hold a module of PyTorch exist on PyTorch only.
    torch = sys.modules.get("torch")
    if torch is None:
        return _nothing
    state = torch.get_rng_state()
    devices = torch.cuda.is_available() and torch.cuda.is_initialized()
    device_states = torch.cuda.get_rng_state_all() if devices else []
    modules = [layer for layer in layers if isinstance(layer, torch.nn.Module)]
    modules = list({id(m): m for layer in modules for m in layer.modules()}.values())
    modes = [(module, module.training) for module in modules]
    wrapped = [m for m in modules if not isinstance(m, keras.layers.Layer)]
    buffers = [(b, b.clone()) for module in wrapped for b in module.buffers(recurse=False)]

    def put_back() -> None:
        torch.set_rng_state(state)
        if device_states:
            torch.cuda.set_rng_state_all(device_states)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)

    return put_back


def _values(layer: Any) -> Iterator[Any]:
    """The values of a layer's attributes, and those in lists and dicts among them."""
    for value in vars(layer).values():
        yield value
        if isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
