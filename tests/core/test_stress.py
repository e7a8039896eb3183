"""Short forms of the long runs of `make stress`; and subinterpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parent.parent / "stress" / "stress.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork() and /proc are Unix's")


@pytest.mark.parametrize(
    ("command", "option", "number"),
    [
        ("threads", "--calls", 40),
        ("forks", "--count", 10),
        ("memory", "--calls", 30000),
        ("shutdown", "--count", 4),
        ("processes", "--count", 1),
    ],
)
def test_short(command, option, number):
    done = subprocess.run(
        [sys.executable, str(STRESS), command, option, str(number)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{command}: ")


SUBINTERPRETER = """
try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters
import numpy as np
import sepconv
x, k = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 1))
expected = sepconv.depthwise_conv2d(x, k)
other = interpreters.create()
code = '''
try:
    import numpy as np
    import sepconv
    y = sepconv.depthwise_conv2d(np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 1)))
    assert y[0, 0, 0, 0] == 9, y
except ImportError as error:
    assert str(error)
'''
failed = None
try:
    failed = interpreters.run_string(other, code)
except Exception as error:
    failed = error
assert failed is None, failed
assert np.array_equal(sepconv.depthwise_conv2d(x, k), expected)
print("went on")
"""


def test_a_subinterpreter_is_served_or_refused():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SUBINTERPRETER],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.strip() == "went on"
