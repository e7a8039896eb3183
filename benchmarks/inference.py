"""Latency of keras.applications' networks at batch 1: stock Keras, sepconv.optimize, runtimes.

    python benchmarks/inference.py --check                     # outputs, on KERAS_BACKEND's engine
    python benchmarks/inference.py MobileNet MobileNetV2       # latencies, all that is installed
    python benchmarks/inference.py MobileNet --engines jax --runtimes litert

Each participant has its own process, on the same cores and with the same weights (batch
normalization's are random), and is tried in several settings, of which the fastest is measured.
Outputs are compared first. Then the participants take turns, round after round; those that wait are
stopped. ONNX Runtime, OpenVINO and LiteRT get the stock network as a file that Keras writes on
TensorFlow (`runtimes.py`). To install all of them: pip install '.[bench,export]'. Prints a table in
milliseconds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import runtimes
from runtimes import RUNTIMES, Run

ENGINES = ("jax", "torch", "tensorflow")
NETWORKS = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "Xception",
    "EfficientNetB0",
    "NASNetMobile",
)
TOLERANCE = 1e-4  # relative to the largest output
DISTRIBUTIONS = "keras jax torch tensorflow-cpu tensorflow onnxruntime openvino ai-edge-litert"


# ---- networks


def network(name: str, size: int) -> Any:
    """A network with random weights from NumPy: the engines' own generators differ."""
    import keras

    build = getattr(keras.applications, name)
    model = build(input_shape=(size, size, 3), weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.moving_mean.shape[0]
            weights = [rng.uniform(0.5, 1.5, count)] if layer.scale else []
            weights += [rng.normal(0, 0.3, count)] if layer.center else []
            weights += [rng.normal(0, 0.3, count), rng.uniform(0.5, 1.5, count)]
            layer.set_weights(weights)
        elif not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([_like(rng, w) for w in layer.get_weights()])
    return model


def _like(rng: np.random.Generator, weight: np.ndarray) -> np.ndarray:
    """A bias, or a kernel that preserves the scale of its input."""
    if weight.ndim < 2:
        return rng.normal(0, 0.1, weight.shape)
    # The last axes of a depthwise kernel are channels and multiplier: a sum over the taps alone.
    depthwise = weight.ndim == 4 and weight.shape[3] == 1
    inputs = np.prod(weight.shape[:2]) if depthwise else weight.size / weight.shape[-1]
    return rng.normal(0, np.sqrt(2 / inputs), weight.shape)


def picture(size: int) -> np.ndarray:
    """The input: one image."""
    pixels = np.random.default_rng(1).uniform(0, 255, (1, size, size, 3))
    return (pixels / 127.5 - 1).astype("float32")


def difference(received: Any, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest output."""
    return float(np.abs(np.asarray(received) - expected).max() / np.abs(expected).max())


def check(names: list[str], size: int | None) -> int:
    """Prints the difference that `optimize` makes to each output; 1 where it is too large.

    The optimized network is saved to a file and loaded from it first.
    """
    import keras

    import sepconv

    failed = False
    print(f"engine {keras.backend.backend()}; difference relative to the largest output")
    for name in names:
        side = size or (299 if name == "Xception" else 224)
        try:
            model = network(name, side)
        except ValueError as error:  # NASNet does not exist on every backend
            print(f"{name:17} not available: {error}")
            continue
        optimized, record = sepconv.optimize(model)
        with tempfile.TemporaryDirectory(prefix="sepconv-check-") as folder:
            optimized.save(Path(folder) / "optimized.keras")
            optimized = keras.models.load_model(Path(folder) / "optimized.keras")
        x = picture(side)
        apart = difference(optimized.predict_on_batch(x), model.predict_on_batch(x))
        failed |= not apart <= TOLERANCE
        layers = f"{len(model.layers):3} layers -> {len(optimized.layers):3}"
        print(f"{name:17} {apart:.1e}  {layers}  {record.changed} changed", flush=True)
    return int(failed)


# ---- one process


def compiled(model: Any, x: np.ndarray) -> dict[str, Run]:
    """The calls of a Keras model that may be the fastest on its engine."""
    import keras

    engine = keras.backend.backend()
    if engine == "jax":
        import jax

        trainable = [v.value for v in model.trainable_variables]
        rest = [v.value for v in model.non_trainable_variables]
        call = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=False)[0])
        image = jax.device_put(x)
        return {"jit": lambda: call(trainable, rest, image).block_until_ready()}
    if engine == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: model(x, training=False))
        image = tf.constant(x)
        return {"tf.function": lambda: call(image)}
    import torch

    image = torch.from_numpy(x)

    def within(function: Callable[[Any], Any]) -> Run:
        def run() -> Any:
            with torch.inference_mode():
                return function(image)

        return run

    model.eval()
    return {
        "eager": within(lambda x: model(x, training=False)),
        "compile": within(torch.compile(lambda x: model(x, training=False))),
    }


def serve(who: str, name: str, size: int, threads: int, folder: Path) -> None:
    """Runs a participant: prepares, then answers each line of input with the seconds of a turn."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    x = picture(size)
    runs: dict[str, Callable[[], Run]]
    if who in RUNTIMES:
        runs = runtimes.runs(who, folder, x, threads)
    else:
        kind, engine = who.split("-")
        if engine == "torch":
            import torch

            torch.set_num_threads(threads)
        model = network(name, size)
        if kind == "sepconv":
            import sepconv

            model = sepconv.optimize(model).model
        runs = {way: lambda run=run: run for way, run in compiled(model, x).items()}
    chosen = choose(runs, folder / "expected.npy")
    if isinstance(chosen, str):
        answer({"failed": chosen})
        return
    setting, run = chosen
    answer({"setting": setting})
    for line in sys.stdin:
        run()
        answer(timed(run, int(line)))


def choose(runs: dict[str, Callable[[], Run]], expected: Path) -> tuple[str, Run] | str:
    """The fastest of the settings with the right output, or why there is none.

    Args:
        runs: functions that prepare a setting, by its name.
        expected: the right output; where there is no such file yet, the first output becomes it.
    """
    best: tuple[float, str, Run] | None = None
    errors = []
    for setting, prepare in runs.items():
        try:
            run = prepare()
            # The second call's output counts, so that a setting that overwrites its input is found.
            run()
            y = np.array(run())
            apart = difference(y, np.load(expected)) if expected.exists() else 0.0
            if not apart <= TOLERANCE:
                raise ValueError(f"the output is off by {apart:.1e}")
            seconds = min(timed(run, 15))
        except Exception as error:  # a setting that does not work is not measured
            errors.append(f"{setting}: {type(error).__name__}: {error}"[:300])
            continue
        if not expected.exists():
            np.save(expected, y)
        if best is None or seconds < best[0]:
            best = seconds, setting, run
    return best[1:] if best else "; ".join(errors) or "there is no file that it reads"


def timed(run: Run, count: int) -> list[float]:
    """The seconds of every call."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


# ---- all of them


def export(name: str, size: int, folder: Path) -> int:
    """Writes the stock network's files, with Keras on TensorFlow; 1 if one is missing."""
    model, x = network(name, size), picture(size)
    model.predict_on_batch(x)  # Keras exports only what has been called
    missing = runtimes.export(model, x, folder)
    for file, reason in missing.items():
        print(f"{file}: {reason}", file=sys.stderr)
    return int(bool(missing))


def write_files(name: str, size: int, folder: Path) -> None:
    """Runs `export` in its own process, and prints the files that it could not write."""
    command = [sys.executable, __file__, name, "--export", "--size", str(size)]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [*command, "--folder", str(folder)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        print(f"{name}: files for the runtimes are missing:\n{done.stderr[-1000:]}")


class Participant:
    """A process that takes turns."""

    def __init__(self, who: str, name: str, size: int, threads: int, folder: Path) -> None:
        count = str(threads)
        environment = os.environ | {
            "SEPCONV_NUM_THREADS": count,
            "OMP_NUM_THREADS": count,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
        }
        if "-" in who:
            environment["KERAS_BACKEND"] = who.split("-")[1]
        command = [sys.executable, __file__, name, "--serve", who]
        command += ["--size", str(size), "--threads", count, "--folder", str(folder)]
        self.log = folder / f"{who}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.seconds: list[float] = []
        self.first = self._hear()
        self.process.send_signal(signal.SIGSTOP)

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return {"failed": (lines or ["its process ended"])[-1][:300]}

    def turn(self, count: int) -> None:
        """Runs it `count` times."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self._hear()
        if isinstance(answer, list):
            self.seconds += answer
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()


def compare(name: str, size: int, threads: int, rounds: int, who: list[str]) -> bool:
    """Measures one network and prints its table; returns whether all took part."""
    with tempfile.TemporaryDirectory(prefix="sepconv-inference-") as text:
        folder = Path(text)
        if any(one in RUNTIMES for one in who):
            write_files(name, size, folder)
        team = {}
        try:
            for one in who:
                participant = Participant(one, name, size, threads, folder)
                if "failed" in participant.first:
                    print(f"{name}: {one} is left out: {participant.first['failed']}")
                    participant.close()
                else:
                    team[one] = participant
            for _ in range(rounds):
                for participant in team.values():
                    participant.turn(5)
        finally:
            for participant in team.values():
                participant.close()
    show(name, size, threads, team)
    sys.stdout.flush()
    return len(team) == len(who)


def show(name: str, size: int, threads: int, team: dict[str, Participant]) -> None:
    """Prints the medians, and sepconv's best relative to each."""
    medians = {one: statistics.median(p.seconds) for one, p in team.items() if p.seconds}
    ours = {one: t for one, t in medians.items() if one.startswith("sepconv")}
    print(f"\n{name}, batch 1, {size} x {size}, {threads} threads, outputs equal to {TOLERANCE}")
    print("| | median, ms | quartiles | way | to the best sepconv |")
    print("| --- | --- | --- | --- | --- |")
    best = min(ours.values(), default=float("nan"))
    for one, median in sorted(medians.items(), key=lambda item: item[1]):
        low, _, high = (1e3 * q for q in statistics.quantiles(team[one].seconds, n=4))
        way = team[one].first["setting"]
        ratio = f"{median / best:.2f}x"
        print(f"| {one} | {1e3 * median:.2f} | {low:.2f} to {high:.2f} | {way} | {ratio} |")
    stock = [t for one, t in medians.items() if one.startswith("keras")]
    if stock and ours:
        print(f"best stock Keras / best sepconv: {min(stock) / best:.2f}x")


def versions() -> str:
    """The versions of the installed participants."""
    found = []
    for name in DISTRIBUTIONS.split():
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> int:
    """Runs the command line above."""
    # A signal that ends this process must also end those that it has stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("networks", nargs="*", default=[], metavar="NETWORK", help=str(NETWORKS))
    parser.add_argument("--check", action="store_true", help="compare outputs and time nothing")
    parser.add_argument("--size", type=int, help="of the picture (default: the network's own)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=12, help="turns of 5 calls each")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--runtimes", nargs="*", choices=RUNTIMES, default=list(RUNTIMES))
    for hidden in ("--serve", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown networks {sorted(unknown)}; there are {NETWORKS}")
    if options.export:
        return export(options.networks[0], options.size, Path(options.folder))
    if options.serve:
        folder = Path(options.folder)
        serve(options.serve, options.networks[0], options.size, options.threads, folder)
        return 0
    if options.check:
        return check(options.networks or list(NETWORKS), options.size)
    who = [f"{kind}-{engine}" for kind in ("keras", "sepconv") for engine in options.engines]
    who += options.runtimes
    print(versions())
    good = True
    for name in options.networks or ("MobileNet", "MobileNetV2", "EfficientNetB0"):
        size = options.size or (299 if name == "Xception" else 224)
        good &= compare(name, size, options.threads, options.rounds, who)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
