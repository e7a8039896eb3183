"""Kinds of objects for `duplicate`: shared, plain or containers; and the objects they refer to."""

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

#: Types of objects that are shared: they cannot change, or are no part of a model.
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
#: The same for classes of engines, by module and name.
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
    """The types whose objects are shared, including those of loaded engines."""
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
    """The objects that an object refers to, as far as a function may use them."""
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
    """Whether objects of a class are just their attributes, and define no way to be copied."""
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
    except TypeError:  # it has state outside of Python
        return False
    return True


def is_container(kind: Any, *bases: Any) -> bool:
    """Whether objects of a container's class are only their contents and attributes."""
    return any(kind.__reduce__ is base.__reduce__ for base in bases)


def tensorflow_wrappers() -> tuple[type, ...]:
    """The classes by which TensorFlow wraps containers in attributes."""
    import tensorflow as tf

    module = tf.Module()
    module.dictionary, module.pair = {}, (tf.Module(),)
    kinds = type(module.dictionary), type(module.pair)
    return tuple(kind for kind in kinds if kind not in (dict, tuple))
