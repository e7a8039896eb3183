"""These tests run where PyTorch is one of the engines that are tested."""

from __future__ import annotations

from pathlib import Path

from helpers.selection import selected


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out all files without importing PyTorch."""
    if collection_path.name.startswith("test_") and "torch" not in selected():
        return True
    return None
