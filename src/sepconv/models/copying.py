"""A copy of a model: layers and weights of its own, state, random numbers and compilation alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor

from sepconv.models.duplicate import COMPILED, CannotCopyError, Copier
from sepconv.models.rebuild import rebuild
from sepconv.models.warning import warn

__all__ = ["LayerCopier", "copy_model", "is_open", "named_layers", "settle_jit"]

#: Layers to put in the place of others, by the others' ids.
Replacements = Mapping[int, keras.layers.Layer]
_NONE: Replacements = {}


def named_layers(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layers in a model and in its nested models, each once, under its path.

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
    """Whether the layers of a model can be replaced: Sequential, Functional, or derived from one.

    The constructor of a derived class must have no arguments of its own.

    Example:
        >>> is_open(keras.Sequential()), is_open(keras.layers.Dense(3))
        (True, False)
    """
    kind = type(layer)
    if isinstance(layer, keras.Sequential):
        return kind.__init__ is keras.Sequential.__init__
    return isinstance(layer, Functional) and functional_like_constructor(kind)


def copy_model(model: keras.Model, replacements: Replacements = _NONE) -> keras.Model:
    """A model like `model` that shares no state with it, compiled alike.

    The copy has all that the objects hold, also what is in no config; see `duplicate`. Its
    optimizer continues from the state of the model's, but starts from scratch where layers with
    trainable weights were replaced. What the model was compiled with is left out, with a warning,
    where it cannot be copied or the model's class has a `compile` of its own.

    Args:
        model: any Keras model.
        replacements: built layers without layers in them, by the ids of the layers that they
            replace. Those must be in models for which `is_open` is true.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: a layer can neither be copied nor made from its config.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model. Received: {model!r}")
    layers = {id(layer): layer for layer in model._flatten_layers()}
    pairs = [(layers[key], new) for key, new in replacements.items()]
    copier = LayerCopier(model, pairs)
    try:
        copy = copier.copy(model)
        _check(model, copy, replacements)
    except ValueError as error:
        raise ValueError(
            f"model {model.name!r}, a {type(model).__name__}, cannot be copied. {error} "
            "Without a copy, sepconv.patch_keras() makes it compute with sepconv's kernels."
        ) from error
    if replacements and keras.backend.backend() == "torch":
        for layer in copy._flatten_layers():
            if hasattr(layer, "_torch_params"):
                layer._track_variables()
    for old in layers.values():
        if isinstance(old, keras.Model) and old.compiled and id(old) not in replacements:
            _compile_like(copier.copied(old), old, copier, pairs)
    return copy


class LayerCopier:
    """Copies layers of one or more models; where that fails, makes them from their configs.

    Args:
        model: the model that the layers are in, or are.
        pairs: layers and what takes their place.
    """

    def __init__(self, model: Any, pairs: list[tuple[Any, Any]] | None = None) -> None:
        self._parts = _parts(model)
        self._pairs = list(pairs or ())
        self._copier = Copier(self._parts, self._pairs)
        self._rebuilt: set[int] = set()

    def copy(self, layer: Any) -> Any:
        """A copy of a layer or operation, with all its state.

        A layer that holds something that cannot be copied, such as an open file, is made from its
        config, with the variables and assets that it saves.

        Raises:
            ValueError: that fails, too; the message names the layer.
        """
        while True:
            try:
                return self._copier.copy(layer)
            except CannotCopyError as error:
                owner = error.owner if error.owner is not None else layer
                if id(owner) in self._rebuilt:
                    raise
                self._rebuilt.add(id(owner))
                try:
                    self._pairs += rebuild(owner)
                except Exception as failure:
                    raise ValueError(
                        f"The layer {owner.name!r}, a {type(owner).__name__}, can be neither "
                        f"copied, since {error}, nor made from its config, with get_config and "
                        f"from_config of its class: {failure}"
                    ) from failure
            # A new copier, since this one may hold unfinished copies.
            self._copier = Copier(self._parts, self._pairs)

    def copied(self, layer: Any) -> Any:
        """The copy that was made of something, or None."""
        return self._copier.copied(layer)

    def copy_attributes(self, old: Any, new: Any, names: tuple[str, ...]) -> None:
        """See `Copier.copy_attributes`."""
        self._copier.copy_attributes(old, new, names)


def _parts(model: Any) -> list[Any]:
    """The layers and variables of a model, which functions may refer to."""
    if not isinstance(model, keras.layers.Layer):
        return [model]
    layers = model._flatten_layers()
    variables = [v for layer in layers for v in (*layer.variables, *layer._metrics)]
    return [*layers, *variables, *(g for layer in layers for g in layer._seed_generators)]


def _check(model: keras.Model, copy: keras.Model, replacements: Replacements) -> None:
    """Raises where a copy's layers or variables do not match the model's, or are shared with it."""
    olds, news = model._flatten_layers(), copy._flatten_layers()
    if len(olds) != len(news):
        raise ValueError(f"The copy has {len(news)} layers, not {len(olds)}.")
    for old, new in zip(olds, news, strict=True):
        if id(old) in replacements:
            continue
        if old is new or type(old) is not type(new) or old.name != new.name:
            raise ValueError(
                f"The copy has {new.name!r}, a {type(new).__name__}, for {old.name!r}."
            )
        held = {id(v) for v in old.variables}
        if any(id(v) in held for v in new.variables):
            raise ValueError(f"The copy of {old.name!r} shares its variables.")
    same = {id(layer) for layer in replacements.values()}
    states = [
        [
            v.path
            for layer in layers
            if id(layer) not in same | set(replacements)
            for v in layer.variables
        ]
        for layers in (olds, news)
    ]
    if not replacements and states[0] != states[1]:
        raise ValueError(f"The copy has {len(states[1])} variables, not {len(states[0])}.")


# ---- compilation


def _compile_like(
    copy: keras.Model, model: keras.Model, copier: LayerCopier, pairs: list[tuple[Any, Any]]
) -> None:
    if type(model).compile is not keras.Model.compile:
        warn(
            f"{type(model).__name__} has a compile() of its own: call it on the new model.",
        )
        return
    blank = {name: vars(copy)[name] for name in COMPILED if name in vars(copy)}
    try:
        if any(old.trainable_variables for old, _ in pairs):
            names = tuple(name for name in COMPILED if name not in ("optimizer", "_compile_config"))
            copier.copy_attributes(model, copy, names)
            _start_anew(copy, model, copier, pairs)
        else:
            copier.copy_attributes(model, copy, COMPILED)
    except Exception as error:  # a user's own schedule, metric or loss may raise anything
        vars(copy).update(blank)
        warn(
            f"What model {model.name!r} is compiled with cannot be copied: call compile() on the "
            f"new model. {error}",
        )


def _start_anew(
    copy: keras.Model, model: keras.Model, copier: LayerCopier, pairs: list[tuple[Any, Any]]
) -> None:
    """Gives a copy an optimizer like its model's, in its initial state."""
    counterparts = [(old, [copier.copied(old)]) for old in model.variables]
    for old, new in pairs:
        for variable in old.variables:
            # Two kernels take the place of a convolution's.
            kind = variable.name.rsplit("_", 1)[-1]
            kin = [v for v in new.variables if v.name.endswith(kind)]
            counterparts.append((variable, kin))
    optimizer = model.optimizer
    if optimizer is not None:
        with keras.saving.custom_object_scope(_classes(optimizer)):
            optimizer = type(optimizer).from_config(optimizer.get_config())
        _exclude_alike(optimizer, model.optimizer, counterparts)
    vars(copy)["optimizer"] = optimizer
    arguments = {k: v for k, v in model._compile_config.config.items() if k != "optimizer"}
    arguments = {name: copier.copy(value) for name, value in arguments.items()}
    kind = type(model._compile_config)
    vars(copy)["_compile_config"] = kind(optimizer=optimizer, **arguments)


def _classes(optimizer: Any) -> dict[str, type]:
    """The classes of an optimizer and of what it holds, as a config names them."""
    held = [optimizer, *vars(optimizer).values()]
    classes = {type(value).__name__: type(value) for value in held}
    for value in held[1:]:
        if isinstance(value, keras.optimizers.Optimizer):  # within one that scales the loss
            classes |= _classes(value)
    return classes


def _exclude_alike(new: Any, old: Any, counterparts: list[tuple[Any, list[Any]]]) -> None:
    """Excludes from weight decay what another optimizer excludes, which no config says."""
    for name, value in vars(old).items():
        if isinstance(value, keras.optimizers.Optimizer):  # within one that scales the loss
            _exclude_alike(getattr(new, name), value, counterparts)
    if hasattr(old, "_exclude_from_weight_decay"):
        excluded = [
            new_variable
            for variable, kin in counterparts
            if old._var_key(variable) in old._exclude_from_weight_decay
            for new_variable in kin
            if new_variable is not None
        ]
        new.exclude_from_weight_decay(var_list=excluded)
        new._exclude_from_weight_decay_pattern = old._exclude_from_weight_decay_pattern


def settle_jit(model: keras.Model) -> None:
    """Lets XLA compile a model's steps only where it can compile all of its layers."""
    if model.compiled and model.jit_compile:
        supported = all(layer.supports_jit for layer in model._flatten_layers())
        if not supported:
            model.jit_compile = False
            model._compile_config.config["jit_compile"] = False
