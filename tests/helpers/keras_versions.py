"""Which tests need a newer Keras than the oldest one."""

from __future__ import annotations

import keras
import pytest


def since(version: str, what: str) -> pytest.MarkDecorator:
    """Skips a test with the versions of Keras that came before something that it needs."""
    installed, needed = (tuple(map(int, v.split(".")[:2])) for v in (keras.__version__, version))
    return pytest.mark.skipif(installed < needed, reason=f"{what}: Keras {version}")
