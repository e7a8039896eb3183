"""Workers: the processes of one training, all of which end with it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["FailedError", "Workers"]

HERE = Path(__file__).parent


class FailedError(RuntimeError):
    """A worker failed or did not end; the message has its last output."""


def free_ports(count: int) -> list[int]:
    """Free ports of the loopback interface."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Workers:
    """The processes of one training, as a context that ends those that still run.

    Args:
        engine: ``"jax"``, ``"torch"`` or ``"tensorflow"``.
        world: the number of processes.
        steps: training steps.
        way: the engine's way to train.
        patience: seconds that one process waits for another.
        environment: more variables for them.
    """

    def __init__(
        self,
        engine: str,
        world: int,
        steps: int,
        way: str = "",
        patience: int = 10,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [f"--port={port}" for port in free_ports(world)]
        variables = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        # The processes share one machine's processors here.
        variables |= {"SEPCONV_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
        self.processes: list[subprocess.Popen[bytes]] = []
        for rank in range(world):
            command = [sys.executable, str(HERE / f"train_{engine}.py"), f"--rank={rank}"]
            command += [f"--world={world}", *ports, f"--steps={steps}", f"--patience={patience}"]
            with open(self._out(rank), "wb") as out, open(self._err(rank), "wb") as err:
                process = subprocess.Popen(
                    [*command, f"--way={way}"], stdout=out, stderr=err, env=variables
                )
            self.processes.append(process)
            self._stack.callback(self._end, process)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def _out(self, rank: int) -> Path:
        return self._folder / f"{rank}.out"

    def _err(self, rank: int) -> Path:
        return self._folder / f"{rank}.err"

    def said(self, rank: int) -> str:
        """The standard error of a worker so far."""
        return self._err(rank).read_text(errors="replace")

    def losses(self, rank: int) -> list[float]:
        """The losses that a worker has reported so far."""
        text = self._out(rank).read_text(errors="replace")
        return [float(value) for value in re.findall(r"^loss \d+ (\S+)\n", text, re.MULTILINE)]

    def wait_for_losses(self, rank: int, count: int, seconds: float) -> None:
        """Waits until a worker has reported `count` losses.

        Raises:
            FailedError: the worker ended before, or the time is over.
        """
        end = time.monotonic() + seconds
        while len(self.losses(rank)) < count:
            if self.processes[rank].poll() is not None or time.monotonic() > end:
                raise FailedError(
                    f"worker {rank} told no {count} losses:\n{self.said(rank)[-3000:]}"
                )
            time.sleep(0.05)

    def wait(self, rank: int, seconds: float) -> int:
        """Waits for the end of a worker.

        Returns:
            Its exit code.

        Raises:
            FailedError: the time is over.
        """
        try:
            return self.processes[rank].wait(seconds)
        except subprocess.TimeoutExpired:
            said = self.said(rank)[-3000:]
            raise FailedError(f"worker {rank} hangs: no end in {seconds:.0f} s\n{said}") from None

    def finish(self, seconds: float) -> list[list[float]]:
        """Waits for the end of all workers.

        Returns:
            The losses that each has reported.

        Raises:
            FailedError: one failed, or the time is over.
        """
        end = time.monotonic() + seconds
        for rank in range(len(self.processes)):
            code = self.wait(rank, max(end - time.monotonic(), 0.1))
            if code:
                said = self.said(rank)[-3000:]
                raise FailedError(f"worker {rank} ended with code {code}:\n{said}")
        return [self.losses(rank) for rank in range(len(self.processes))]
