"""Makes layers from their configs, with the state that they save: `rebuild`.

It is for layers that hold something that cannot be copied. A layer is made of its `get_config` and
its build's config; its variables come from `save_own_variables`, and other saved data, such as a
vocabulary, from `save_assets`, as in Keras' files.
"""

from __future__ import annotations

import inspect
import tempfile
from typing import Any

import keras
from keras.src.models.functional import Functional

__all__ = ["rebuild"]


def rebuild(layer: Any) -> list[tuple[Any, Any]]:
    """Makes a layer or operation like another, with its layers and variables.

    Args:
        layer: any layer, model or operation.

    Returns:
        Pairs of old and new: the layer first, then each layer and variable within it.

    Raises:
        ValueError: the new one has other layers or variables. The layer's class may raise other
            exceptions.
    """
    with keras.saving.custom_object_scope(_own_objects(layer)):
        if isinstance(layer, keras.Model):
            _check_config(layer)
            config = keras.saving.serialize_keras_object(layer)
            config.pop("compile_config", None)
            new = keras.saving.deserialize_keras_object(config, safe_mode=False)
        else:
            new = type(layer).from_config(layer.get_config())
    if not isinstance(layer, keras.layers.Layer):
        return [(layer, new)]
    if layer.built and not new.built:
        new.build_from_config(layer.get_build_config())
    olds, news = layer._flatten_layers(), new._flatten_layers()
    if [type(part) for part in olds] != [type(part) for part in news]:
        raise ValueError("what its config makes has other layers, or is not built")
    pairs = list(zip(olds, news, strict=True))
    for old, copy in pairs:
        _copy_state(old, copy)
    variables, copies = layer.variables, new.variables
    if [v.shape for v in variables] != [v.shape for v in copies]:
        raise ValueError(f"what its config makes has {len(copies)} variables, not the same")
    for variable, copy in zip(variables, copies, strict=True):
        copy.assign(keras.ops.copy(variable.value))
        copy.trainable = variable.trainable
        copy._name, copy._path = variable.name, variable.path
    if keras.backend.backend() == "torch":
        for _, copy in pairs:
            copy._track_variables()
    return [*pairs, *zip(variables, copies, strict=True)]


def _copy_state(old: Any, new: Any) -> None:
    """Copies the state that a layer itself saves, and attributes set after its construction."""
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    if store:
        new.load_own_variables(store)
    if hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory(prefix="sepconv-") as folder:
            old.save_assets(folder)
            new.load_assets(folder)
    # A subclassed model's constructor gives its layers new names.
    new.name = old.name
    if new.dtype_policy != old.dtype_policy:
        new.dtype_policy = old.dtype_policy
    new.supports_masking = old.supports_masking
    if new.trainable != old.trainable:
        new.trainable = old.trainable


def _own_objects(layer: Any) -> dict[str, Any]:
    """The classes and functions in a layer that Keras may not know by name."""
    objects: dict[str, Any] = {}
    parts = layer._flatten_layers() if isinstance(layer, keras.layers.Layer) else [layer]
    for part in parts:
        for thing in (part, *vars(part).values()):
            named = thing if inspect.isfunction(thing) or inspect.isclass(thing) else type(thing)
            if not named.__module__.startswith(("builtins", "keras.", "sepconv.")):
                objects[named.__name__] = named
    return objects


def _check_config(model: keras.Model) -> None:
    """Raises where Keras would make a config of the default values of a constructor's arguments."""
    bases = (keras.Model, Functional, keras.Sequential)
    if any(type(model).get_config is base.get_config for base in bases):
        parameters = inspect.signature(type(model).__init__).parameters.values()
        variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        names = {p.name for p in parameters if p.kind not in variable}
        names -= {"self", "name", "trainable", "dtype"}
        if names:
            raise NotImplementedError(
                f"{type(model).__name__} has no get_config that says its {sorted(names)}"
            )
