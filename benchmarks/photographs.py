"""Crops of photographs that scikit-image, scikit-learn and Matplotlib ship: nothing is downloaded.

No labelled ImageNet comes in packages. Whether an int8 network says what its float one says can be
seen on any photographs; these are few, so each is cut many times, at several sizes, and mirrored.
The crops follow from a seed. Those that scales are found with are of other photographs than those
that are counted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["CALIBRATION", "TEST", "crops"]

#: All that are in colour, by name, and in turns for one and for the other.
TEST = ("astronaut", "china", "flower", "hubble_deep_field", "motorcycle_left", "rocket")
CALIBRATION = ("chelsea", "coffee", "grace_hopper", "ihc", "retina")

#: The side of a crop, as parts of the photograph's shorter one.
_SIDES = (0.5, 1.0)


def crops(names: tuple[str, ...], count: int, size: int, seed: int) -> np.ndarray:
    """Crops of photographs, as many of each.

    Args:
        names: of `TEST` or `CALIBRATION`.
        count: how many in all.
        size: height and width of each, in pixels.
        seed: which crops.

    Returns:
        (count, size, size, 3), uint8.
    """
    rng = np.random.default_rng(seed)
    whole = [Image.open(_path(name)).convert("RGB") for name in names]
    found = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        picture = whole[i % len(whole)]
        side = round(min(picture.size) * rng.uniform(*_SIDES))
        left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
        square = picture.resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
        )
        pixels = np.asarray(square)
        found[i] = pixels[:, ::-1] if rng.uniform() < 0.5 else pixels
    return found


def _path(name: str) -> Path:
    """Where a photograph lies in the package that ships it."""
    import matplotlib
    import skimage
    import sklearn

    folders = (
        Path(skimage.__file__).parent / "data",
        Path(sklearn.__file__).parent / "datasets" / "images",
        Path(matplotlib.get_data_path()) / "sample_data",
    )
    for folder in folders:
        for suffix in (".png", ".jpg"):
            if (folder / f"{name}{suffix}").exists():
                return folder / f"{name}{suffix}"
    raise FileNotFoundError(
        f"The photograph {name!r} is in none of {', '.join(map(str, folders))}: "
        "pip install scikit-image scikit-learn matplotlib"
    )
