"""These tests run where PyTorch is one of the engines that are tested."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.selection import selected

from sepconv.engines import thresholds


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out all files without importing PyTorch."""
    if collection_path.name.startswith("test_") and "torch" not in selected():
        return True
    return None


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets our batch normalization compute small images, too, which PyTorch computes faster."""
    monkeypatch.setattr(thresholds, "LEAST_NORMALIZED", 0)
    monkeypatch.setattr(thresholds, "MOST_NORMALIZED", 10**6)
