"""Runs the peers' processes, one at a time, and times them.

Each peer has its own process, on the same cores and with the same number of threads. In a case they
take turns, round after round, so that other load on the machine meets all of them. Processes that
wait are stopped (SIGSTOP), since some thread pools spin for a while after their work.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepconv.bench import cases, peers
from sepconv.bench.roofline import Floor, Machine, floor
from sepconv.bench.worker import encode
from sepconv.bench.workloads import Case

__all__ = ["Plan", "Result", "Sample", "Worker", "WorkerError", "pinned", "run", "workers"]


#: Seconds. A call that takes longer is timed once.
_LONG_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """How long to measure a case.

    Attributes:
        seconds: timed seconds for each peer and case.
        rounds: the turns that these are divided into.
        patience: seconds to wait for an answer.
        deadline: seconds after which no new case is begun; infinite for none.
        thorough: whether to try settings that take long to build.
    """

    seconds: float = 0.3
    rounds: int = 6
    patience: float = 60.0
    deadline: float = math.inf
    thorough: bool = True


@dataclass(frozen=True)
class Sample:
    """The times of one peer for a case.

    Attributes:
        setting: the name of its fastest build.
        error: the largest relative error of its outputs in the norm, over all correct builds.
        seconds: every timed call.
    """

    setting: str
    error: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """The median of the timed calls, in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile, in seconds."""
        if len(self.seconds) < 2:
            return (self.seconds[0], self.seconds[0])
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (low, high)


@dataclass
class Result:
    """The result of one case.

    Attributes:
        case: what was run.
        floor: the least time that it needs.
        samples: of the peers with correct results, by name.
        failures: why other peers were not timed, by name.
    """

    case: Case
    floor: Floor
    samples: dict[str, Sample] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> Sample | None:
        """Sepconv's sample."""
        return self.samples.get(peers.OURS)

    @property
    def best(self) -> str | None:
        """The name of the fastest peer."""
        others = {name: s.median for name, s in self.samples.items() if name in peers.PEERS}
        return min(others, key=lambda name: others[name], default=None)

    @property
    def speed_up(self) -> float | None:
        """The fastest peer's time over sepconv's; above 1 where sepconv is faster."""
        if self.ours is None or self.best is None:
            return None
        return self.samples[self.best].median / self.ours.median

    @property
    def gain(self) -> float | None:
        """Sepconv's time in float32 over its time in the case's dtype; above 1 where that gains."""
        float32 = self.samples.get(peers.OURS_FLOAT32)
        if self.ours is None or float32 is None:
            return None
        return float32.median / self.ours.median


class WorkerError(RuntimeError):
    """A worker ended or does not answer; the message has its last output."""


class Worker:
    """One peer's process."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.version = ""
        self._start()

    def _start(self) -> None:
        count = str(self.threads)
        environment = os.environ | {
            "SEPCONV_NUM_THREADS": count,
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            **peers.load(self.name).environment,
        }
        # -P: a stray module in the current folder must not stand in for a real one.
        command = [sys.executable, "-P", "-m", "sepconv.bench.worker", self.name, count]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._answers = self._process.stdin, self._process.stdout
        self._greeted = False

    def greet(self, patience: float) -> None:
        """Waits until it is ready."""
        if not self._greeted:
            self._process.send_signal(signal.SIGCONT)
            self.version = self._receive(patience)["version"]
            self._greeted = True
            self.stop()

    def stop(self) -> None:
        """Stops the process until the next command."""
        self._process.send_signal(signal.SIGSTOP)

    def tell(self, **command: Any) -> None:
        """Sends a command; `hear` returns the answer."""
        self._process.send_signal(signal.SIGCONT)
        try:
            self._commands.write(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise self._ended() from error

    def hear(self, patience: float) -> dict[str, Any]:
        """The answer to the last command."""
        answer = self._receive(patience)
        self.stop()
        return answer

    def ask(self, patience: float, **command: Any) -> dict[str, Any]:
        """Sends a command and returns the answer."""
        self.tell(**command)
        return self.hear(patience)

    def _receive(self, patience: float) -> dict[str, Any]:
        end = time.monotonic() + patience
        received = b""
        pipe = self._answers.fileno()
        while not received.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise WorkerError(f"took longer than {patience:.0f} s")
            part = os.read(pipe, 1 << 16)
            if not part:
                raise self._ended()
            received += part
        return json.loads(received)

    def _ended(self) -> WorkerError:
        code = self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        return WorkerError(f"its process ended (exit code {code}): {' | '.join(said[-3:])[-500:]}")

    def restart(self) -> None:
        """Ends it and starts a new one, which waits for `greet`."""
        self.close()
        self._start()
        self.stop()

    def close(self) -> None:
        """Ends the process, by force if it does not react."""
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # while stopped it would not notice
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._commands.close()
        self._answers.close()
        self._errors.close()


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keeps this process, and those it starts, on the first `threads` of its cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def workers(names: list[str], threads: int, patience: float) -> Iterator[dict[str, Worker]]:
    """The processes of `OURS` and of others, ready.

    Raises:
        WorkerError: sepconv's own process cannot start. Peers that cannot start are tried again in
            each case, and reported there.
    """
    started: dict[str, Worker] = {}
    try:
        for name in [peers.OURS, *names]:
            started[name] = Worker(name, threads)
        for name, worker in started.items():
            try:
                worker.greet(patience)
            except WorkerError:
                if name == peers.OURS:
                    raise
        yield started
    finally:
        for worker in started.values():
            worker.close()


class _Round:
    """The measurement of one case."""

    def __init__(self, case: Case, machine: Machine, plan: Plan, team: dict[str, Worker]) -> None:
        self.plan = plan
        self.result = Result(case, floor(case, machine))
        self.team = {
            name: worker for name, worker in team.items() if peers.load(name).supports(case)
        }

    def _each(self, act: Callable[[str, Worker], object]) -> None:
        """Calls `act` for every worker still in the case; one that fails leaves it."""
        for name, worker in list(self.team.items()):
            try:
                act(name, worker)
            except WorkerError as error:
                self._lose(name, str(error))
                worker.restart()

    def _lose(self, name: str, reason: str) -> None:
        self.result.failures[name] = reason
        del self.team[name]

    def run(self) -> Result:
        with tempfile.TemporaryDirectory(prefix="sepconv-bench-") as folder:
            inputs, answers = cases.make(self.result.case)
            cases.save(Path(folder) / "inputs", inputs)
            cases.save(Path(folder) / "answers", answers)
            del inputs, answers
            errors = self._prepare(folder)
        self._time(errors)
        self._each(lambda name, worker: worker.ask(self.plan.patience, do="drop"))
        return self.result

    def _prepare(self, folder: str) -> dict[str, float]:
        """Prepares all workers at once, untimed; returns the errors of the correct ones."""
        errors: dict[str, float] = {}
        case = self.result.case

        def tell(name: str, worker: Worker) -> None:
            worker.greet(self.plan.patience)
            own = case._replace(dtype="float32") if name == peers.OURS_FLOAT32 else case
            command = {"folder": folder, "thorough": self.plan.thorough}
            worker.tell(do="prepare", case=encode(own), **command)

        def hear(name: str, worker: Worker) -> None:
            answer = worker.hear(self.plan.patience)
            errors[name] = answer["error"]
            if answer["settings"]:
                return
            wrong = "; ".join(f"{setting}: {why}" for setting, why in answer["wrong"].items())
            self._lose(name, wrong)

        self._each(tell)
        self._each(hear)
        return errors

    def _time(self, errors: dict[str, float]) -> None:
        fastest: dict[str, float] = {}
        plan, samples = self.plan, self.result.samples

        def choose(name: str, worker: Worker) -> None:
            answer = worker.ask(plan.patience, do="choose")
            samples[name] = Sample(answer["setting"], errors[name], [])
            fastest[name] = answer["seconds"]

        def turn(name: str, worker: Worker) -> None:
            enough = 1 if fastest[name] > _LONG_SECONDS else 2
            if spent.get(name, 0) >= 2 * plan.seconds and len(samples[name].seconds) >= enough:
                return
            warm, timed = _calls(fastest[name], plan)
            answer = worker.ask(plan.patience, do="run", warm=warm, calls=timed)
            fastest[name] = min(fastest[name], *answer["seconds"])
            samples[name].seconds.extend(answer["seconds"])
            spent[name] = spent.get(name, 0) + sum(answer["seconds"])

        spent: dict[str, float] = {}
        self._each(choose)
        for _ in range(plan.rounds):
            self._each(turn)
        for name in self.result.failures:
            samples.pop(name, None)


def _calls(seconds: float, plan: Plan) -> tuple[int, int]:
    """(untimed, timed) calls a turn, for something that takes `seconds`."""
    turn = plan.seconds / plan.rounds
    timed = max(1, min(200, round(turn / max(seconds, 1e-7))))
    # The untimed call warms caches and threads; a long call does so itself.
    return (1 if seconds < turn else 0, timed)


def run(
    chosen: list[Case],
    machine: Machine,
    plan: Plan,
    team: dict[str, Worker],
    show: Callable[[int, Case, Result | None], None] = lambda index, case, result: None,
) -> Iterator[Result]:
    """Measures cases, one by one.

    Args:
        chosen: what to measure.
        machine: the machine's limits, for the floors.
        plan: how long to measure.
        team: the processes, from `workers`.
        show: called with a case's index before it is measured, and with index and result after.

    Yields:
        A `Result` for each case, until the plan's deadline.
    """
    begun = time.monotonic()
    for index, case in enumerate(chosen):
        if time.monotonic() - begun > plan.deadline:
            return
        show(index, case, None)
        result = _Round(case, machine, plan, team).run()
        show(index, case, result)
        yield result
