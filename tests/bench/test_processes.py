"""benchmarks/processes.py: participants that take turns, and those whose process ends."""

import os
import sys
from pathlib import Path

import pytest
from helpers.scripts import BENCHMARKS, importable

with importable(BENCHMARKS):
    import processes

PARTICIPANT = """
import itertools, os, signal, sys
sys.path.insert(0, {folder!r})
import processes
calls = itertools.count()
def run():
    if next(calls) == {last}:
        print("out of memory", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
processes.answer_turns(lambda: ({{"name": "one"}}, run))
"""


def participant(folder: Path, last: int) -> processes.Participant:
    """A process that ends by a signal at its run of number `last`."""
    code = PARTICIPANT.format(folder=str(BENCHMARKS), last=last)
    return processes.Participant([sys.executable, "-c", code], dict(os.environ), folder / "one")


def test_turns(tmp_path):
    with processes.team() as members:
        members["one"] = participant(tmp_path, last=-1)
        assert members["one"].first == {"name": "one"}
        members["one"].turn(3)
        members["one"].turn(2)
        assert len(members["one"].seconds) == 5
    assert members["one"].process.returncode is not None


def test_an_ended_process_is_not_left_out_in_silence(tmp_path):
    with processes.team() as members:
        members["one"] = participant(tmp_path, last=4)
        members["one"].turn(3)
        with pytest.raises(RuntimeError, match=r"one: its process ended with SIGKILL: out of mem"):
            members["one"].turn(3)
        assert len(members["one"].seconds) == 3
