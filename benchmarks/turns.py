"""Times ways of doing the same in turns, so that whatever else the machine does meets them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["in_turns", "timed"]

#: How long a turn lasts at most beside its unmeasured run, in seconds; a slower way runs once.
_TURN = 0.5


def in_turns(
    ways: Sequence[Callable[[], Any]], seconds: float, at_least: int = 3
) -> list[list[float]]:
    """Runs ways in turns, in one order and then in the other.

    A turn begins with a run that is not measured. The first run after another way's finds memory
    and caches as that one left them: it may take half as long again, which no run of a loop does.

    Args:
        ways: functions without arguments that return once the work is done.
        seconds: how long to measure all of them together.
        at_least: how many turns each has, however long they take.

    Returns:
        The seconds of each measured run, for each way.
    """
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < end or turn < at_least:
        order = list(zip(ways, times, strict=True))
        for way, spent in reversed(order) if turn % 2 else order:
            way()
            until = time.perf_counter() + min(_TURN, seconds)
            while True:
                start = time.perf_counter()
                way()
                now = time.perf_counter()
                spent.append(now - start)
                if now > until:
                    break
        turn += 1
    return times


def timed(run: Callable[[], Any], count: int) -> list[float]:
    """The seconds of each of so many runs."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds
