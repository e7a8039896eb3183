"""Peers take turns: how often each is called, and what happens to those that end.

No time is asserted; what is run is tiny.
"""

import os

import pytest
from helpers.benchmarks import MACHINE, SMALL

from sepconv.bench import measure, peers
from sepconv.bench.workloads import Case


@pytest.mark.parametrize(("seconds", "calls"), [(1e-3, 3), (0.3, 2), (4.0, 1)])
def test_the_longer_a_call_the_fewer(seconds, calls):
    asked = []
    chosen = {"setting": "the only one", "seconds": seconds}

    class Fake:
        def ask(self, patience, do, **options):
            asked.append(do)
            return {"seconds": [seconds] * options["calls"]} if do == "run" else chosen

    plan = measure.Plan(seconds=0.1, rounds=3)
    turns = measure._Round(Case(SMALL, 1, "depthwise"), MACHINE, plan, {})
    turns.team = {peers.OURS: Fake()}
    turns._time({peers.OURS: 0.0})
    assert asked == ["choose", *["run"] * calls]


def test_a_process_that_ends_is_told_of_and_started_anew():
    plan = measure.Plan(seconds=0.01, rounds=2, patience=30)
    with measure.workers([], 1, 60) as team:
        os.kill(team[peers.OURS]._process.pid, 9)
        first, second = measure.run([Case(SMALL, 1, "depthwise")] * 2, MACHINE, plan, team)
    assert "its process ended" in first.failures[peers.OURS]
    assert first.ours is None
    assert second.ours is not None
    assert second.ours.error < 1e-5


def test_a_run_stops_at_its_deadline():
    plan = measure.Plan(deadline=-1)
    assert list(measure.run([Case(SMALL, 1, "depthwise")], MACHINE, plan, {})) == []
