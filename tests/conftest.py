"""Which files are collected for the engines that are tested, and what all tests find."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from helpers.selection import ENGINES, import_keras, selected


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out ``tests/engines/test_<engine>_*.py`` of engines that are not selected.

    They are not even collected, since that imports their engine.
    """
    if collection_path.parent.name != "engines":
        return None
    for engine in ENGINES:
        if collection_path.name.startswith(f"test_{engine}") and engine not in selected():
            return True
    return None


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Keras, on the first of the engines that are tested unless KERAS_BACKEND says otherwise."""
    return import_keras()
