"""Programs and threads: the same bits on any number, many callers, children of fork()."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers.programs import blocks, every_operation

import sepconv
from sepconv.geometry import conv_spec
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program, Tuning


def test_bits_do_not_depend_on_threads_or_ways() -> None:
    network = blocks()
    shape = tuple(3 if size is None else size for size in network.inputs[0].shape)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    before = sepconv.num_threads()
    try:
        sepconv.set_num_threads(1)
        expected = np.asarray(Program(network)(x))
        for tuning in (None, Tuning(-1, 0, 1), Tuning(0, 1, 8), Tuning(0, 1 << 30, 2)):
            program = Program(network, tuning=tuning)
            for threads in (1, 2, 3):
                sepconv.set_num_threads(threads)
                np.testing.assert_array_equal(program(x), expected)
    finally:
        sepconv.set_num_threads(before)


def test_many_callers_at_once() -> None:
    network = blocks()
    shape = tuple(2 if size is None else size for size in network.inputs[0].shape)
    draw = np.random.default_rng(0)
    inputs = [draw.standard_normal(shape).astype("float32") for _ in range(8)]
    program = Program(network)
    expected = [np.asarray(program(x)) for x in inputs]
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(125):
            if not np.array_equal(program(inputs[i]), expected[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_tall_kernels_on_any_number_of_threads() -> None:
    """With the usual tuning: what parts of a chain keep is enough for every part."""
    draw = np.random.default_rng(0)
    tensors = [
        draw.standard_normal(shape).astype("float32")
        for shape in ((7, 7, 48, 1), (1, 1, 48, 48)) * 3
    ]
    given = {
        "spec": conv_spec(padding="same"),
        "depthwise_activation": "none",
        "activation": "none",
    }
    steps = [
        Step(
            "convolution",
            f"step {i}",
            (i,),
            given,
            {"depthwise_kernel": 2 * i, "pointwise_kernel": 2 * i + 1},
        )
        for i in range(3)
    ]
    program = Program(Network("float32", [Input("x", (1, 96, 96, 48))], steps, [3], ["y"], tensors))
    x = draw.standard_normal((1, 96, 96, 48)).astype("float32")
    before = sepconv.num_threads()
    try:
        sepconv.set_num_threads(1)
        expected = program(x)
        for threads in (2, 3, 4):
            sepconv.set_num_threads(threads)
            np.testing.assert_array_equal(program(x), expected)
    finally:
        sepconv.set_num_threads(before)


def test_callers_while_the_number_of_threads_changes() -> None:
    network = every_operation()
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype("float32")
    program = Program(network)
    expected = [y.tobytes() for y in program(x)]
    found: list[bool] = []
    before = sepconv.num_threads()

    def call() -> None:
        for _ in range(50):
            found.append([y.tobytes() for y in program(x)] == expected)

    callers = [threading.Thread(target=call) for _ in range(8)]
    try:
        for caller in callers:
            caller.start()
        count = 0
        while any(caller.is_alive() for caller in callers):
            count += 1
            sepconv.set_num_threads(count % 8 + 1)
        for caller in callers:
            caller.join()
    finally:
        sepconv.set_num_threads(before)
    assert len(found) == 400
    assert all(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork() is Unix's")
def test_a_child_computes_after_fork() -> None:
    """Also where other threads of the parent plan and run the program meanwhile."""
    code = """
import os, signal, sys, threading
import numpy as np
import sepconv
from helpers.programs import blocks
from sepconv.program.program import Program
sepconv.set_num_threads(3)
program = Program(blocks())
x = np.ones((2, 12, 12, 16), "float32")
expected = program(x)
over = threading.Event()
def call(height):
    while not over.is_set():
        height = height % 90 + 10
        program(np.ones((1, height, 12, 16), "float32"))
others = [threading.Thread(target=call, args=(i,)) for i in range(3)]
for other in others:
    other.start()
failed = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if np.array_equal(program(x), expected) else 1)
    failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
over.set()
sys.exit(failed)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_program_outlives_its_name() -> None:
    x = np.ones((4, 200, 12, 16), "float32")
    expected = Program(blocks())(x)
    found: list[np.ndarray] = []
    for _ in range(5):
        program = Program(blocks())
        caller = threading.Thread(target=lambda call=program: found.append(call(x)))
        caller.start()
        del program
        caller.join()
    assert len(found) == 5
    assert all(np.array_equal(y, expected) for y in found)
