"""A run of the benchmark: what to measure, with whom, and where the tables and files go."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sepconv.bench import measure, peers, report, roofline
from sepconv.bench.workloads import MODES, WORKLOADS, Case, select

__all__ = ["UsageError", "available_threads", "cases", "chosen_peers", "missing", "run"]

#: `--quick` begins no case after this many seconds, so that it ends within three minutes.
_QUICK_SECONDS = 145


class UsageError(ValueError):
    """Options that cannot be met; the message says which and what would do."""


def available_threads() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen_peers(against: str | None, dtype: str = "float32") -> list[str]:
    """The peers named in a comma-separated list, or all that are installed and have the dtype.

    Raises:
        UsageError: a name is unknown, is not installed here or has no such dtype.
    """
    if against is None:
        kinds = {name: peers.load(name) for name in peers.PEERS}
        return [name for name, k in kinds.items() if k.available() and dtype in k.dtypes]
    names = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in names if name not in peers.PEERS]
    if unknown or not names:
        raise UsageError(
            f"--against must name some of {', '.join(peers.PEERS)}. Received: {against!r}"
        )
    for name in names:
        kind = peers.load(name)
        if not kind.available():
            raise UsageError(
                f"--against: {kind.title} is not installed; try: pip install {kind.install}"
            )
        if dtype not in kind.dtypes:
            raise UsageError(
                f"--against: {kind.title} does not compute in {dtype}, only in "
                f"{', '.join(kind.dtypes)}; leave it out, or choose another --dtype"
            )
    return list(dict.fromkeys(names))


def missing(dtype: str = "float32") -> list[str]:
    """Of each peer that is left out, why: it lacks the dtype, or how to install it."""
    hints = []
    for kind in map(peers.load, peers.PEERS):
        if dtype not in kind.dtypes:
            hints.append(f"{kind.title} does not compute in {dtype}, so it is left out")
        elif not kind.available():
            hint = f"{kind.title} is not installed, so it is left out: pip install {kind.install}"
            hints.append(hint)
    return hints


def cases(
    workloads: str | None,
    modes: str | None,
    batches: tuple[int, ...] | None,
    quick: bool,
    dtype: str = "float32",
) -> list[Case]:
    """`select`, where nothing selected is an error.

    Raises:
        UsageError: no workload or no mode fits.
    """
    found = select(workloads, modes, batches, quick, dtype)
    if not found:
        networks = dict.fromkeys(workload.name.split("/")[0] for workload in WORKLOADS)
        raise UsageError(
            f"nothing to measure for --workloads {workloads!r} --mode {modes!r}. "
            f"Workloads are such as {WORKLOADS[0].name}, of: {', '.join(networks)}. "
            f"Modes are: {', '.join(MODES)}."
        )
    return found


def run(
    chosen: list[Case],
    names: Sequence[str],
    threads: int,
    quick: bool,
    folder: Path,
    facts: list[tuple[str, str]],
    console: Any,
) -> bool:
    """Measures, shows the tables and writes the files.

    Args:
        chosen: the cases, all of one dtype. Beside another than float32, sepconv in float32 is
            measured too.
        names: the peers.
        threads: for everybody.
        quick: a little of everything, within three minutes.
        folder: where to write.
        facts: rows (what, value) on where this runs.
        console: a `rich.console.Console`.

    Returns:
        Whether all was measured: False where the user interrupted it. What had been measured by
        then is shown and written all the same.

    Raises:
        sepconv.bench.measure.WorkerError: sepconv's own process does not start.
    """
    begun = time.monotonic()
    plan = measure.Plan()
    if quick:
        plan = measure.Plan(seconds=0.1, rounds=4, patience=30, thorough=False)
    interrupted = False
    (dtype,) = {case.dtype for case in chosen}
    others = [*names] if dtype == "float32" else [peers.OURS_FLOAT32, *names]
    with measure.pinned(threads):
        console.print("Measuring the machine's limits ...")
        seconds = 0.4 if quick else 2.0
        machine = roofline.measure(threads, seconds, dtype)
        found = report.Report(facts, machine, plan, dict.fromkeys(names, ""))
        try:
            console.print(f"Starting sepconv and {len(names)} peers, each in its own process ...")
            with measure.workers(others, threads, 120) as team:
                versions = {name: team[name].version or "did not start" for name in names}
                found.versions = versions
                if quick:
                    left = max(0.0, _QUICK_SECONDS - (time.monotonic() - begun))
                    plan = measure.Plan(**vars(plan) | {"deadline": left})
                    found.plan = plan
                _measure(chosen, found, team, console)
        except KeyboardInterrupt:
            interrupted = True
        # Again, for the first time may have been a bad one. A second Ctrl-C ends this alone.
        try:
            found.machine = machine.best_of(roofline.measure(threads, seconds, dtype))
        except KeyboardInterrupt:
            interrupted = True
    for result in found.results:
        result.floor = roofline.floor(result.case, found.machine)
    console.print(report.limits(found.machine))
    found.left_out = len(chosen) - len(found.results)
    _show(found, console)
    if found.results:
        for path in report.write(folder, found):
            console.print(f"Written: {path}")
    return not interrupted


def _measure(
    chosen: list[Case], found: report.Report, team: dict[str, measure.Worker], console: Any
) -> None:
    """Fills a report under a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Elapsed(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(chosen))

        def show(index: int, case: Case, result: measure.Result | None) -> None:
            text = f"{case.workload.name}, batch {case.batch}, {case.mode}"
            if result is not None and result.speed_up is not None:
                text += f": {result.speed_up:.2f}x"
            progress.update(task, description=text, completed=index + (result is not None))

        for result in measure.run(chosen, found.machine, found.plan, team, show):
            found.results.append(result)


def _show(found: report.Report, console: Any) -> None:
    for shown in report.table(found):
        console.print(shown)
    for case, title, reason in report.failures(found.results):
        console.print(f"{title} was not timed on {case}: {reason}", style="yellow", markup=False)
    if found.left_out:
        console.print(f"{found.left_out} cases were left out for want of time.", style="yellow")
