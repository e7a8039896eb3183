"""Uploaded bytes to the network's input, with care for what strangers may upload."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

__all__ = ["MOST_PIXELS", "PictureError", "prepare", "read"]

#: The most pixels of a picture: a small file can hold a picture that fills the memory.
MOST_PIXELS = 25_000_000

_FORMATS = ("JPEG", "PNG", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")


class PictureError(ValueError):
    """The picture cannot be classified; `status` is what HTTP calls the reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read(data: bytes) -> Image.Image:
    """An uploaded picture, upright and in RGB.

    Raises:
        PictureError: it is of no known format, too large, or damaged.
    """
    try:
        # This reads the header alone, so that the size is known before memory is taken for it.
        picture: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if picture.width * picture.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        if picture.mode not in _MODES:
            raise PictureError(415, f"Pictures of the kind {picture.mode!r} are not known.")
        picture.load()
        return ImageOps.exif_transpose(picture).convert("RGB")
    except PictureError:
        raise
    except Image.DecompressionBombError:
        message = f"The picture must have at most {MOST_PIXELS:,} pixels."
        raise PictureError(413, message) from None
    except Image.UnidentifiedImageError:
        message = f"The file must be a picture: {', '.join(_FORMATS)}."
        raise PictureError(415, message) from None
    except Exception as error:  # damaged files make decoders raise errors of many kinds
        raise PictureError(400, "The picture is damaged.") from error


def prepare(picture: Image.Image, size: int) -> np.ndarray[Any, Any]:
    """The square in the middle, as EfficientNet-Lite takes it.

    Args:
        picture: in RGB.
        size: height and width of the result.

    Returns:
        (size, size, 3), float32, from about -1 to 1.
    """
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    square = picture.crop((left, top, left + side, top + side))
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return (resized.astype("float32") - 127.0) / 128.0
