"""Which engines are tested (SEPCONV_TEST_ENGINES), and where tests find their helpers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

ENGINES = ("jax", "torch", "tensorflow")


def _selected() -> set[str]:
    text = os.environ.get("SEPCONV_TEST_ENGINES", ",".join(ENGINES))
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = names - set(ENGINES)
    if unknown:
        raise pytest.UsageError(
            f"SEPCONV_TEST_ENGINES must be among {ENGINES}. Received: {sorted(unknown)}"
        )
    return names


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out ``tests/engines/test_<engine>_*.py`` of engines that are not selected.

    They are not even collected, since that imports their engine.
    """
    if collection_path.parent.name != "engines":
        return None
    for engine in ENGINES:
        if collection_path.name.startswith(f"test_{engine}") and engine not in _selected():
            return True
    return None
