"""The demo's two processes, how they end, and the table of what they measured."""

import json
import os

import pytest

from sepconv.demo import compare
from sepconv.demo.training import Job

JOB = Job("keras", "digits", 1, 0, "weights.npz")


@pytest.fixture
def child(tmp_path, monkeypatch):
    """`child(script)` lets a shell script stand for the process that trains."""

    def prepare(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(compare.sys, "executable", str(path))

    return prepare


def test_a_training_tells_its_events_and_returns_its_run(child, comparison):
    done = json.dumps({"event": "done", "run": vars(comparison.ours)})
    child(f'echo \'{{"event": "start", "steps": 3}}\'\necho \'{done}\'')
    shown = []
    assert compare._run(JOB, "jax", shown.append) == comparison.ours
    assert shown == [{"event": "start", "steps": 3}]


def test_the_two_trainings_follow_each_other_from_one_file_of_weights(monkeypatch, comparison):
    from rich.console import Console

    jobs = []

    def run(job, engine, show):
        jobs.append(job)
        show({"event": "start", "steps": 1})
        show({"event": "batch", "epoch": 0, "loss": 0.5, "accuracy": 0.75})
        show({"event": "epoch", "epoch": 0, "val_accuracy": 0.875})
        return getattr(comparison, {"keras": "stock", "sepconv": "ours"}[job.layers])

    monkeypatch.setattr(compare, "_run", run)
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    assert compare.compare("jax", "digits", 1, 7, console) == compare.Comparison(
        "jax", "digits", 7, comparison.stock, comparison.ours
    )
    assert [job.layers for job in jobs] == ["keras", "sepconv"]
    assert jobs[0].weights == jobs[1].weights
    assert console.export_text().count("loss 0.500 accuracy 75.0% test 87.5%") == 2


def test_a_training_that_dies_is_told_with_its_last_words(child):
    child("echo the last words >&2; exit 7")
    with pytest.raises(compare.TrainingError, match=r"(?s)exit code 7.*the last words"):
        compare._run(JOB, "jax", print)


def test_an_interrupt_ends_the_training_process(child):
    child('echo "{\\"event\\": \\"start\\", \\"pid\\": $$}"\nexec sleep 600')
    seen = []

    def interrupt(event):
        seen.append(event["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare._run(JOB, "jax", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_the_table_says_what_was_measured(comparison):
    rows = {name: (stock, ours) for name, stock, ours in compare.table(comparison)}
    assert rows["seconds an epoch"] == ("4.00", "0.40")  # the median without the first
    assert rows["test accuracy"] == ("97.50%", "97.50%")
    assert rows["peak memory, MB"] == ("123", "123")
    assert rows["speed-up an epoch"] == ("1.0x", "10.0x")
