"""What docs/programs.md says that compiles is what the table has, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import keras

from sepconv.models.lowering import table
from sepconv.models.lowering.operations import OPERATIONS

PAGE = (Path(__file__).parents[3] / "docs/programs.md").read_text(encoding="utf-8")

#: What `optimize` makes of layers, and how indices are called.
OWN = {"FusedConvolution", "Stock"}
INDICES = {"getitem"}


def _rows(title: str) -> str:
    """The rows of the page's table whose second column has this title."""
    (rows,) = re.findall(rf"^\| \| {title}.*\n\|.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return rows


def test_layers() -> None:
    known = {cls.__name__ for cls in table._TABLE if cls not in OPERATIONS}
    named = set(re.findall(r"`([A-Z]\w+)`", _rows("layers")))
    assert named == known - OWN


def test_operations() -> None:
    known = {cls.__name__.lower() for cls in OPERATIONS}
    named = re.findall(r"`(\w+)`", _rows("operations of"))
    assert len(set(named)) == len(named)
    # Older versions of Keras lack some.
    here = [name for name in named if name == "mish" or hasattr(keras.ops, name)]
    assert {name.replace("_", "") for name in here} == known - INDICES
