"""Trains in two processes and in one, and compares the losses.

python examples/distributed/run.py                  # every engine that is installed
python examples/distributed/run.py --engine torch   # one
python examples/distributed/run.py --kill           # one worker is killed in mid-training
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import tempfile
import time
from pathlib import Path

from processes import FailedError, Workers

#: Each engine's ways to train, with their titles.
WAYS = {
    "jax": {"jit": "JAX, a jitted step, batch sharded", "keras": "JAX, keras DataParallel"},
    "torch": {"ddp": "PyTorch, DistributedDataParallel"},
    "tensorflow": {"strategy": "TensorFlow, MultiWorkerMirroredStrategy"},
}
TOLERANCE = 1e-5  # of float32 sums that are added in another order
SECONDS = 240  # for one training, after which it counts as hanging

_COLLECTIVES = (
    r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def collectives(folder: Path) -> dict[str, int]:
    """The communication in the compiled programs that contain our gradients.

    Args:
        folder: where XLA has dumped its programs.

    Returns:
        The number of operations of each kind.

    Raises:
        FailedError: there is no such program.
    """
    counts: dict[str, int] = {}
    programs = 0
    for path in folder.glob("*after_optimizations.txt"):
        text = path.read_text()
        if "sepconv_backward" in text:
            programs += 1
            for name in re.findall(_COLLECTIVES, text):
                counts[name] = counts.get(name, 0) + 1
    if not programs:
        raise FailedError(f"XLA dumped no program with sepconv's gradients to {folder}")
    return counts


def compare(engine: str, way: str, steps: int) -> float:
    """Trains both ways and prints the losses.

    Returns:
        The largest difference of two losses.

    Raises:
        FailedError: a worker failed, or JAX' program gathers.
    """
    with Workers(engine, 1, steps, way) as workers:
        (whole,) = workers.finish(SECONDS)
    with tempfile.TemporaryDirectory() as dump:
        flags = {"XLA_FLAGS": f"--xla_dump_to={dump} --xla_dump_hlo_as_text"}
        with Workers(engine, 2, steps, way, environment=flags) as workers:
            parts = workers.finish(SECONDS)
        found = collectives(Path(dump)) if engine == "jax" else None
    print(f"\n{WAYS[engine][way]}\n  step  one process   rank 0 of 2   rank 1 of 2   difference")
    largest = 0.0
    for step, losses in enumerate(zip(whole, *parts, strict=True)):
        difference = max(losses) - min(losses)
        largest = max(largest, difference)
        row = "  ".join(f"{loss:12.9f}" for loss in losses)
        print(f"  {step:4d}  {row}  {difference:11.1e}")
    print(f"  largest difference: {largest:.1e}")
    if found is not None:
        print(f"  collectives in the compiled step: {found}")
        if set(found) != {"all-reduce"}:
            raise FailedError(f"expected only sums of gradients. Received: {found}")
    return largest


def last_words(text: str) -> str:
    """The exception in a worker's standard error, else its last line."""
    exceptions = r"^(?:\[rank\d\]: )?[\w.]*(?:Error|Exception)\b.*:"
    found = list(re.finditer(exceptions, text, re.MULTILINE))
    rest = text[found[-1].start() :] if found else (text.strip().splitlines() or ["nothing"])[-1]
    return " ".join(rest.split())[:400]


def kill(engine: str, way: str, patience: int = 10) -> float:
    """Kills rank 1 during training and prints how rank 0 ends.

    Returns:
        The seconds from there to the end of rank 0.

    Raises:
        FailedError: rank 0 hangs, or ends without an error.
    """
    with Workers(engine, 2, 1_000_000, way, patience) as workers:
        for rank in range(2):
            workers.wait_for_losses(rank, 3, SECONDS)
        workers.processes[1].kill()
        start = time.monotonic()
        code = workers.wait(0, SECONDS)
        seconds = time.monotonic() - start
        if code == 0:
            raise FailedError("the survivor ended as if nothing had been")
        print(f"\n{WAYS[engine][way]}: rank 1 is killed")
        print(f"  rank 0 ended {seconds:.1f} s later with code {code}, saying:")
        print(f"  {last_words(workers.said(0))}")
    return seconds


def main() -> int:
    """Runs what the command line asks for; 1 where something differs, fails or hangs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=WAYS, action="append", help="may be given repeatedly")
    parser.add_argument("--steps", type=int, default=8, help="training steps (8)")
    parser.add_argument("--kill", action="store_true", help="kill a worker in mid-training")
    given = parser.parse_args()
    engines = given.engine or [name for name in WAYS if importlib.util.find_spec(name)]
    failed = False
    for engine in engines:
        for way in WAYS[engine]:
            try:
                if given.kill:
                    kill(engine, way)
                else:
                    failed |= not compare(engine, way, given.steps) <= TOLERANCE
            except FailedError as error:
                print(f"\n{WAYS[engine][way]}: {error}", file=sys.stderr)
                failed = True
            sys.stdout.flush()
    print("\nFAILED" if failed else "\nall as it should be")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
