"""How a `Copier` copies objects of PyTorch and TensorFlow: tensors, variables, tables and more."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sepconv.models.kinds import tensorflow_wrappers

__all__ = ["Copying", "engine_kinds"]


class Copying(Protocol):
    """What these functions need of a `sepconv.models.duplicate.Copier`."""

    def copy_part(self, thing: Any) -> Any:
        """The copy of something that an object holds; it may still be empty."""

    def remember(self, old: Any, new: Any) -> Any:
        """Takes note of an object's copy, and returns it."""

    def rename(self, old: str, new: str) -> None:
        """Takes note of the name of a copy that serves as an id, by that of the original."""

    def note_keys(self, container: Any) -> None:
        """Takes note of a copied container whose keys may be ids, which are replaced at the end."""


def engine_kinds(copier: Copying) -> list[tuple[Any, Callable[[Any], Any]]]:
    """Kinds of objects of the engines that are loaded, with the functions that copy them."""
    torch, tf = sys.modules.get("torch"), sys.modules.get("tensorflow")
    kinds: list[tuple[Any, Callable[[Copying, Any], Any]]] = []
    if torch is not None:
        kinds += [(torch.Tensor, _torch_tensor), (torch.Generator, _torch_generator)]
    if tf is not None and hasattr(tf, "Variable"):
        kinds += [
            (tf.Variable, _tensorflow_variable),
            (tf.types.experimental.PolymorphicFunction, _tensorflow_function),
            (tf.lookup.experimental.MutableHashTable, _tensorflow_table),
            (tensorflow_wrappers(), _tensorflow_wrapper),
            (tf.random.Generator, _tensorflow_generator),
        ]
    return [(kind, partial(make, copier)) for kind, make in kinds]


def _torch_tensor(copier: Copying, old: Any) -> Any:
    import torch

    new = old.detach().clone()
    if isinstance(old, torch.nn.Parameter):
        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
    elif old.is_leaf:
        new.requires_grad_(old.requires_grad)
    return copier.remember(old, new)


def _torch_generator(copier: Copying, old: Any) -> Any:
    import torch

    new = torch.Generator(device=old.device)
    new.set_state(old.get_state())
    return copier.remember(old, new)


def _tensorflow_variable(copier: Copying, old: Any) -> Any:
    import tensorflow as tf

    strategy = getattr(old, "_distribute_strategy", None)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        new = tf.Variable(
            old,
            dtype=old.dtype,
            trainable=old.trainable,
            name=old.name.split(":")[0],
            aggregation=old.aggregation,
            synchronization=old.synchronization,
        )
    copier.rename(old._unique_id, new._unique_id)
    return copier.remember(old, new)


def _tensorflow_function(copier: Copying, old: Any) -> Any:
    function = copier.copy_part(old.python_function)
    return old if function is old.python_function else old._clone(function)


def _tensorflow_wrapper(copier: Copying, old: Any) -> Any:
    """A dictionary or tuple that TensorFlow has wrapped as an attribute's value."""
    if isinstance(old, dict):
        pairs = [(copier.copy_part(key), copier.copy_part(value)) for key, value in old.items()]
        new = type(old)(dict(pairs))
        copier.note_keys(new)
    else:
        new = type(old)(tuple(copier.copy_part(value) for value in old))
    return copier.remember(old, new)


def _tensorflow_table(copier: Copying, old: Any) -> Any:
    new = type(old)(old.key_dtype, old.value_dtype, old._default_value)
    new.insert(*old.export())
    return copier.remember(old, new)


def _tensorflow_generator(copier: Copying, old: Any) -> Any:
    new = type(old).from_state(old.state.read_value(), old.algorithm)
    return copier.remember(old, new)
