"""The demo's pictures: data sets that are already on the machine; nothing is downloaded."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["DATA_SETS", "DataMissingError", "Pictures", "load", "read_idx", "upsample"]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


class DataMissingError(RuntimeError):
    """The data set is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Pictures:
    """A data set, divided for training and testing.

    Attributes:
        title: the data set's name, for headings.
        x_train: (n, 32, 32, 1), float32 in [0, 1].
        y_train: (n,), class numbers.
        x_test: as `x_train`; never trained on.
        y_test: as `y_train`.
        classes: the classes' names.
    """

    title: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]


def upsample(images: np.ndarray, size: int) -> np.ndarray:
    """Square images enlarged to `size` pixels a side, linearly between pixel centres.

    Args:
        images: (n, side, side).
        size: the new side.

    Returns:
        (n, size, size), float32.

    Example:
        >>> upsample(np.array([[[0.0, 1.0], [0.0, 1.0]]]), 4)[0, 0].tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    side = images.shape[1]
    centres = (np.arange(size) + 0.5) * side / size - 0.5
    weights = np.maximum(0, 1 - np.abs(centres.clip(0, side - 1)[:, None] - np.arange(side)))
    return np.einsum("ph,nhw,qw->npq", weights, images, weights).astype("float32")


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes, as MNIST and its kin come.

    Raises:
        ValueError: the file is of another kind, or cut short.
    """
    with gzip.open(path) as file:
        content = file.read()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes: it starts with {content[:4]!r}")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path} is cut short: {len(content)} bytes for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _digits() -> Pictures:
    """scikit-learn's 1,797 handwritten digits, a quarter of them held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = upsample(digits.images / 16, 32)[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    classes = tuple(str(name) for name in digits.target_names)
    return Pictures("scikit-learn digits", x_train, y_train, x_test, y_test, classes)


def _fashion_mnist(folder: Path = FASHION_MNIST, train: int = 4000, test: int = 2000) -> Pictures:
    """The first pictures of Fashion-MNIST's training and test sets (which come shuffled)."""
    parts = []
    for name, count in (("train", train), ("t10k", test)):
        paths = [
            folder / f"{name}-images-idx3-ubyte.gz",
            folder / f"{name}-labels-idx1-ubyte.gz",
        ]
        for path in paths:
            if not path.is_file():
                raise DataMissingError(
                    f"Fashion-MNIST was not found: there is no {path}. On Debian and Ubuntu:\n"
                    "    sudo apt-get install dataset-fashion-mnist\n"
                    "or leave out --data fashion-mnist to train on scikit-learn's digits."
                )
        images, labels = (read_idx(path)[:count] for path in paths)
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))  # 28 pixels a side to 32
        parts += [(images / np.float32(255))[..., None], labels.astype("int64")]
    x_train, y_train, x_test, y_test = parts
    return Pictures("Fashion-MNIST", x_train, y_train, x_test, y_test, FASHION_CLASSES)


#: Name on the command line -> (reader, epochs that take Keras' layers on JAX about 2 minutes).
DATA_SETS = {"digits": (_digits, 8), "fashion-mnist": (_fashion_mnist, 3)}


def load(name: str) -> Pictures:
    """A data set by its name on the command line, a key of `DATA_SETS`.

    Raises:
        DataMissingError: it is not on this machine.
        ValueError: there is none of that name.
    """
    if name not in DATA_SETS:
        raise ValueError(f"data must be one of {sorted(DATA_SETS)}. Received: {name!r}")
    return DATA_SETS[name][0]()
