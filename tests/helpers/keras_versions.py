"""Which tests need a newer Keras than the oldest one."""

from __future__ import annotations

import keras
import pytest


def is_since(version: str) -> bool:
    """Whether Keras is of a version or of a later one."""
    installed, needed = (tuple(map(int, v.split(".")[:2])) for v in (keras.__version__, version))
    return installed >= needed


def since(version: str, what: str) -> pytest.MarkDecorator:
    """Skips a test with the versions of Keras that came before something that it needs."""
    return pytest.mark.skipif(not is_since(version), reason=f"{what}: Keras {version}")
