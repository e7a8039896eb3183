"""Processes that take turns at computing, so that no one finds what another left in memory.

The C library's state belongs to a process: whether what a step frees is there for the next one, or
has to be got from the system again, depends on all that the process did before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turns import timed

__all__ = ["Participant", "answer_turns", "team"]


class Participant:
    """A process that takes turns, and is stopped between them; it calls `answer_turns`.

    Attributes:
        first: what it said of itself, or `{"failed": reason}`.
        seconds: those of each run of its turns.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
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
        code = self.process.wait()
        ended = f"its process ended with {signal.Signals(-code).name if code < 0 else code}"
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return {"failed": ": ".join([ended, *lines[-1:]])[:300]}

    def turn(self, count: int) -> None:
        """Runs it `count` times.

        Raises:
            RuntimeError: its process ended, with what it wrote last.
        """
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self._hear()
        if isinstance(answer, dict):
            raise RuntimeError(f"{self.log.stem}: {answer['failed']}")
        self.seconds += answer
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()


@contextmanager
def team() -> Iterator[dict[str, Participant]]:
    """A dictionary for participants, who end when the block ends, also by a signal."""
    members: dict[str, Participant] = {}
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield members
    finally:
        for member in members.values():
            member.close()
        signal.signal(signal.SIGTERM, before)


def answer_turns(prepare: Callable[[], tuple[dict[str, Any], Callable[[], Any] | None]]) -> None:
    """What a participant's process does: prepares, then answers each line of input with a turn.

    Each turn begins with a run that is not measured.

    Args:
        prepare: gives what to say of this participant, and what to run, or None where it failed.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    said, run = prepare()
    answer(said)
    if run is None:
        return
    for line in sys.stdin:
        run()
        answer(timed(run, int(line)))
