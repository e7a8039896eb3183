"""A copy of a model: layers and weights of its own, compilation and random states alike."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor

from sepconv.layers.saving import OURS

__all__ = ["compile_like", "copy_model", "is_open", "named_layers"]

#: Layers to put in the place of others, by the others' ids; the same here and in `compile_like`.
Replacements = Mapping[int, keras.layers.Layer]
_NONE: Replacements = {}


def named_layers(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layers within a model, however deep, each once and under the name that leads to it.

    Example:
        >>> dense = keras.layers.Dense(2, name="dense")
        >>> inner = keras.Sequential([keras.Input((4,), name="x"), dense], name="inner")
        >>> outer = keras.Sequential([keras.Input((4,), name="x"), inner])
        >>> [name for name, _ in named_layers(outer)]
        ['x', 'inner', 'inner/x', 'inner/dense']
    """
    seen = {id(model)}

    def within(layer: keras.layers.Layer, prefix: str) -> Iterator[tuple[str, keras.layers.Layer]]:
        for part in layer._flatten_layers(include_self=False, recursive=False):
            if id(part) not in seen:
                seen.add(id(part))
                yield prefix + part.name, part
                yield from within(part, f"{prefix}{part.name}/")

    return within(model, "")


def is_open(layer: Any) -> bool:
    """Whether it is a model that is taken apart when copied: Sequential, Functional, or derived.

    A derived class must not have a constructor with arguments of its own.

    Example:
        >>> is_open(keras.Sequential()), is_open(keras.layers.Dense(3))
        (True, False)
    """
    kind = type(layer)
    if isinstance(layer, keras.Sequential):
        return kind.__init__ is keras.Sequential.__init__
    return isinstance(layer, Functional) and functional_like_constructor(kind)


def copy_model(model: keras.Model, replacements: Replacements = _NONE) -> keras.Model:
    """A model like `model` that shares no state with it, not compiled.

    Args:
        model: any Keras model whose layers Keras can make from their configs.
        replacements: by the ids of layers of the model, built layers to put in their place, without
            layers inside; those must be in models for which `is_open` holds.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: Keras cannot copy it.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model. Received: {model!r}")
    try:
        with keras.saving.custom_object_scope(_own_objects(model)):
            copy = _structure(model, dict(replacements))
        _copy_state(model, copy, replacements)
    except Exception as error:
        hint = (
            ""
            if replacements
            else ("Without a copy, sepconv.patch_keras() makes it compute with sepconv's kernels. ")
        )
        raise ValueError(
            f"model {model.name!r}, a {type(model).__name__}, cannot be copied, which takes a "
            "config that Keras can make each of its parts from (get_config and from_config of its "
            f"class). {hint}Keras says: {error}"
        ) from error
    return copy


def _own_objects(model: keras.Model) -> dict[str, Any]:
    """The classes and functions in a model that Keras may not find by their names."""
    objects: dict[str, Any] = {}
    for layer in model._flatten_layers():
        for thing in (layer, *vars(layer).values()):
            named = thing if inspect.isfunction(thing) or inspect.isclass(thing) else type(thing)
            if not named.__module__.startswith(("builtins", "keras.", "sepconv.")):
                objects[named.__name__] = named
    return objects


def _structure(layer: Any, copies: dict[int, Any]) -> Any:
    """A new layer or model from the old one's config; a shared one is copied once."""
    if id(layer) in copies:
        return copies[id(layer)]
    if is_open(layer) and isinstance(layer, keras.Sequential):
        parts = layer._flatten_layers(include_self=False, recursive=False)
        copy = type(layer)([_structure(part, copies) for part in parts], name=layer.name)
    elif is_open(layer):
        # A model over the same graph, so that Keras does not copy the compilation too.
        view = keras.Model(layer.input, layer.output, name=layer.name)
        copy = keras.models.clone_model(view, clone_function=lambda part: _structure(part, copies))
        if type(layer) is not Functional:
            copy = type(layer)(copy.input, copy.output, name=layer.name)
    elif isinstance(layer, keras.Model):
        _check_config(layer)
        config = keras.saving.serialize_keras_object(layer)
        config.pop("compile_config", None)
        copy = keras.saving.deserialize_keras_object(config, safe_mode=False)
    elif type(layer) is keras.layers.Lambda:
        # By its config, a function would lose the names that it refers to.
        config = layer.get_config()
        functions = {"function": layer.function, "mask": layer.mask, "arguments": layer.arguments}
        copy = keras.layers.Lambda(**{**config, **functions, "output_shape": layer._output_shape})
    else:
        copy = type(layer).from_config(layer.get_config())
    copies[id(layer)] = copy
    return copy


def _check_config(model: keras.Model) -> None:
    """Raises where Keras would make a config of the defaults of a constructor's arguments."""
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


def _copy_state(model: keras.Model, copy: keras.Model, replacements: Replacements) -> None:
    """Weights, the states of random generators, and what is trainable."""
    layers, copied = model._flatten_layers(), copy._flatten_layers()
    if len(layers) != len(copied):
        raise ValueError("what its config makes has other layers, or is not built")
    for old, new in zip(layers, copied, strict=True):
        if id(old) in replacements:
            continue
        _same_class(old, new)
        # A subclassed model's constructor gives its layers new names.
        new.name = old.name
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    for old, new in _paired_variables(model, copy, replacements):
        new.assign(keras.ops.copy(old.value))  # JAX would share the buffer, and give it away
        new.trainable = old.trainable


def _same_class(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Makes a copied layer ours or Keras', as the old is, where a constructor made it the other."""
    if OURS.get(type(new)) is type(old):
        type(old).become(new)
    elif OURS.get(type(old)) is type(new):
        new.become_stock()
    elif type(old) is not type(new):
        raise ValueError(f"{old.name!r} is a {type(old).__name__}, its copy a {type(new).__name__}")


def _paired_variables(
    model: keras.Model, copy: keras.Model, replacements: Replacements
) -> list[tuple[Any, Any]]:
    """The variables of both but for those of layers that were replaced."""
    gone = [layer for layer in model._flatten_layers() if id(layer) in replacements]
    other = {id(v) for layer in (*gone, *replacements.values()) for v in layer.variables}
    olds, news = ([v for v in m.variables if id(v) not in other] for m in (model, copy))
    if len(olds) != len(news):
        raise ValueError(f"what its config makes has {len(news)} variables, not {len(olds)}")
    pairs = list(zip(olds, news, strict=True))
    for old, new in pairs:
        if old.shape != new.shape:
            raise ValueError(f"{old.path} has the shape {old.shape}, its copy {new.shape}")
    return pairs


def compile_like(copy: keras.Model, model: keras.Model, replacements: Replacements = _NONE) -> None:
    """Compiles a copy of a model as the model is: the same losses, own metrics and optimizer.

    The optimizer goes on from where the model's is, but starts anew where layers with weights to
    train were replaced. A class with a `compile` of its own is left uncompiled, with a warning.
    """
    if not model.compiled:
        return
    if type(model).compile is not keras.Model.compile:
        warnings.warn(
            f"{type(model).__name__} has a compile() of its own: call it on the new model.",
            stacklevel=3,
        )
        return

    def own(metric: Any) -> Any:
        return type(metric).from_config(metric.get_config()) if _is_metric(metric) else metric

    arguments = dict(model._compile_config.config)
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(own, arguments[name])
    arguments["jit_compile"] = model.jit_compile and all(
        layer.supports_jit for layer in copy._flatten_layers()
    )
    optimizer = model.optimizer
    if optimizer is not None:
        pairs = _paired_variables(model, copy, replacements)
        copies = {id(old): new for old, new in pairs}
        arguments["optimizer"] = _copy_optimizer(optimizer, copies)
    # Where it was wanted, the optimizer already scales the loss.
    copy.compile(**arguments, auto_scale_loss=False)


def _is_metric(value: Any) -> bool:
    return isinstance(value, keras.metrics.Metric)


def _copy_optimizer(optimizer: Any, copies: dict[int, Any]) -> Any:
    own = {type(o).__name__: type(o) for o in (optimizer, *vars(optimizer).values())}
    with keras.saving.custom_object_scope(own):
        copy = type(optimizer).from_config(optimizer.get_config())
    if optimizer.built and all(id(v) in copies for v in optimizer._trainable_variables):
        copy.build([copies[id(v)] for v in optimizer._trainable_variables])
        for old, new in zip(optimizer.variables, copy.variables, strict=True):
            new.assign(keras.ops.copy(old.value))
    return copy
