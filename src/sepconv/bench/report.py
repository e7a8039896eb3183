"""The results of a benchmark: tables for the terminal, JSON, Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sepconv.bench import bars, peers, plot
from sepconv.bench.measure import Plan, Result, Sample
from sepconv.bench.roofline import Machine
from sepconv.bench.workloads import MODES
from sepconv.demo.report import write_whole

__all__ = ["Report", "Summary", "as_json", "markdown", "summaries", "table", "write"]


@dataclass
class Report:
    """A run of the benchmark.

    Attributes:
        facts: rows (name, value) about the machine and the software.
        machine: its limits.
        plan: how it was measured.
        versions: the versions of the peers that took part, by peer.
        results: in the order they were measured.
        left_out: the number of cases that there was no time for.
    """

    facts: list[tuple[str, str]]
    machine: Machine
    plan: Plan
    versions: dict[str, str]
    results: list[Result] = field(default_factory=list)
    left_out: int = 0


class Summary(NamedTuple):
    """The summary of a mode at one batch size or at all of them.

    Attributes:
        mode: a key of `MODES`.
        batch: the batch size; 0 for all of them.
        cases: their number.
        best: geometric mean of the fastest peer's time over sepconv's; None without peers.
        slower: the number of cases in which some peer is faster.
        floor: geometric mean of sepconv's time over the floor.
        gain: geometric mean of sepconv's time in float32 over its time; None for float32 itself.
        behind_float32: the number of cases in which float32 is faster.
        each: the geometric mean of a peer's time over sepconv's in the cases that it took part in,
            by peer.
    """

    mode: str
    batch: int
    cases: int
    best: float | None
    slower: int
    floor: float
    gain: float | None
    behind_float32: int
    each: dict[str, float]


def _mean(ratios: Iterable[float]) -> float:
    """The geometric mean of at least one number."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms))


def _summary(mode: str, batch: int, timed: list[tuple[Result, Sample]]) -> Summary:
    """The summary of at least one result, each with sepconv's sample."""
    speed_ups = [r.speed_up for r, _ in timed if r.speed_up is not None]
    gains = [r.gain for r, _ in timed if r.gain is not None]
    each = {}
    for name in peers.PEERS:
        ratios = [r.samples[name].median / ours.median for r, ours in timed if name in r.samples]
        if ratios:
            each[name] = _mean(ratios)
    return Summary(
        mode,
        batch,
        len(timed),
        _mean(speed_ups) if speed_ups else None,
        sum(ratio < 1 for ratio in speed_ups),
        _mean(ours.median / r.floor.seconds for r, ours in timed),
        _mean(gains) if gains else None,
        sum(ratio < 1 for ratio in gains),
        each,
    )


def summaries(results: list[Result]) -> list[Summary]:
    """Summaries by mode and batch size, and by mode alone where there are several sizes."""
    found = []
    timed = [(r, r.ours) for r in results if r.ours is not None]
    for mode in MODES:
        group = [pair for pair in timed if pair[0].case.mode == mode]
        batches = sorted({r.case.batch for r, _ in group})
        for batch in batches:
            part = [pair for pair in group if pair[0].case.batch == batch]
            found.append(_summary(mode, batch, part))
        if len(batches) > 1:
            found.append(_summary(mode, 0, group))
    return found


def _whole(found: list[Summary]) -> list[Summary]:
    """For each mode, the summary of all batch sizes, which is the last."""
    return list({summary.mode: summary for summary in found}.values())


def _speed_ups(results: list[Result]) -> dict[str, dict[str, float]]:
    """For each mode, the others' times over sepconv's, by their titles."""
    found = {}
    for summary in _whole(summaries(results)):
        group = {peers.load(name).title: ratio for name, ratio in summary.each.items()}
        if summary.gain is not None:
            group[peers.load(peers.OURS_FLOAT32).title] = summary.gain
        found[f"{summary.mode} ({summary.cases} cases)"] = group
    return found


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.4f}"


#: Headings of `_row`, and those beside another dtype than float32.
_COLUMNS = ("workload", "shape", "batch", "sepconv, ms", "best peer, ms", "speed-up", "x floor")
_FLOAT32_COLUMNS = ("float32, ms", "gain")


def _columns(results: list[Result]) -> tuple[str, ...]:
    """The headings of the rows of results, which are of one dtype."""
    return _COLUMNS + _FLOAT32_COLUMNS * any(r.case.dtype != "float32" for r in results)


def _row(result: Result, short: bool = False) -> tuple[str, ...]:
    """A row of a table; a short one has half the interquartile range as the spread."""
    case, ours = result.case, result.ours
    first = (case.workload.name, case.describe(), str(case.batch))
    beside: tuple[str, ...] = ()
    if case.dtype != "float32":
        float32 = result.samples.get(peers.OURS_FLOAT32)
        time = "-" if float32 is None else _milliseconds(float32.median)
        beside = (time, _compared(result.gain))
    if ours is None:
        return (*first, "failed", "", "", "", *beside)
    low, high = ours.quartiles
    spread = f"({_milliseconds(low)} to {_milliseconds(high)})"
    if short:
        spread = f"±{(high - low) / 2 / ours.median:.0%}"
    best, ratio = "-", "-"
    if result.best is not None and result.speed_up is not None:
        name = peers.load(result.best).title
        best = f"{_milliseconds(result.samples[result.best].median)} {name}"
        ratio = _compared(result.speed_up)
    against_floor = f"{ours.median / result.floor.seconds:.2f}"
    bound = "" if result.floor.bound == "operations" else f" {result.floor.level}"
    middle = f"{_milliseconds(ours.median)} {spread}"
    return (*first, middle, best, ratio, against_floor + bound, *beside)


def _compared(ratio: float | None) -> str:
    """Another's time over sepconv's."""
    return "-" if ratio is None else f"{ratio:.2f}x" + (" slower" if ratio < 1 else "")


#: Headings of `_summary_row`, before those of the peers; and those beside another dtype.
_SUMMARY_COLUMNS = ("mode", "batch", "cases", "best peer", "behind in", "x floor")
_SUMMARY_FLOAT32_COLUMNS = ("gain over float32", "behind float32 in")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _summary_row(summary: Summary, names: list[str], beside: bool) -> tuple[str, ...]:
    """A row of the means, with what a dtype gains where there is float32 beside it."""
    return (
        summary.mode,
        str(summary.batch) if summary.batch else "all",
        str(summary.cases),
        _ratio(summary.best),
        str(summary.slower),
        f"{summary.floor:.2f}",
        *((_ratio(summary.gain), str(summary.behind_float32)) if beside else ()),
        *(_ratio(summary.each.get(name)) for name in names),
    )


def _by_mode(results: list[Result]) -> Iterator[tuple[str, list[Result]]]:
    for mode in MODES:
        group = [r for r in results if r.case.mode == mode]
        if group:
            yield mode, group


def table(report: Report) -> Iterator[Any]:
    """Tables for a terminal (rich): one for each mode, and those of the geometric means."""
    from rich import box
    from rich.table import Table

    def empty(title: str, columns: Iterable[str], left: int) -> Table:
        shown = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
        for index, name in enumerate(columns):
            shown.add_column(
                name, justify="left" if index < left else "right", no_wrap=index < left
            )
        return shown

    for mode, group in _by_mode(report.results):
        columns = _columns(group)
        shown = empty(_titled(mode, report), (columns[0], *columns[2:]), 1)
        for result in group:
            behind = result.speed_up is not None and result.speed_up < 1
            first, _, *rest = _row(result, short=True)
            shown.add_row(first, *rest, style="bold red" if behind or not result.ours else None)
        yield shown
    found = summaries(report.results)
    beside = report.machine.dtype != "float32"
    columns = _SUMMARY_COLUMNS + _SUMMARY_FLOAT32_COLUMNS * beside
    title = _titled("Geometric means: speed-up over the best peer", report)
    shown = empty(title, columns, 1)
    for summary in found:
        shown.add_row(*_summary_row(summary, [], beside))
    yield shown
    whole = _whole(found)
    shown = empty("Speed-up over each", ("peer", *(summary.mode for summary in whole)), 1)
    for name in report.versions:
        means = (summary.each.get(name) for summary in whole)
        shown.add_row(peers.load(name).title, *map(_ratio, means))
    yield shown


def _titled(title: str, report: Report) -> str:
    """A title with the dtype, where it is not float32."""
    dtype = report.machine.dtype
    return title if dtype == "float32" else f"{title}, {dtype}"


def limits(machine: Machine) -> str:
    """The machine's limits in a line."""
    levels = ", ".join(f"{level.name} {level.bandwidth / 1e9:.0f} GB/s" for level in machine.levels)
    threads = f"{machine.threads} thread{'' if machine.threads == 1 else 's'}"
    rate = f"{machine.peak / 1e9:.0f} GFLOP/s"
    rate += "" if machine.dtype == "float32" else f" in {machine.dtype}"
    return f"{threads}: {rate}; {levels}"


def failures(results: list[Result]) -> Iterator[tuple[str, str, str]]:
    """Rows (case, peer, reason) of those that were not timed."""
    for result in results:
        case = result.case
        for name, reason in result.failures.items():
            title = peers.load(name).title
            yield f"{case.workload.name}, batch {case.batch}, {case.mode}", title, reason


def _markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"

    columns = list(columns)
    return "\n".join([line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)])


def markdown(report: Report) -> str:
    """The report as Markdown."""
    names = list(report.versions)
    titles = [peers.load(name).title for name in names]
    facts = [*report.facts, ("limits measured", limits(report.machine))]
    facts += [
        (title, version)
        for title, version in zip(titles, report.versions.values(), strict=True)
        if title not in dict(facts)
    ]
    parts = [
        f"# {_titled('sepconv bench', report)}",
        _markdown_table(("what", "value"), facts),
        "Times are medians in milliseconds, with quartiles in brackets; speed-up is the fastest "
        'peer\'s time over sepconv\'s, and "slower" marks where that peer is ahead; "x floor" is '
        "sepconv's time over the least that the machine's limits allow, with the memory's name "
        "where bytes and not operations set it. The limits are the best of before "
        "and after; a machine that was busy both times shows times below its floor.",
    ]
    beside = report.machine.dtype != "float32"
    if beside:
        arrays = f"All arrays are {report.machine.dtype}."
        if report.machine.dtype == "int8":
            arrays = (
                "Arrays are float32; each layer quantises its input, computes in int8, and back."
            )
        parts.append(
            f'{arrays} "gain" is sepconv\'s time in float32, on the '
            'same numbers, over its time in this dtype; "slower" marks where float32 is ahead.'
        )
    if report.left_out:
        parts.append(f"The run ended with {report.left_out} cases left out.")
    parts.append("## Geometric means")
    rows = [_summary_row(summary, names, beside) for summary in summaries(report.results)]
    columns = _SUMMARY_COLUMNS + _SUMMARY_FLOAT32_COLUMNS * beside
    parts.append(_markdown_table((*columns, *titles), rows))
    parts.append("![How many times longer each peer takes](speedup.svg)")
    parts.append("![Roofline](roofline.svg)")
    for mode, group in _by_mode(report.results):
        parts += [f"## {mode}", _markdown_table(_columns(group), map(_row, group))]
    failed = list(failures(report.results))
    if failed:
        parts += ["## Not timed", _markdown_table(("case", "peer", "why"), failed)]
    return "\n\n".join(parts) + "\n"


def _result_json(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "workload": asdict(case.workload),
        "batch": case.batch,
        "mode": case.mode,
        "dtype": case.dtype,
        "floor": asdict(result.floor),
        "best_peer": result.best,
        "speed_up": result.speed_up,
        "gain": result.gain,
        "times_floor": result.ours and result.ours.median / result.floor.seconds,
        "samples": {
            name: {
                "setting": sample.setting,
                "error": sample.error,
                "median": sample.median,
                "quartiles": sample.quartiles,
                "seconds": sample.seconds,
            }
            for name, sample in result.samples.items()
        },
        "failures": result.failures,
    }


def as_json(report: Report) -> str:
    """The whole report as JSON, with every timed call; in seconds, bytes, operations a second."""
    machine = report.machine
    levels = [
        # JSON has no infinity.
        asdict(level) | {"size": level.size if math.isfinite(level.size) else None}
        for level in machine.levels
    ]
    plan = asdict(report.plan)
    plan["deadline"] = plan["deadline"] if math.isfinite(plan["deadline"]) else None
    whole = {
        "facts": dict(report.facts),
        "dtype": machine.dtype,
        "machine": {"threads": machine.threads, "peak": machine.peak, "levels": levels},
        "plan": plan,
        "versions": report.versions,
        "left_out": report.left_out,
        "summary": [summary._asdict() for summary in summaries(report.results)],
        "results": [_result_json(result) for result in report.results],
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def write(folder: Path, report: Report) -> list[Path]:
    """Writes bench.json, bench.md, roofline.svg and speedup.svg; returns their paths.

    No file is ever visible half-written.
    """
    folder.mkdir(exist_ok=True)
    texts = {
        "bench.json": as_json(report),
        "bench.md": markdown(report),
        "roofline.svg": plot.roofline(report.results, report.machine),
        "speedup.svg": bars.bars(_speed_ups(report.results), report.machine.dtype),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]
