"""What objects are to a copy: shared, plain or containers, and what they lead to."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
from collections.abc import Iterable
from typing import Any

import numpy as np
from keras.src.saving.keras_saveable import KerasSaveable

__all__ = ["is_container", "is_plain", "referents", "shared_types", "tensorflow_wrappers"]

#: Objects of these types are shared: nobody can change them, or they are no part of any model.
_SHARED = (
    type(None),
    type(Ellipsis),
    type(NotImplemented),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    slice,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    property,
    re.Pattern,
    np.dtype,
    np.generic,
    np.ufunc,
    inspect.Signature,
    inspect.Parameter,
)
#: Classes of engines, by their module and name, whose objects are shared as those of `_SHARED` are.
_SHARED_OF_ENGINES = {
    "jax": ("Array", "sharding.Sharding", "Device", "core.Tracer"),
    "tensorflow": (
        "Tensor",
        "DType",
        "TensorShape",
        "TypeSpec",
        "Graph",
        "RaggedTensor",
        "SparseTensor",
        "distribute.Strategy",
        "lookup.StaticHashTable",
        "lookup.StaticVocabularyTable",
        "lookup.KeyValueTensorInitializer",
        "lookup.TextFileInitializer",
    ),
    "torch": ("dtype", "device", "layout", "memory_format", "Size"),
}


def shared_types() -> tuple[type, ...]:
    """The types whose objects are shared, of the engines that are loaded too."""
    found = list(_SHARED)
    for engine, names in _SHARED_OF_ENGINES.items():
        module = sys.modules.get(engine)
        for name in names if module is not None else ():
            place: Any = module
            for part in name.split("."):
                place = getattr(place, part, None)
            if isinstance(place, type):
                found.append(place)
    return tuple(found)


def referents(thing: Any) -> Iterable[Any]:
    """What an object leads to, as far as a function may use it."""
    if isinstance(thing, types.CellType):
        try:
            return (thing.cell_contents,)
        except ValueError:  # empty
            return ()
    if isinstance(thing, types.FunctionType):
        defaults = thing.__defaults__, thing.__kwdefaults__, vars(thing).get("__wrapped__")
        return (*(thing.__closure__ or ()), *defaults)
    if isinstance(thing, types.MethodType):
        return (thing.__self__,)
    if isinstance(thing, functools.partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, dict):
        return tuple(thing.values())
    if isinstance(thing, (list, tuple, set, frozenset)):
        return tuple(thing)
    return tuple(getattr(thing, "__dict__", {}).values())


def is_plain(kind: Any) -> bool:
    """Whether an object of a class is its attributes, and says nothing else of how to copy it."""
    own = "__deepcopy__", "__getnewargs__", "__getnewargs_ex__"
    if (
        kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__reduce__ not in (object.__reduce__, KerasSaveable.__reduce__)
        or getattr(kind, "__getstate__", None) is not getattr(object, "__getstate__", None)
        or any(hasattr(kind, name) for name in own)
    ):
        return False
    try:
        object.__new__(kind)
    except TypeError:  # it is made of more than Python can see
        return False
    return True


def is_container(kind: Any, *bases: Any) -> bool:
    """Whether an object of a container's class is what it contains, and attributes."""
    return any(kind.__reduce__ is base.__reduce__ for base in bases)


def tensorflow_wrappers() -> tuple[type, ...]:
    """The classes by which TensorFlow follows what becomes of attributes that are containers."""
    import tensorflow as tf

    module = tf.Module()
    module.dictionary, module.pair = {}, (tf.Module(),)
    kinds = type(module.dictionary), type(module.pair)
    return tuple(kind for kind in kinds if kind not in (dict, tuple))
