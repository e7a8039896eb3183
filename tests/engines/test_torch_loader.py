"""A DataLoader whose workers compute by our operation, after the parent has: a short run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADER = Path(__file__).parent.parent / "stress" / "loader.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork() is Unix's")
def test_workers_compute_what_the_parent_does():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(LOADER), "--rounds", "2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "every result the same" in done.stdout
