"""Every instruction-set level that runs here passes the tests of values, not the best one alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sepconv

LEVELS = (
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
    "x86-64-v4-vnni",
    "x86-64-v4-bf16",
    "neon",
    "neon-dotprod",
    "neon-i8mm",
    "neon-bf16",
    "generic",
)
HERE = Path(__file__).parent


def _run(level, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"SEPCONV_ISA": level},
        cwd=HERE.parent.parent,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_values(level):
    if level == sepconv.isa_name():
        pytest.skip("the level that all the other tests run on")
    found = _run(level, "-c", "import sepconv; print(sepconv.isa_name())")
    if found.returncode != 0:
        assert "SEPCONV_ISA must be one of the levels that run here" in found.stderr
        pytest.skip("does not run here")
    assert found.stdout.strip() == level
    files = [str(HERE / f"test_{name}.py") for name in ("functional", "pointwise", "adjoint")]
    done = _run(level, "-m", "pytest", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_levels_agree_within_the_stated_bound():
    """docs/numerics.md: two levels are within 2 * eps * (8 + 4 sqrt(n)) * (sum of sizes)."""
    code = (
        "import numpy as np, sys, sepconv; r = np.random.default_rng(0);"
        "x, k = (r.standard_normal(s).astype('f') for s in ((2, 14, 14, 40), (3, 3, 40, 1)));"
        "y = sepconv.depthwise_conv2d(x, k, padding='same');"
        "g = sepconv.depthwise_conv2d_grad(x, k, x, padding='same');"
        "sys.stdout.buffer.write(b''.join(a.tobytes() for a in (y, g.x, g.depthwise_kernel)))"
    )
    results = []
    for level in LEVELS:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            env=os.environ | {"SEPCONV_ISA": level},
        )
        if done.returncode == 0:
            results.append(np.frombuffer(done.stdout, "float32"))
    assert results
    # The sums of the products' sizes are the same convolutions of the arrays' sizes.
    r = np.random.default_rng(0)
    x, k = (np.abs(r.standard_normal(s).astype("f")) for s in ((2, 14, 14, 40), (3, 3, 40, 1)))
    sizes = sepconv.depthwise_conv2d(x, k, padding="same")
    grads = sepconv.depthwise_conv2d_grad(x, k, x, padding="same")
    counts = ((sizes, 9), (grads.x, 9), (grads.depthwise_kernel, 2 * 14 * 14))
    bound = np.concatenate([2**-22 * (8 + 4 * np.sqrt(n)) * a.ravel() for a, n in counts])
    for other in results[1:]:
        assert np.all(np.abs(other - results[0]) <= bound)
