"""Kernels on PyTorch's OpenMP threads: the bits of our own threads, also in a child of fork()."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SETUP = """
import os, signal, sys
import numpy as np
import sepconv
r = np.random.default_rng(0)
x, k, p = (r.standard_normal(s).astype("f") for s in
           ((4, 20, 20, 24), (3, 3, 24, 1), (1, 1, 24, 40)))
own = sepconv.separable_conv2d(x, k, p)
own_grads = sepconv.separable_conv2d_grad(x, k, p, own)
import torch
import sepconv.torch
arrays = [torch.from_numpy(a) for a in (x, k, p)]
torch.ones(1 << 20).sum()  # wakes PyTorch's own threads
"""


def _run(code):
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_same_bits_as_on_our_own_threads():
    _run("""
assert np.array_equal(sepconv.torch.separable_conv2d(*arrays).numpy(), own)
for a, b in zip(sepconv.separable_conv2d_grad(x, k, p, own), own_grads):
    assert np.array_equal(a, b)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork() is Unix's")
def test_a_child_computes_after_fork():
    _run("""
sepconv.torch.separable_conv2d(*arrays)
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        same = np.array_equal(sepconv.torch.separable_conv2d(*arrays).numpy(), own)
        os._exit(0 if same else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        sys.exit("the child failed")
assert np.array_equal(sepconv.torch.separable_conv2d(*arrays).numpy(), own)
""")
