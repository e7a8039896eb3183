"""Runs the demo's two trainings, each in its own process, and shows their progress."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepconv.demo.training import Job, Run

__all__ = [
    "ENGINES",
    "LABELS",
    "Comparison",
    "NotInstalledError",
    "TrainingError",
    "check_installed",
    "compare",
    "table",
]

#: Engine -> (its module, its name for users).
ENGINES = {
    "jax": ("jax", "JAX"),
    "torch": ("torch", "PyTorch"),
    "tensorflow": ("tensorflow", "TensorFlow"),
}
#: The names of the two on the screen and in the report.
LABELS = {"keras": "Keras' own layers", "sepconv": "sepconv.layers"}


class TrainingError(RuntimeError):
    """A training's process ended too early; the message ends with its output."""


class NotInstalledError(RuntimeError):
    """A package that the demo needs is missing; the message says how to install it."""


@dataclass(frozen=True)
class Comparison:
    """The results of the two trainings, and the facts about the machine."""

    engine: str
    data: str
    seed: int
    stock: Run
    ours: Run

    @property
    def speed_up(self) -> float:
        """The seconds per epoch of Keras' layers, divided by ours."""
        return self.stock.seconds_an_epoch / self.ours.seconds_an_epoch


def check_installed(engine: str) -> None:
    """Raises `NotInstalledError` where the demo could not run on that engine."""
    packages = {"keras": "keras", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    packages |= {"rich": "rich", ENGINES[engine][0]: ENGINES[engine][1]}
    missing = [name for module, name in packages.items() if not _found(module)]
    if missing:
        raise NotInstalledError(
            f"The demo on {ENGINES[engine][1]} needs {', '.join(missing)}, not installed here. "
            f"Install what it needs with:\n    pip install 'sepconv[{engine},demo]'\n"
            f"or, in a clone of the repository:\n    make demo ENGINE={engine}"
        )


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextmanager
def _process(job: Job, engine: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A context with the process of a job, which ends with it, and its error output."""
    environment = os.environ | {"KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "2"}
    # -P: a stray module in the current folder must not stand in for a real one.
    command = [sys.executable, "-P", "-m", "sepconv.demo.training", json.dumps(vars(job))]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        try:
            yield process, errors
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _run(job: Job, engine: str, show: Callable[[dict[str, Any]], None]) -> Run:
    with _process(job, engine) as (process, errors):
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "done":
                return Run(**event["run"])
            show(event)
        code = process.wait()
        errors.seek(0)
        said = "".join(errors.readlines()[-15:])
    raise TrainingError(
        f"Training with {LABELS[job.layers]} on {engine} ended early (exit code {code}):\n{said}"
    )


def compare(engine: str, data: str, epochs: int, seed: int, console: Any) -> Comparison:
    """Trains with Keras' own layers, then with sepconv's, from the same weights.

    Args:
        engine: a key of `ENGINES`.
        data: a key of `sepconv.demo.data.DATA_SETS`.
        epochs: how often each sees the training set.
        seed: of the weights and of the order of the pictures.
        console: a `rich.console.Console` for the progress bars.

    Raises:
        TrainingError: one of them failed.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
    )
    runs = []
    with (
        tempfile.TemporaryDirectory(prefix="sepconv-demo-") as folder,
        Progress(*columns, console=console) as progress,
    ):
        weights = str(Path(folder) / "start.npz")
        tasks = {
            name: progress.add_task(label, total=None, start=False, state="waiting")
            for name, label in LABELS.items()
        }
        for name, task in tasks.items():
            progress.start_task(task)
            progress.update(task, state=f"starting {ENGINES[engine][1]}")
            show = _show(progress, task, epochs)
            runs.append(_run(Job(name, data, epochs, seed, weights), engine, show))
    return Comparison(engine, data, seed, *runs)


def _show(progress: Any, task: Any, epochs: int) -> Callable[[dict[str, Any]], None]:
    """A function that moves a progress bar by the events of a training."""
    now, tested = "", ""

    def show(event: dict[str, Any]) -> None:
        nonlocal now, tested
        if event["event"] == "start":
            progress.update(task, total=event["steps"], state="compiling")
            return
        if event["event"] == "batch":
            accuracy = f"accuracy {event['accuracy']:5.1%}"
            now = f"epoch {event['epoch'] + 1}/{epochs} loss {event['loss']:.3f} {accuracy}"
            progress.advance(task)
        else:
            tested = f" test {event['val_accuracy']:.1%}"
        progress.update(task, state=now + tested)

    return show


def table(comparison: Comparison) -> list[tuple[str, str, str]]:
    """The comparison as rows (name, Keras' value, ours) of text."""
    both = (comparison.stock, comparison.ours)

    def row(name: str, form: Callable[[Run], str]) -> tuple[str, str, str]:
        return (name, form(both[0]), form(both[1]))

    return [
        row("test accuracy", lambda run: f"{run.test_accuracy:.2%}"),
        row("seconds an epoch", lambda run: f"{run.seconds_an_epoch:.2f}"),
        row("compilation, once, seconds", lambda run: f"{run.compile_seconds:.1f}"),
        row("peak memory, MB", lambda run: f"{run.peak_bytes / 1e6:,.0f}"),
        ("speed-up an epoch", "1.0x", f"{comparison.speed_up:.1f}x"),
    ]
