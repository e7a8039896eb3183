"""Reads files of Keras' layers as ours, and files of ours as Keras'."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from sepconv.layers.batch_normalization import BatchNormalization
from sepconv.layers.conv2d import Conv2D
from sepconv.layers.depthwise_conv1d import DepthwiseConv1D
from sepconv.layers.depthwise_conv2d import DepthwiseConv2D
from sepconv.layers.ordinary import layer_refusal
from sepconv.layers.separable_conv1d import SeparableConv1D
from sepconv.layers.separable_conv2d import SeparableConv2D

__all__ = ["OURS", "custom_objects", "load_model", "stock_objects"]

_LAYERS = {
    layer.__name__: layer
    for layer in (
        SeparableConv2D,
        DepthwiseConv2D,
        SeparableConv1D,
        DepthwiseConv1D,
        BatchNormalization,
    )
}

#: Our layers by Keras' classes.
OURS = {layer._stock: layer for layer in (*_LAYERS.values(), Conv2D)}

#: Our layers by every name that Keras has for its own. `Conv2D` is not among them: which of those
#: our kernels compute is known only when the weights are there.
_BY_STOCK_NAME = {
    **_LAYERS,
    "SeparableConvolution1D": SeparableConv1D,
    "SeparableConvolution2D": SeparableConv2D,
}


def custom_objects() -> dict[str, type[keras.layers.Layer]]:
    """Classes for Keras' argument `custom_objects`: our layers, by Keras' names for its own.

    It works for files and configs that name a layer by its class alone: ``.h5`` files, also those
    of Keras 2. In a ``.keras`` file, Keras finds its own layers by their module and does not look
    at `custom_objects`; `load_model` reads both.

    Returns:
        A new dictionary from Keras' names to our classes.

    Example:
        >>> custom_objects()["SeparableConv2D"].__module__
        'sepconv.layers.separable_conv2d'
    """
    return dict(_BY_STOCK_NAME)


def stock_objects() -> dict[str, type[keras.layers.Layer]]:
    """Classes for Keras' argument `custom_objects`, with which our layers in a file load as Keras'.

    It works for ``.keras`` and ``.h5`` files. Where `sepconv` is not installed,
    ``{"sepconv>SeparableConv2D": keras.layers.SeparableConv2D, ...}`` does the same. A layer with
    something that Keras' own lacks, such as explicit padding, raises Keras' error.

    Returns:
        A new dictionary from the names of our layers to Keras' classes.

    Example:
        >>> import keras
        >>> layer = SeparableConv2D(4, 3)
        >>> with keras.saving.custom_object_scope(stock_objects()):
        ...     stock = SeparableConv2D.from_config(layer.get_config())
        >>> type(stock) is keras.layers.SeparableConv2D
        True
    """
    stock = {}
    for layer in OURS.values():
        stock[layer.__name__] = layer._stock
        stock[keras.saving.get_registered_name(layer)] = layer._stock
    return stock


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """`keras.models.load_model`, with Keras' depthwise and separable convolutions as our layers.

    `BatchNormalization` is ours too, and `Conv2D` where `sepconv.layers.Conv2D` computes it.
    Weights, optimizer state and everything else load as they were saved.

    Args:
        filepath: a ``.keras`` or ``.h5`` file, from Keras 3 or Keras 2, on this machine.
        custom_objects: other classes and functions that the file names, as in Keras.
        compile: whether to compile the model as it was when saved.
        safe_mode: whether to refuse Python lambdas in the file.

    Returns:
        The model. Where it was saved with our layers to begin with, this is what
        `keras.models.load_model` returns.

    Raises:
        ValueError: the file is not there, or is of another kind.

    Example:
        >>> import keras, os, tempfile
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(4, 3)])
        >>> path = os.path.join(tempfile.mkdtemp(), "model.keras")
        >>> model.save(path)
        >>> load_model(path).layers[0].__class__.__module__
        'sepconv.layers.separable_conv2d'
    """
    path = Path(filepath)
    options = {
        "custom_objects": {**_BY_STOCK_NAME, **(custom_objects or {})},
        "compile": compile,
        "safe_mode": safe_mode,
    }
    if path.suffix in (".h5", ".hdf5") and path.is_file():
        return _with_our_conv2d(keras.models.load_model(path, **options))
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="sepconv-") as folder:
            copy = Path(folder) / "model.keras"
            _copy_with_our_layers(path, copy)
            return _with_our_conv2d(keras.models.load_model(copy, **options))
    raise ValueError(
        "filepath must be a .keras or .h5 file on this machine. "
        f"Received: filepath={str(filepath)!r}"
    )


def _with_our_conv2d(model: keras.Model) -> keras.Model:
    """The model, with our `Conv2D` in place of Keras' where our kernels compute it."""
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.Conv2D and layer_refusal(layer) is None:
            Conv2D.become(layer)
    return model


def _copy_with_our_layers(source: Path, target: Path) -> None:
    """Copies a ``.keras`` archive, with its config naming our layers where it named Keras'."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if entry.filename == "config.json":
                new.writestr(entry, json.dumps(_with_our_layers(json.loads(old.read(entry)))))
            else:
                with old.open(entry) as reader, new.open(entry, "w", force_zip64=True) as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)


def _with_our_layers(config: Any) -> Any:
    """A serialized object with our layers in place of Keras', as far as we have them."""
    if isinstance(config, list):
        return [_with_our_layers(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: _with_our_layers(value) for key, value in config.items()}
    layer = _BY_STOCK_NAME.get(config.get("class_name"))
    # A class that a user registered under a name of their own is not Keras', even if named alike.
    if layer and config.get("module") == "keras.layers" and not config.get("registered_name"):
        config["module"] = layer.__module__
        config["class_name"] = layer.__name__
        config["registered_name"] = keras.saving.get_registered_name(layer)
    return config
