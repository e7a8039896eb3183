"""Copies Keras objects with everything that they hold: `Copier`.

A config does not have all that an object holds: what was adapted, looked up, quantized or set by
hand, and functions without a name, are missing. So objects are copied attribute by attribute, as
`copy.deepcopy` does. (Keras' own classes turn that into writing and reading a file.) Four things
are special:

- Functions are shared, except those that refer to a part of the model, by a closure or as a method.
  These are copied and refer to the part's copy.
- The calls of a layer are copied where they belong to models that are copied too.
- The ids of objects, by which Keras finds variables, are replaced by those of the copies.
- No function recurses along a graph, since a network may be deeper than Python's stack.
"""

from __future__ import annotations

import copyreg
import functools
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras.src.ops.function import make_node_key
from keras.src.ops.node import KerasHistory, Node

from sepconv.models.duplicate_engines import Copying, engine_kinds
from sepconv.models.kinds import is_container, is_plain, referents, shared_types

__all__ = ["COMPILED", "CannotCopyError", "Copier"]

#: Attributes that `compile` sets. They are not copied with a model.
COMPILED = (
    "optimizer",
    "loss",
    "compiled",
    "steps_per_execution",
    "stop_training",
    "_compile_config",
    "_compile_loss",
    "_compile_metrics",
    "_compiled_trainable_state",
    "_jit_compile",
    "_loss_tracker",
    "_run_eagerly",
)
#: Attributes that a model has from running: compiled functions, and JAX's state of a step.
_TRANSIENT = (
    "train_function",
    "test_function",
    "predict_function",
    "_eval_epoch_iterator",
    "_jax_state",
    "_initial_epoch",
)
#: Attributes in which TensorFlow lists those that are saved with an object.
_TRACKED = ("_self_unconditional_checkpoint_dependencies", "_self_unconditional_dependency_names")
_LOCKS = {type(make()): make for make in (threading.Lock, threading.RLock)}
#: How deep, and over how many values at each depth, a function's references are searched for parts
#: of the model.
_DEPTH, _WIDTH = 6, 1000


class CannotCopyError(ValueError):
    """Something can be neither copied nor shared.

    Attributes:
        owner: the layer that holds it, or None.
    """

    def __init__(self, thing: Any, owner: Any, reason: str) -> None:
        super().__init__(f"it holds {type(thing).__module__}.{type(thing).__name__}: {reason}")
        self.owner = owner


class Copier(Copying):
    """Copies objects, each once, also over several calls.

    Args:
        parts: objects that functions must not share with the original: the model's layers and
            variables.
        copies: pairs of objects and their existing copies, whose contents are left as they are.

    Example:
        >>> layer = keras.layers.Dense(2, activation=lambda x: x + 1)
        >>> copy = Copier([layer]).copy(layer)
        >>> copy is layer, copy.activation is layer.activation
        (False, True)
    """

    def __init__(self, parts: Iterable[Any] = (), copies: Iterable[tuple[Any, Any]] = ()) -> None:
        self._kept: list[Any] = []  # keeps objects alive, since ids are reused
        self._copies: dict[int, Any] = {}
        self._parts = {id(part) for part in parts}
        self._operations: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Any, Any]] = []
        self._keyed: list[Any] = []
        # Of TensorFlow's variables and of calls, which serve as ids.
        self._names: dict[str, str] = {}
        self._later: list[tuple[Callable[[Any, Any], None], Any, Any, Any]] = []
        self._owner: Any = None
        self._shared = shared_types()
        self._makers = self._kinds()
        for old, new in copies:
            self.remember(old, new)
            if isinstance(old, keras.Operation):
                self._operations.append((old, new))

    def copy(self, thing: Any) -> Any:
        """The copy of an object. The two share nothing that can change.

        Raises:
            CannotCopyError: something in it cannot be copied, such as an open file.
        """
        result = self.copy_part(thing)
        self._finish()
        return result

    def copy_attributes(self, old: Any, new: Any, names: Iterable[str]) -> None:
        """Copies attributes that were left out of a copy from an object that has them.

        Raises:
            CannotCopyError: something in them cannot be copied.
        """
        self._owner = old
        copies = {name: self.copy_part(vars(old)[name]) for name in names if name in vars(old)}
        self._finish()
        vars(new).update(copies)

    def copied(self, thing: Any) -> Any:
        """The copy that was made of an object, or None."""
        return self._copies.get(id(thing))

    # ---- order

    def remember(self, old: Any, new: Any) -> Any:
        """See `Copying`."""
        self._kept.append(old)
        self._copies[id(old)] = new
        return new

    def rename(self, old: str, new: str) -> None:
        """See `Copying`."""
        self._names[old] = new

    def note_keys(self, container: Any) -> None:
        """See `Copying`."""
        self._keyed.append(container)

    def _defer(self, fill: Callable[[Any, Any], None], old: Any, new: Any, owner: Any) -> Any:
        self._later.append((fill, old, new, owner))
        return self.remember(old, new)

    def _finish(self) -> None:
        """Fills the objects that were made empty, then sets what depends on all of them."""
        while self._later:
            fill, old, new, self._owner = self._later.pop()
            fill(old, new)
        self._owner = None
        self._connect()
        for container in self._keyed:
            self._replace_ids(container)
        self._keyed.clear()

    def _connect(self) -> None:
        """Connects copied operations and tensors with the copied calls that belong to them."""
        positions: dict[int, int] = {}
        for old, new in self._operations:
            calls = [node for node in old._inbound_nodes if id(node) in self._copies]
            positions.update({id(node): index for index, node in enumerate(calls)})
            for index, node in enumerate(old._inbound_nodes):
                if id(node) in positions:
                    key = make_node_key(new, positions[id(node)])
                    self.rename(make_node_key(old, index), key)
            new.__dict__["_inbound_nodes"] = [self._copies[id(node)] for node in calls]
            new.__dict__["_outbound_nodes"] = [
                self._copies[id(node)] for node in old._outbound_nodes if id(node) in self._copies
            ]
        for old, new in self._tensors:
            operation, index, output = old._keras_history
            history = KerasHistory(None, 0, 0)
            if operation is not None and index < len(operation._inbound_nodes):
                node = operation._inbound_nodes[index]
                if id(node) in positions:
                    copy = self._copies[id(operation)]
                    history = KerasHistory(copy, positions[id(node)], output)
            new._keras_history = history
        self._operations.clear()
        self._tensors.clear()

    def _replace_ids(self, container: Any) -> None:
        """Replaces the originals' ids by the copies' in a container, in the same order."""

        def current(key: Any) -> Any:
            if type(key) is int and key in self._copies:
                return id(self._copies[key])
            return self._names.get(key, key) if type(key) is str else key

        if isinstance(container, set):
            keys = {current(key) for key in container}
            if keys != container:
                set.clear(container)
                set.update(container, keys)
        elif any(current(key) is not key for key in container):
            items = [(current(key), value) for key, value in container.items()]
            container.clear()
            for key, value in items:
                container[key] = value

    # ---- how objects of each kind are copied

    def copy_part(self, thing: Any) -> Any:
        """See `Copying`."""
        if isinstance(thing, self._shared):
            return thing
        if id(thing) in self._copies:
            return self._copies[id(thing)]
        for kinds, make in self._makers:
            if isinstance(thing, kinds):
                return make(thing)
        return self._object(thing)

    def _kinds(self) -> list[tuple[Any, Callable[[Any], Any]]]:
        """Kinds of objects with the functions that copy them; the first that fits is used."""
        return [
            (keras.Variable, self._variable),
            (keras.KerasTensor, self._keras_tensor),
            (keras.Operation, self._operation),
            (Node, lambda node: self._defer(self._fill, node, _empty(node), self._owner)),
            (types.FunctionType, self._function),
            (types.MethodType, self._method),
            (np.ndarray, self._array),
            (weakref.ref, self._reference),
            (tuple(_LOCKS), lambda lock: self.remember(lock, _LOCKS[type(lock)]())),
            *engine_kinds(self),
            (tuple, self._tuple),
            (list, self._list),
            (dict, self._dict),
            ((set, frozenset), self._set),
        ]

    def _object(self, thing: Any) -> Any:
        """Copies an object of another kind in the way that its class defines."""
        kind = type(thing)
        if callable(thing) and hasattr(thing, "__wrapped__"):  # an engine's wrapper of a function
            if not self._refers(thing.__wrapped__):
                return thing
            reason = "it is compiled from a function that refers to the model"
            raise CannotCopyError(thing, self._owner, reason)
        if is_plain(kind):
            return self._defer(self._fill, thing, _empty(thing), self._owner)
        try:
            if hasattr(kind, "__deepcopy__"):
                return self.remember(thing, thing.__deepcopy__(self._copies))
            return self._reduced(thing, thing.__reduce_ex__(4))
        except CannotCopyError:
            raise
        except Exception as error:  # a user's own class may raise anything
            raise CannotCopyError(thing, self._owner, str(error)) from error

    def _reduced(self, thing: Any, reduced: Any) -> Any:
        """An object made of the values that `pickle` would make it of."""
        if isinstance(reduced, str):  # a global object
            return thing
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        new = self.remember(thing, make(*(self.copy_part(value) for value in arguments)))
        if state is not None:
            state = self.copy_part(state)
            if hasattr(new, "__setstate__"):
                new.__setstate__(state)
            else:
                attributes, slots = state if isinstance(state, tuple) else (state, None)
                vars(new).update(attributes or {})
                for name, value in (slots or {}).items():
                    setattr(new, name, value)
        for item in items or ():
            new.append(self.copy_part(item))
        for key, value in pairs or ():
            new[self.copy_part(key)] = self.copy_part(value)
        return new

    def _fill(self, old: Any, new: Any) -> None:
        """Gives an empty object the attributes of another."""
        skipped: tuple[str, ...] = ()
        if isinstance(old, keras.Model):
            _synchronize(old)
            skipped = (*COMPILED, *_TRANSIENT)
            blank = _blank_model()
            new.__dict__.update({name: blank[name] for name in skipped if name in blank})
        if isinstance(old, keras.Operation):
            skipped = (*skipped, "_inbound_nodes", "_outbound_nodes")
        if isinstance(old, keras.KerasTensor):
            skipped = ("_keras_history",)
        for name, value in getattr(old, "__dict__", {}).items():
            if name in _TRACKED and isinstance(old, keras.Model):
                value = _without(value, skipped)
            if name not in skipped:
                new.__dict__[name] = self.copy_part(value)
        for name in copyreg._slotnames(type(old)):  # type: ignore[attr-defined]
            if hasattr(old, name):
                object.__setattr__(new, name, self.copy_part(getattr(old, name)))

    # ---- Keras' objects

    def _operation(self, old: Any) -> Any:
        new = _empty(old)
        self._operations.append((old, new))
        return self._defer(self._fill, old, new, old)

    def _keras_tensor(self, old: Any) -> Any:
        new = _empty(old)
        if hasattr(old, "_keras_history"):
            self._tensors.append((old, new))
        return self._defer(self._fill, old, new, self._owner)

    def _variable(self, old: Any) -> Any:
        new = self.remember(old, _empty(old))
        for name, value in vars(old).items():
            if name != "_value":
                new.__dict__[name] = self.copy_part(value)
        value = vars(old).get("_value")
        if keras.backend.backend() == "jax" and value is not None:
            # A buffer of its own, since JAX donates those of a step's inputs.
            value = keras.ops.copy(value)
        else:
            value = self.copy_part(value)
        new.__dict__["_value"] = value
        return new

    # ---- Python's objects

    def _array(self, old: Any) -> Any:
        new = self.remember(old, old.copy())
        if old.dtype == object:
            for index, value in np.ndenumerate(old):
                new[index] = self.copy_part(value)
        return new

    def _tuple(self, old: Any) -> Any:
        values = [self.copy_part(value) for value in old]
        if id(old) in self._copies:  # it contains itself
            return self._copies[id(old)]
        if all(new is value for new, value in zip(values, old, strict=True)):
            return old
        kind = type(old)
        new = kind._make(values) if hasattr(kind, "_make") else tuple.__new__(kind, values)
        return self.remember(old, new)

    def _list(self, old: Any) -> Any:
        new = self.remember(old, _blank(old))
        list.extend(new, [self.copy_part(value) for value in list.__iter__(old)])
        return self._with_attributes(old, new)

    def _dict(self, old: Any) -> Any:
        if not is_container(type(old), dict, OrderedDict):
            return self._reduced(old, old.__reduce_ex__(4))
        new = self.remember(old, _blank(old))
        put = OrderedDict.__setitem__ if isinstance(old, OrderedDict) else dict.__setitem__
        for key, value in list(dict.items(old)):
            put(new, self.copy_part(key), self.copy_part(value))
        if any(type(key) in (int, str) for key in dict.keys(old)):
            self.note_keys(new)
        return self._with_attributes(old, new)

    def _set(self, old: Any) -> Any:
        values = [self.copy_part(value) for value in old]
        kind = type(old)
        if isinstance(old, frozenset):
            return self.remember(old, kind(values))
        new = self.remember(old, _blank(old))
        set.update(new, values)
        if any(type(value) in (int, str) for value in values):
            self.note_keys(new)
        return self._with_attributes(old, new)

    def _with_attributes(self, old: Any, new: Any) -> Any:
        for name, value in getattr(old, "__dict__", {}).items():
            new.__dict__[name] = self.copy_part(value)
        return new

    def _reference(self, old: Any) -> Any:
        target = old()
        return weakref.ref(self.copy_part(target)) if self._refers(target) else old

    def _method(self, old: Any) -> Any:
        receiver = self.copy_part(old.__self__)
        return old if receiver is old.__self__ else types.MethodType(old.__func__, receiver)

    def _function(self, old: Any) -> Any:
        if not self._refers(old):
            return old
        cells = tuple(self._cell(cell) for cell in old.__closure__ or ())
        new = types.FunctionType(old.__code__, old.__globals__, old.__name__, None, cells or None)
        self.remember(old, new)
        for name in ("__defaults__", "__kwdefaults__"):
            setattr(new, name, self._copy_within(getattr(old, name)))
        for name in ("__qualname__", "__module__", "__doc__", "__annotations__"):
            setattr(new, name, getattr(old, name))
        new.__dict__.update({name: self._copy_within(value) for name, value in vars(old).items()})
        return new

    def _copy_within(self, value: Any) -> Any:
        """An object that a function refers to: copied if it is a part of the model, else shared."""
        return self.copy_part(value) if self._refers(value) else value

    def _cell(self, old: Any) -> Any:
        if id(old) in self._copies:
            return self._copies[id(old)]
        if not self._refers(old):
            return old
        new = self.remember(old, types.CellType())
        new.cell_contents = self.copy_part(old.cell_contents)
        return new

    def _refers(self, thing: Any) -> bool:
        """Whether a value is a part of the model, or refers to one within a few steps."""
        seen: set[int] = set()
        values = [thing]
        for _ in range(_DEPTH):
            further: list[Any] = []
            for value in values:
                if isinstance(value, self._shared) or id(value) in seen:
                    continue
                if id(value) in self._parts or id(value) in self._copies:
                    return True
                seen.add(id(value))
                further += referents(value)
            values = further[:_WIDTH]
        return False


def _blank(container: Any) -> Any:
    """An empty container of another's class, made without its constructor."""
    kind: Any = type(container)
    return kind.__new__(kind)


def _without(tracked: Any, names: Iterable[str]) -> Any:
    """TensorFlow's list of an object's attributes, without some of them."""
    if isinstance(tracked, dict):
        return {name: value for name, value in tracked.items() if name not in names}
    return [reference for reference in tracked if reference.name not in names]


def _empty(thing: Any) -> Any:
    return object.__new__(type(thing))


@functools.cache
def _blank_model() -> dict[str, Any]:
    """The attributes of a model that was never compiled."""
    return dict(vars(keras.Model(name="blank")))


def _synchronize(model: Any) -> None:
    """Writes values that only a step under way holds, on JAX, into the model's variables."""
    if vars(model).get("_jax_state") and hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
