"""What it costs to serve a network: memory, and the time until the first prediction is there.

    python benchmarks/serving_cost.py
    python benchmarks/serving_cost.py MobileNet --rounds 20 --threads 1

Each participant starts a process that imports what it needs, loads the network's file and predicts
one picture, once. They take turns, and medians are printed: the seconds from the start of the
process to the prediction, and on a prediction once more; the most memory that the process had, and
how much of it is more than that of Python with NumPy. Files are read from the page cache, as they
are on a server that starts again. Predictions are compared first. To install all of them:
pip install '.[bench,export]'.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import inference
import networks
import numpy as np
from inference import NETWORKS, Problem

#: What each participant runs, between `x` and `y`: the file, the imports and the calls.
PARTICIPANTS = {
    "sepconv-program": (
        "model.sepconv",
        """
import sepconv
program = sepconv.load(path)
predict = lambda: program(x)
""",
    ),
    "litert": (
        "model.tflite",
        """
from ai_edge_litert.interpreter import Interpreter
made = Interpreter(path, num_threads=threads)
made.allocate_tensors()
given, result = made.get_input_details()[0]["index"], made.get_output_details()[0]["index"]
def predict():
    made.set_tensor(given, x)
    made.invoke()
    return made.get_tensor(result)
""",
    ),
    "onnxruntime": (
        "model.onnx",
        """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
made = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
name = made.get_inputs()[0].name
predict = lambda: made.run(None, {name: x})[0]
""",
    ),
    "NumPy alone": ("", "predict = lambda: x"),
}

_SCRIPT = """
import json, sys, time
path, x_path, y_path, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
import numpy as np
x = np.load(x_path)
{body}
y = np.array(predict())
first = time.monotonic()
predict()
second = time.monotonic() - first
np.save(y_path, y)
engines = [name for name in ("keras", "jax", "torch", "tensorflow") if name in sys.modules]
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0])
print(json.dumps({{"first": first, "second": second, "peak": peak, "engines": engines}}))
"""


class Cost(NamedTuple):
    """What one process took.

    Attributes:
        first: seconds from its start to its first prediction.
        second: seconds of the second prediction.
        peak: the most memory, in bytes.
    """

    first: float
    second: float
    peak: int


def run(who: str, problem: Problem, folder: Path) -> Cost:
    """Starts one process and waits for its end.

    Raises:
        RuntimeError: it failed; the message has its last words.
    """
    file, body = PARTICIPANTS[who]
    arguments = [folder / file, folder / "x.npy", folder / f"{who}.npy", problem.threads]
    command = [sys.executable, "-c", _SCRIPT.format(body=body), *map(str, arguments)]
    begun = time.monotonic()
    done = subprocess.run(command, env=problem.environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.splitlines() or ["its process ended"])[-1])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if who == "sepconv-program" and answer["engines"]:
        raise RuntimeError(f"to run a program, {', '.join(answer['engines'])} were imported")
    return Cost(answer["first"] - begun, answer["second"], answer["peak"] << 10)


def compare(problem: Problem, rounds: int) -> bool:
    """Measures one network and prints its table; returns whether all took part."""
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="sepconv-serving-") as text:
        folder = Path(text)
        inference.write_files(problem, folder, [who for who in PARTICIPANTS if "NumPy" not in who])
        np.save(folder / "x.npy", problem.pictures())
        expected = None
        for who in PARTICIPANTS:
            try:
                run(who, problem, folder)
                y = np.load(folder / f"{who}.npy")
                if "NumPy" not in who:
                    expected = y if expected is None else expected
                    apart = networks.difference(y, expected)
                    if not apart <= inference.TOLERANCES["float32"]:
                        raise RuntimeError(f"its output is off by {apart:.1e}")
            except (RuntimeError, OSError) as error:
                print(f"{problem.name}: {who} is left out: {error}")
            else:
                costs[who] = []
        for _ in range(rounds):
            for who, found in costs.items():
                found.append(run(who, problem, folder))
        sizes = {who: (folder / PARTICIPANTS[who][0]).stat().st_size for who in costs}
    show(problem, costs, sizes)
    return len(costs) == len(PARTICIPANTS)


def show(problem: Problem, costs: dict[str, list[Cost]], sizes: dict[str, int]) -> None:
    """Prints the medians, and the quartiles of the time that matters."""
    medians = {
        who: Cost(*(statistics.median(values) for values in zip(*found, strict=True)))
        for who, found in costs.items()
    }
    bare = medians["NumPy alone"].peak if "NumPy alone" in medians else 0
    name, size, _, threads = problem
    print(f"\n{name}, one picture of {size} x {size}, {threads} threads")
    print(
        "| | first prediction, ms | quartiles | second, ms | peak, MB | over NumPy, MB | file, MB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for who, cost in medians.items():
        low, _, high = (1e3 * q for q in statistics.quantiles([c.first for c in costs[who]], n=4))
        times = f"{1e3 * cost.first:.0f} | {low:.0f} to {high:.0f} | {1e3 * cost.second:.1f}"
        memory = f"{cost.peak / 1e6:.0f} | {(cost.peak - bare) / 1e6:.0f}"
        file = f"{sizes[who] / 1e6:.1f}" if PARTICIPANTS[who][0] else ""
        print(f"| {who} | {times} | {memory} | {file} |")
    sys.stdout.flush()


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=str(NETWORKS))
    parser.add_argument("--size", type=int, default=224, help="of the picture")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    if min(options.size, options.threads) < 1 or options.rounds < 2:
        parser.error("--size and --threads must be at least 1, --rounds at least 2")
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown networks {sorted(unknown)}; there are {NETWORKS}")
    print(inference.versions())
    problems = [
        Problem(name, options.size, 1, options.threads)
        for name in options.networks or ("MobileNetV2",)
    ]
    good = True
    for problem in problems:
        good &= compare(problem, options.rounds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
