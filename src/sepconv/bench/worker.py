"""The process of one peer: it prepares, runs and times cases on command.

    python -m sepconv.bench.worker PEER THREADS

Commands are lines of JSON on the standard input; each is answered by one on the standard output.
Between commands the process waits in a read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from sepconv.bench import cases, peers
from sepconv.bench.workloads import Case, Workload

__all__ = ["decode", "encode", "main"]

#: Seconds of preparing one case after which no further setting is tried, if one is correct.
_ENOUGH_SECONDS = 10.0


def encode(case: Case) -> dict[str, Any]:
    """A case for JSON."""
    return case._asdict() | {"workload": vars(case.workload)}


def decode(value: dict[str, Any]) -> Case:
    """The inverse of `encode`."""
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in value["workload"].items()
    }
    return Case(**value | {"workload": Workload(**fields)})


def _timed(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class _Server:
    """Answers commands; each method is one."""

    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self.ready: dict[str, peers.BuiltCase] = {}

    def prepare(self, case: dict[str, Any], folder: str, thorough: bool) -> dict[str, Any]:
        """Builds the case in all settings and keeps those with correct outputs.

        Answers with the largest error among those, and the failures of the others.
        """
        self.ready = {}
        decoded = decode(case)
        inputs = cases.load(Path(folder) / "inputs")
        answers = cases.load(Path(folder) / "answers")
        errors, wrong = [0.0], {}
        begun = time.monotonic()
        for setting, build in self.peer.builds(decoded, inputs, thorough).items():
            if self.ready and time.monotonic() - begun > _ENOUGH_SECONDS:
                wrong[setting] = "not tried, since others took long already"
                continue
            try:
                prepared = build()
                error = _largest_error(prepared.outputs(prepared.run()), answers)
            except Exception as failure:
                wrong[setting] = "".join(traceback.format_exception_only(failure)).strip()[-500:]
                continue
            if error <= cases.TOLERANCES[decoded.dtype]:
                self.ready[setting] = prepared
                errors.append(error)
            else:
                wrong[setting] = f"outputs are off by {error:.1e}, relative"
        return {"settings": list(self.ready), "error": max(errors), "wrong": wrong}

    def choose(self) -> dict[str, Any]:
        """Keeps the fastest prepared setting; answers with its name and seconds."""
        times: dict[str, float] = {}
        for setting, prepared in self.ready.items():
            seconds = _timed(prepared.run)
            fastest = min(times.values(), default=seconds)
            rest = 4 if seconds < 0.25 and seconds < 3 * fastest else 0
            times[setting] = min([seconds, *(_timed(prepared.run) for _ in range(rest))])
        best = min(times, key=lambda setting: times[setting])
        self.ready = {best: self.ready[best]}
        return {"setting": best, "seconds": times[best]}

    def run(self, warm: int, calls: int) -> dict[str, Any]:
        """Runs the case, `warm` times untimed and `calls` times timed."""
        (prepared,) = self.ready.values()
        for _ in range(warm):
            prepared.run()
        return {"seconds": [_timed(prepared.run) for _ in range(calls)]}

    def drop(self) -> dict[str, Any]:
        """Forgets the case."""
        self.ready = {}
        return {}


def _largest_error(received: cases.Arrays, answers: cases.Arrays) -> float:
    """The largest error of all outputs; each must be there in the right shape."""
    worst = 0.0
    for name, answer in answers.items():
        if name not in received:
            raise ValueError(f"the output {name} is missing")
        if received[name].shape != answer.shape:
            raise ValueError(f"{name} has shape {received[name].shape}, expected {answer.shape}")
        error = cases.relative_error(received[name], answer)
        worst = max(worst, error) if error == error else float("inf")
    return worst


def _die_with_parent() -> None:
    """Asks Linux to end this process with its parent, even while it is stopped."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """Serves until the standard input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    # Output that libraries print must not get into the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, threads = sys.argv[1], int(sys.argv[2])

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    kind = peers.load(name)
    server = _Server(kind(threads))
    answer({"version": kind.version()})
    for line in sys.stdin:
        command = json.loads(line)
        answer(getattr(server, command.pop("do"))(**command))


if __name__ == "__main__":
    main()
