"""The table of a program's steps, for a terminal."""

from __future__ import annotations

from typing import Any, Literal

from sepconv._commands import count, milliseconds
from sepconv.explain.programs import ProgramExplanation, sums

__all__ = ["program_table"]


def program_table(found: ProgramExplanation) -> list[Any]:
    """The table, and what is to be known of it."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    inputs = ", ".join("x".join(map(str, shape)) for shape in found.input_shapes)
    table = Table(
        title=escape(f"{found.name}, a program, on {inputs}"),
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_footer=True,
    )
    multiply_adds, weight_bytes, floor, seconds = sums(found.rows)
    columns: tuple[tuple[str, str, Literal["left", "right"]], ...] = (
        ("step", "all of them", "left"),
        ("operation", "", "left"),
        ("output", "", "right"),
        ("multiply-adds", count(multiply_adds), "right"),
        ("weights KiB", f"{weight_bytes / 1024:,.1f}", "right"),
        ("floor ms", milliseconds(floor), "right"),
        ("time ms", milliseconds(seconds), "right"),
    )
    for header, footer, justify in columns:
        table.add_column(header, footer, justify=justify, no_wrap=header != "step", overflow="fold")
    for row in found.rows:
        cells = (
            escape(row.name),
            row.operation,
            "x".join(map(str, row.shape[1:])),
            count(row.multiply_adds) if row.multiply_adds else "",
            f"{row.weight_bytes / 1024:,.1f}" if row.weight_bytes else "",
            milliseconds(row.floor) if row.multiply_adds else "",
            milliseconds(row.seconds) if row.seconds else "",
        )
        table.add_row(*cells)
    return [table, *map(escape, _notes(found)), *_plans(found)]


def _plans(found: ProgramExplanation) -> list[Any]:
    """How the steps go of which there is more to say than their kind."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    planned = [row for row in found.rows if row.plan]
    if not planned:
        return []
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("step", overflow="fold")
    table.add_column("plan", overflow="fold")
    for row in planned:
        table.add_row(escape(row.name), escape(row.plan))
    return [table]


def _notes(found: ProgramExplanation) -> list[str]:
    threads = f"{found.threads} thread{'s'[: found.threads != 1]}"
    weights, arena, naive = found.memory
    notes = [
        f"One call takes {milliseconds(found.seconds)} ms on {threads} of {found.level}.",
        f"Memory: {weights / 2**20:,.2f} MiB of packed weights, once; {arena / 2**20:,.2f} MiB a "
        f"call, where steps with memory of their own would take {naive / 2**20:,.2f} MiB.",
    ]
    if not all(row.seconds for row in found.rows):
        notes.insert(
            1, "A step without a time is computed with one that follows, or has nothing to compute."
        )
    return notes
