"""Errors that are promised: a function may raise them about models that have a certain feature."""

from __future__ import annotations

import re
from typing import NamedTuple

import keras

from generated_models.own import CUSTOM_OBJECTS


class Refusal(NamedTuple):
    """A documented error.

    Attributes:
        functions: which raise it.
        kind: its class.
        pattern: of its message.
        feature: what the model must have for it; see `Draw.features`. Empty for any model.
        reason: why it is right.
    """

    functions: tuple[str, ...]
    kind: type[Exception]
    pattern: str
    feature: str
    reason: str
    #: Whether it is right only where Keras cannot make the model anew either.
    keras_too: bool = False


REFUSALS = (
    Refusal(
        ("compile",),
        ValueError,
        r"^The layer '[^']+' of the class \w+ cannot be compiled: ",
        "",
        "a layer that has no counterpart in a program",
    ),
    Refusal(
        ("compile",),
        ValueError,
        "^The model '[^']+' must compute in float32 or (in )?float64",
        "",
        "a program computes in one dtype",
    ),
    Refusal(
        ("optimize", "compile"),
        TypeError,
        "model must be a Sequential or Functional Keras model",
        "subclassed",
        "the layers of a call of one's own cannot be seen",
    ),
    Refusal(
        ("factorize",),
        ValueError,
        "A model must be Sequential or Functional, without a constructor of its own",
        "subclassed",
        "a constructor of one's own makes the layers that would be replaced",
    ),
    Refusal(
        ("accelerate", "to_stock", "factorize"),
        ValueError,
        "cannot be copied, which takes a config",
        "no config",
        "a layer that has no get_config cannot be made anew",
    ),
    Refusal(
        ("accelerate", "to_stock", "factorize"),
        ValueError,
        "cannot be copied, which takes a config",
        "config with layers",
        "Keras cannot make a subclassed model or a wrapper anew from its own config",
        keras_too=True,
    ),
)


def refusal_of(function, error, case):
    """The documented reason for an error about a model, or None."""
    for refusal in REFUSALS:
        if (
            function in refusal.functions
            and isinstance(error, refusal.kind)
            and refusal.feature in ("", *case.features)
            and re.search(refusal.pattern, str(error))
            and not (refusal.keras_too and _keras_copies(case.model))
        ):
            return refusal.reason
    return None


def _keras_copies(model):
    """Whether Keras makes a model like this one from what it writes into a file."""
    try:
        with keras.saving.custom_object_scope(CUSTOM_OBJECTS):
            config = keras.saving.serialize_keras_object(model)
            config.pop("compile_config", None)
            keras.saving.deserialize_keras_object(config, safe_mode=False)
    except Exception:
        return False
    return True
