"""Threads: the same bits at any number, calls from many threads at once, and after fork()."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sepconv

SHAPES = {
    "separable": ((4, 20, 20, 24), (3, 3, 24, 1), (1, 1, 24, 40)),
    "many channels": ((1, 7, 7, 160), (5, 5, 160, 1), (1, 1, 160, 48)),
    "multiplier": ((2, 9, 31, 6), (3, 5, 6, 3), (1, 1, 18, 17)),
    "one pixel": ((1, 1, 1, 64), (1, 1, 64, 2), (1, 1, 128, 96)),
}


@pytest.fixture(autouse=True)
def _restored():
    before = sepconv.num_threads()
    yield
    sepconv.set_num_threads(before)


def _compute(shapes, dtype="float32", data_format="channels_last"):
    random = np.random.default_rng(0)
    x, kernel, pointwise = (random.standard_normal(s).astype(dtype) for s in shapes)
    if data_format == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    options = {"padding": "same", "data_format": data_format}
    y = sepconv.separable_conv2d(x, kernel, pointwise, **options)
    middle = sepconv.depthwise_conv2d(x, kernel, **options)
    return (
        y,
        middle,
        *sepconv.separable_conv2d_grad(x, kernel, pointwise, np.cos(y), **options),
        *sepconv.depthwise_conv2d_grad(x, kernel, np.cos(middle), **options),
    )


def _equal(a, b):
    return all(u.tobytes() == v.tobytes() for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_bits_do_not_depend_on_the_number_of_threads(shapes, dtype, data_format):
    results = []
    for count in (1, 2, 3, 7):
        sepconv.set_num_threads(count)
        assert sepconv.num_threads() == count
        results.append(_compute(shapes, dtype, data_format))
    for other in results[1:]:
        assert _equal(results[0], other)


def test_concurrent_calls():
    sepconv.set_num_threads(3)
    shapes = list(SHAPES.values())
    expected = [_compute(s) for s in shapes]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(_compute, shapes * 8))
    for i, result in enumerate(results):
        assert _equal(result, expected[i % len(shapes)])


@pytest.mark.parametrize("count", [0, -3, 257, 10**6])
def test_a_number_out_of_range_is_refused(count):
    before = sepconv.num_threads()
    with pytest.raises(ValueError, match=rf"count must be from 1 to 256. Received: count={count}"):
        sepconv.set_num_threads(count)
    assert sepconv.num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork() is Unix's")
def test_a_child_computes_after_fork():
    code = """
import os, sys, signal
import numpy as np
import sepconv
sepconv.set_num_threads(3)
x, k, p = np.ones((4, 20, 20, 24)), np.ones((3, 3, 24, 1)), np.ones((1, 1, 24, 40))
expected = sepconv.separable_conv2d(x, k, p)
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if np.array_equal(sepconv.separable_conv2d(x, k, p), expected) else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        sys.exit("the child failed")
assert np.array_equal(sepconv.separable_conv2d(x, k, p), expected)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _import_with(variable, text):
    code = "import sepconv; print(sepconv.num_threads(), sepconv.isa_name())"
    environment = os.environ | {variable: text}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("text", ["3", "1"])
def test_the_environment_sets_the_number(text):
    assert _import_with("SEPCONV_NUM_THREADS", text).stdout.split()[0] == text


@pytest.mark.parametrize("text", ["x", "0", "-1", "257", "3x"])
def test_an_environment_that_makes_no_sense_fails_the_import(text):
    done = _import_with("SEPCONV_NUM_THREADS", text)
    assert done.returncode != 0
    assert f"Received: SEPCONV_NUM_THREADS={text}" in done.stderr


def test_an_unknown_instruction_set_fails_the_import():
    done = _import_with("SEPCONV_ISA", "mmx")
    assert done.returncode != 0
    assert "SEPCONV_ISA must be one of the levels that run here" in done.stderr


def test_another_thread_runs_while_a_kernel_does():
    # The GIL is released: a thread counts on while the kernel computes.
    x, k = np.ones((16, 64, 64, 32), "float32"), np.ones((3, 3, 32, 1), "float32")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: [sepconv.depthwise_conv2d(x, k) for _ in range(3)])
        ticks = 0
        while not future.done():
            ticks += 1
    assert ticks > 10
