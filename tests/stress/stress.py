"""Long runs that show what a short test cannot: see `make stress`. Each prints one line.

python tests/stress/stress.py threads --calls 10000     8 threads of mixed calls, all checked
python tests/stress/stress.py forks --count 200         fork() in the middle of the pool's work
python tests/stress/stress.py memory --calls 1000000    resident memory stays flat
python tests/stress/stress.py shutdown --count 20       the interpreter ends while kernels run
python tests/stress/stress.py processes --count 20      multiprocessing by fork, after use
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

import sepconv

Call = Callable[[], list[np.ndarray]]


def _calls() -> list[Call]:
    """Calls of every kind, layout and dtype."""
    random = np.random.default_rng(0)
    calls: list[Call] = []
    shapes = [
        ((2, 12, 12, 24), 3, 1, 16),
        ((1, 9, 8, 3), 2, 2, 5),
        ((1, 1, 33, 16), 1, 1, 17),
        ((4, 20, 20, 8), 5, 1, 8),
    ]
    for shape, size, multiplier, filters in shapes:
        for dtype in ("float32", "float64"):
            for data_format in ("channels_last", "channels_first"):
                x = random.standard_normal(shape).astype(dtype)
                if data_format == "channels_first":
                    x = np.ascontiguousarray(np.moveaxis(x, 3, 1))
                channels = shape[3] * multiplier
                kernel = random.standard_normal((size, size, shape[3], multiplier)).astype(dtype)
                pointwise = random.standard_normal((1, 1, channels, filters)).astype(dtype)
                options = {"padding": "same", "data_format": data_format}

                def separable(x=x, k=kernel, p=pointwise, o=options) -> list[np.ndarray]:
                    y = sepconv.separable_conv2d(x, k, p, activation="relu", **o)
                    return [y, *sepconv.separable_conv2d_grad(x, k, p, y, **o)]

                def depthwise(x=x, k=kernel, o=options) -> list[np.ndarray]:
                    y = sepconv.depthwise_conv2d(x, k, strides=2, **o)
                    return [y, *sepconv.depthwise_conv2d_grad(x, k, y, strides=2, **o)]

                calls += [separable, depthwise]
    return calls


def _bytes(arrays: list[np.ndarray]) -> bytes:
    return b"".join(a.tobytes() for a in arrays)


def threads(calls: int) -> str:
    """8 Python threads, `calls` calls each, every result compared to the bit."""
    sepconv.set_num_threads(3)
    known = [(call, _bytes(call())) for call in _calls()]
    wrong: list[int] = []

    def work(index: int) -> None:
        for i in range(calls):
            call, expected = known[(i * 7 + index) % len(known)]
            if _bytes(call()) != expected:
                wrong.append(i)

    started = time.monotonic()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong, f"{len(wrong)} results differ"
    return f"8 threads x {calls} calls in {time.monotonic() - started:.0f} s, every result the same"


def forks(count: int) -> str:
    """Forks while other threads keep the pool at work; children and parent compute and compare."""
    sepconv.set_num_threads(3)
    known = [(call, _bytes(call())) for call in _calls()]
    ending = threading.Event()
    wrong: list[int] = []

    def busy() -> None:
        i = 0
        while not ending.is_set():
            call, expected = known[i % len(known)]
            if _bytes(call()) != expected:
                wrong.append(i)
            i += 1

    workers = [threading.Thread(target=busy) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for i in range(count):
            call, expected = known[i % len(known)]
            child = os.fork()
            if child == 0:
                signal.alarm(120)  # a child that hangs is ended, and seen
                same = all(_bytes(call()) == expected for _ in range(3))
                os._exit(0 if same else 1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == 0, f"child {i} ended with {status}"
            assert _bytes(call()) == expected
    finally:
        ending.set()
        for worker in workers:
            worker.join()
    assert not wrong
    return f"{count} forks, every child and the parent computed the same"


def _resident() -> int:
    """This process's resident memory, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(calls: int) -> str:
    """Resident memory after a warm-up and at every tenth of `calls` calls."""
    sepconv.set_num_threads(2)
    x, kernel = np.ones((1, 4, 5, 8), "float32"), np.ones((3, 3, 8, 1), "float32")
    pointwise, y = np.ones((1, 1, 8, 4), "float32"), np.ones((1, 4, 5, 4), "float32")
    wrong = np.ones((1, 1, 7, 4), "float32")
    options = {"padding": "same"}

    def refused() -> None:
        try:
            sepconv.separable_conv2d(x, kernel, wrong, **options)
        except ValueError:
            return
        raise AssertionError

    mixed: list[Callable[[], object]] = [
        lambda: sepconv.depthwise_conv2d(x, kernel, **options),
        lambda: sepconv.separable_conv2d(x, kernel, pointwise, **options),
        lambda: sepconv.separable_conv2d_grad(x, kernel, pointwise, y, **options),
        lambda: sepconv.depthwise_conv2d(x[:, ::-1], kernel, strides=2),
        refused,
    ]

    def run(count: int) -> None:
        for i in range(count):
            mixed[i % 5]()

    run(min(calls, 20000))
    sizes = [_resident()]
    for _ in range(10):
        run(calls // 10)
        sizes.append(_resident())
    growth = (max(sizes) - sizes[0]) / 2**20
    assert growth <= 5, f"resident memory grew by {growth:.1f} MiB: {sizes}"
    return (
        f"{calls} calls, resident memory {sizes[0] / 2**20:.1f} MiB after the warm-up, "
        f"at most {growth:+.2f} MiB later"
    )


_SHUTDOWN = """
import threading, time
import numpy as np
import sepconv
sepconv.set_num_threads(3)
x, k, p = np.ones((4, 40, 40, 32)), np.ones((3, 3, 32, 1)), np.ones((1, 1, 32, 64))
def work():
    while True:
        sepconv.separable_conv2d(x, k, p)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
"""


def shutdown(count: int) -> str:
    """Interpreters that end while daemon threads are inside kernels."""
    for _ in range(count):
        done = subprocess.run(
            [sys.executable, "-c", _SHUTDOWN], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
        assert not done.stderr, done.stderr
    return f"{count} interpreters ended with kernels at work"


def _child(index: int) -> bytes:
    return _bytes(_calls()[index]())


def processes(count: int) -> str:
    """Multiprocessing's pools by fork, after the parent has used the pool."""
    sepconv.set_num_threads(3)
    expected = [_bytes(call()) for call in _calls()]
    context = multiprocessing.get_context("fork")
    for _ in range(count):
        with context.Pool(3) as pool:
            got = pool.map_async(_child, range(len(expected))).get(timeout=300)
        assert got == expected
        assert _bytes(_calls()[0]()) == expected[0]
    return f"{count} pools of 3 processes, every result the same"


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for function, option, default in (
        (threads, "calls", 10000),
        (forks, "count", 200),
        (memory, "calls", 1000000),
        (shutdown, "count", 20),
        (processes, "count", 20),
    ):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.add_argument(f"--{option}", dest="number", type=int, default=default)
        command.set_defaults(function=function)
    options = parser.parse_args()
    print(f"{options.command}: {options.function(options.number)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
