"""Latency of networks of keras.applications and of geffnet: stock, sepconv, inference runtimes.

    python benchmarks/inference.py --check                     # outputs, on KERAS_BACKEND's engine
    python benchmarks/inference.py MobileNet MobileNetV2       # latencies, all that is installed
    python benchmarks/inference.py MobileNet --engines jax --runtimes litert
    python benchmarks/inference.py MobileNet --batch 8 --threads 1
    python benchmarks/inference.py MobileNet --dtype bfloat16  # beside float32
    python benchmarks/inference.py MobileNet --dtype int8
    python benchmarks/inference.py mobilenetv2_100             # of geffnet

Each participant has its own process, on the same cores and with the same weights (batch
normalization's are random), and is tried in several settings, of which the fastest is measured.
Outputs are compared first. Then the participants take turns, round after round; those that wait are
stopped. sepconv takes part as the optimized network, on an engine, and as a program
(`sepconv.compile`), which its process loads from a file and runs with NumPy alone. The runtimes get
the stock network as files (`exports.py`, `runtimes.py`). To install all of them:
pip install '.[bench,export]'. A network of geffnet is a PyTorch module. It takes part as it is, by
torch.compile with its weights as constants, and optimized. All take images with the channels last
there, too; pip install geffnet litert-torch onnxscript. Prints a table in milliseconds, and the
floor: the network's multiply-adds at the rate at which this machine multiplies and adds registers.

With `--dtype bfloat16` those that have it take part a second time: stock Keras under its policy
mixed_bfloat16, sepconv's networks and programs made with dtype="bfloat16", and runtimes that are
told to compute in it. Those that have not are named.

With `--dtype int8` so do sepconv's program, made by `sepconv.quantize`, and the runtimes, each with
a file of its own quantiser (`exports_int8.py`). Pictures are smooth then, in the network's range,
as those are that all are calibrated with. Outputs need but some signal above the noise, which is
printed: it tells a broken conversion, not a good one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import exports
import exports_int8
import networks
import numpy as np
import runtimes
from networks import GEFFNET, NETWORKS, POLICIES, difference, network
from processes import Participant, answer_turns, team
from runtimes import NARROW, RUNTIMES, Run, dtype_of, without_dtype
from settings import LEAST_SIGNAL, TOLERANCES, choose

ENGINES = ("jax", "torch", "tensorflow")
#: Calls of a turn.
TURN = 5
DISTRIBUTIONS = (
    "keras jax torch tensorflow-cpu onnxruntime openvino nncf ai-edge-litert mnn ncnn pnnx"
)


class Problem(NamedTuple):
    """What all participants of a table compute, on how many threads, and in which second dtype."""

    name: str
    size: int
    batch: int
    threads: int
    dtype: str = "float32"

    @property
    def is_torch(self) -> bool:
        """Whether the network is a PyTorch module."""
        return self.name in GEFFNET

    def pictures(self) -> np.ndarray:
        """The input: images that differ."""
        if self.dtype == "int8":
            return networks.smooth_pictures(self.name, self.size, self.batch, seed=1)
        return networks.pictures(self.size, self.batch)

    def command(self, *options: str) -> list[str]:
        """The command line of a process of this script."""
        numbers = ("--size", self.size, "--batch", self.batch, "--threads", self.threads)
        return [
            *(sys.executable, __file__, self.name, "--dtype", self.dtype),
            *map(str, numbers),
            *options,
        ]

    def environment(self) -> dict[str, str]:
        """The environment of such a process."""
        return os.environ | {
            "SEPCONV_NUM_THREADS": str(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
        }


# ---- outputs of optimized networks


def optimized_network(model: Any, dtype: str, *example: Any) -> Any:
    """What `sepconv.optimize` makes, and its record; `example` is a PyTorch module's input."""
    import sepconv

    options = {} if dtype == "float32" else {"dtype": dtype}
    return sepconv.optimize(model, *example, **options)


def check(names: list[str], size: int | None, dtype: str) -> int:
    """Prints the difference that `optimize` makes to each output; 1 where it is too large.

    The optimized network is saved to a file and loaded from it first.
    """
    import keras

    failed = False
    print(f"engine {keras.backend.backend()}; difference relative to the largest output")
    for name in names:
        side = size or (299 if name == "Xception" else 224)
        try:
            model = network(name, side)
        except ValueError as error:  # NASNet does not exist on every backend
            print(f"{name:17} not available: {error}")
            continue
        optimized, record = optimized_network(model, dtype)
        with tempfile.TemporaryDirectory(prefix="sepconv-check-") as folder:
            optimized.save(Path(folder) / "optimized.keras")
            optimized = keras.models.load_model(Path(folder) / "optimized.keras")
        x = networks.pictures(side)
        apart = difference(optimized.predict_on_batch(x), model.predict_on_batch(x))
        failed |= not apart <= TOLERANCES[dtype]
        layers = f"{len(model.layers):3} layers -> {len(optimized.layers):3}"
        print(f"{name:17} {apart:.1e}  {layers}  {record.changed} changed", flush=True)
    return int(failed)


# ---- one process


def within(mode: Callable[[], Any], function: Callable[[Any], Any], image: Any) -> Run:
    """The call of a function on an image in a mode of PyTorch's."""

    def run() -> Any:
        with mode():
            return function(image)

    return run


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

    def call(x: Any) -> Any:
        return model(x, training=False)

    model.eval()
    return {
        "eager": within(torch.inference_mode, call, image),
        "compile": within(torch.inference_mode, torch.compile(call), image),
    }


def compiled_module(module: Any, x: np.ndarray) -> dict[str, Callable[[], Run]]:
    """The calls of a PyTorch module that may be the fastest."""
    import torch

    image = torch.from_numpy(x)

    def compile() -> Run:
        torch._inductor.config.freezing = True
        return within(torch.no_grad, torch.compile(module), image)

    return {"eager": lambda: within(torch.no_grad, module, image), "compile": compile}


def prepared(
    who: str, problem: Problem, folder: Path
) -> tuple[dict[str, Any], Callable[[], Any] | None]:
    """A participant in its process: what it says of itself, and what it runs."""
    x = problem.pictures()
    runs: dict[str, Callable[[], Run]]
    if who in RUNTIMES:
        runs = runtimes.runs(who, folder, x, problem.threads)
    else:
        kind, engine = without_dtype(who).split("-")
        if engine == "torch":
            import torch

            torch.set_num_threads(problem.threads)
        dtype = dtype_of(who)
        model = network(problem.name, problem.size, dtype if kind == "keras" else "float32")
        if problem.is_torch:
            if kind == "sepconv":
                model = optimized_network(model, dtype, torch.from_numpy(x))[0]
            runs = compiled_module(model, x)
        else:
            if kind == "sepconv":
                model = optimized_network(model, dtype).model
            runs = {way: lambda run=run: run for way, run in compiled(model, x).items()}
    chosen = choose(runs, folder / "expected.npy", dtype_of(who))
    if isinstance(chosen, str):
        return {"failed": chosen}, None
    return {"setting": chosen.setting, "signal": chosen.signal}, chosen.run


# ---- all of them


def operations(problem: Problem, model: Any, x: np.ndarray) -> int:
    """What a stock network computes: two operations a multiply-add."""
    if problem.is_torch:
        import torch

        import sepconv

        program = sepconv.compile(model, torch.from_numpy(x))
        return 2 * sum(step.multiply_adds for step in program.profile(x))
    from sepconv.models import cost

    # Keras exports only what has been called.
    found = cost.calls(model, lambda: model.predict_on_batch(x))
    return sum(cost.cost(call).operations for call in found)


def export(problem: Problem, folder: Path, who: list[str]) -> int:
    """Writes the stock network's cost and files, of Keras' on TensorFlow; 1 if one is missing."""
    model, x = network(problem.name, problem.size), problem.pictures()
    (folder / "operations").write_text(str(operations(problem, model, x)))
    names = dict.fromkeys(name for one in who for name in RUNTIMES[one])
    calibration = None
    if problem.dtype == "int8":
        calibration = networks.calibration(problem.name, problem.size)
    missing = exports.export(model, x, folder, names, calibration)
    for file, reason in missing.items():
        print(f"{file}: {reason}", file=sys.stderr)
    return int(bool(missing))


def write_files(problem: Problem, folder: Path, who: list[str]) -> None:
    """Runs `export` in its own process, and prints the files that it could not write."""
    command = problem.command("--export", "--folder", str(folder), "--runtimes", *who)
    environment = problem.environment()
    if not problem.is_torch:
        environment["KERAS_BACKEND"] = "tensorflow"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{problem.name}: files for the runtimes are missing:\n{done.stderr[-1000:]}")


def participant(who: str, problem: Problem, folder: Path) -> Participant:
    """The process of a participant."""
    environment = problem.environment()
    if who not in RUNTIMES:
        environment["KERAS_BACKEND"] = without_dtype(who).split("-")[1]
    command = problem.command("--serve", who, "--folder", str(folder))
    return Participant(command, environment, folder / f"{who}.log")


def compare(problem: Problem, rounds: int, who: list[str]) -> bool:
    """Measures one network and prints its table; returns whether all took part."""
    from sepconv.bench import roofline

    with tempfile.TemporaryDirectory(prefix="sepconv-inference-") as text:
        folder = Path(text)
        write_files(problem, folder, [one for one in who if one in RUNTIMES])
        # Of bfloat16 the peak is float32's: not every level multiplies it by itself.
        dtypes = ("float32", "int8")[: 2 if problem.dtype == "int8" else 1]
        peaks = [{d: roofline.measure_peak(problem.threads, 0.5, d) for d in dtypes}]
        with team() as members:
            for one in who:
                member = participant(one, problem, folder)
                if "failed" in member.first:
                    print(f"{problem.name}: {one} is left out: {member.first['failed']}")
                    member.close()
                else:
                    members[one] = member
            for _ in range(rounds):
                for member in members.values():
                    member.turn(TURN)
        peaks += [{d: roofline.measure_peak(problem.threads, 0.5, d) for d in dtypes}]
        path = folder / "operations"
        operations = float(path.read_text()) if path.exists() else float("nan")
    show(problem, members, {d: operations / max(peak[d] for peak in peaks) for d in dtypes})
    sys.stdout.flush()
    return len(members) == len(who)


def ratio(one: Participant, other: Participant) -> float:
    """How many times as long one takes as another: the median of the turns' ratios.

    A turn and the next are of the same moment, whatever else the machine does at times.
    """

    def turns(member: Participant) -> list[float]:
        starts = range(0, len(member.seconds), TURN)
        return [statistics.median(member.seconds[start : start + TURN]) for start in starts]

    return statistics.median(a / b for a, b in zip(turns(one), turns(other), strict=True))


def show(problem: Problem, members: dict[str, Participant], floors: dict[str, float]) -> None:
    """Prints the medians, each relative to the floor of its dtype and to sepconv's best."""
    medians = {one: statistics.median(p.seconds) for one, p in members.items() if p.seconds}
    ours = {one: t for one, t in medians.items() if one.startswith("sepconv")}
    name, size, batch, threads, dtype = problem
    bounds = {
        dtype_of(one): LEAST_SIGNAL if dtype_of(one) == "int8" else TOLERANCES[dtype_of(one)]
        for one in members
    }
    told = ", ".join(
        f"{bound} dB above the noise in int8" if dtype == "int8" else f"{bound} in {dtype}"
        for dtype, bound in bounds.items()
    )
    print(f"\n{name}, {batch} x {size} x {size}, {threads} threads, outputs equal to {told}")
    last, rule = (" signal to noise, dB |", " --- |") if dtype == "int8" else ("", "")
    print(f"| | median, ms | quartiles | way | to the floor | to the best sepconv |{last}")
    print(f"| --- | --- | --- | --- | --- | --- |{rule}")
    for of, floor in floors.items():
        what = "multiply-adds at the machine's peak" + f", {of}" * (len(floors) > 1)
        print(f"| {what} | {1e3 * floor:.2f} | | | | |{' |' if last else ''}")
    best = min(ours, key=ours.__getitem__, default=None)
    for one, median in sorted(medians.items(), key=lambda item: item[1]):
        low, _, high = (1e3 * q for q in statistics.quantiles(members[one].seconds, n=4))
        first = members[one].first
        floor = floors.get(dtype_of(one), floors["float32"])
        slower = float("nan") if best is None else ratio(members[one], members[best])
        ratios = f"{median / floor:.2f}x | {slower:.2f}x |"
        if last:
            ratios += " |" if first["signal"] is None else f" {first['signal']:.1f} |"
        way = first["setting"]
        print(f"| {one} | {1e3 * median:.2f} | {low:.2f} to {high:.2f} | {way} | {ratios}")
    stock = [one for one in medians if one.startswith(("keras", "stock"))]
    if stock and best is not None:
        slower = ratio(members[min(stock, key=medians.__getitem__)], members[best])
        print(f"best stock / best sepconv: {slower:.2f}x")
    for one in medians:
        if without_dtype(one) != one and without_dtype(one) in medians:
            gain = ratio(members[without_dtype(one)], members[one])
            print(f"{without_dtype(one)}: float32 / {dtype_of(one)}: {gain:.2f}x")


def with_narrow(who: list[str], dtype: str) -> list[str]:
    """The participants that have a dtype, each in float32 first; prints who has not."""

    def has(one: str) -> bool:
        return f"{one}-{dtype}" in RUNTIMES or (one not in RUNTIMES and dtype in POLICIES)

    able = [one for one in who if has(one)]
    for one in who:
        if one not in able:
            known = exports_int8.WITHOUT if dtype == "int8" else {}
            why = f": {known[one]}" if one in known else ""
            print(f"{one} does not compute in {dtype}, so it is left out{why}")
    return able + [f"{one}-{dtype}" for one in able]


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    known = NETWORKS + GEFFNET
    parser.add_argument("networks", nargs="*", default=[], metavar="NETWORK", help=str(known))
    parser.add_argument("--check", action="store_true", help="compare outputs and time nothing")
    parser.add_argument("--dtype", choices=("float32", *NARROW), default="float32")
    parser.add_argument("--size", type=int, help="of the picture (default: the network's own)")
    parser.add_argument("--batch", type=int, default=1, help="pictures a call")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=40, help=f"turns of {TURN} calls each")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    wide = [name for name in RUNTIMES if without_dtype(name) == name]
    parser.add_argument("--runtimes", nargs="*", choices=RUNTIMES, default=wide)
    for hidden in ("--serve", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.networks) - set(known)
    if unknown:
        parser.error(f"unknown networks {sorted(unknown)}; there are {known}")
    of_torch = set(options.networks) & set(GEFFNET)
    if of_torch and (options.check or options.dtype == "int8"):
        parser.error(f"--check and int8 are of Keras' networks. Received: {sorted(of_torch)}")
    if min(options.batch, options.threads, options.rounds) < 1:
        parser.error("--batch, --threads and --rounds must be at least 1")
    problems = [
        Problem(
            name,
            options.size or (299 if name == "Xception" else 224),
            options.batch,
            options.threads,
            options.dtype,
        )
        for name in options.networks or ("MobileNet", "MobileNetV2", "EfficientNetB0")
    ]
    if options.check and options.dtype == "int8":
        parser.error("--check is of `sepconv.optimize`, which does not make int8")
    if options.export:
        return export(problems[0], Path(options.folder), options.runtimes)
    if options.serve:
        answer_turns(lambda: prepared(options.serve, problems[0], Path(options.folder)))
        return 0
    if options.check:
        return check(options.networks or list(NETWORKS), options.size, options.dtype)
    print(versions())
    good = True
    for problem in problems:
        engines = [e for e in options.engines if e == "torch" or not problem.is_torch]
        stock = "stock" if problem.is_torch else "keras"
        who = [f"{kind}-{engine}" for kind in (stock, "sepconv") for engine in engines]
        who += options.runtimes
        if options.dtype != "float32":
            who = with_narrow(who, options.dtype)
        good &= compare(problem, options.rounds, who)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
