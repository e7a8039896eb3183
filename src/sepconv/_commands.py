"""What the commands share: help, how they fail and end, where they may write, numbers both ways."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "TerminatedError",
    "add_command",
    "add_force",
    "count",
    "fail",
    "milliseconds",
    "positive_int",
    "problem_with_output",
    "tell_step",
    "terminable",
]


class TerminatedError(BaseException):
    """The process was asked to end; like KeyboardInterrupt, nobody takes it for a failure."""


def add_command(
    commands: Any, name: str, *, summary: str, about: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Adds a command to an `argparse` parser's subparsers.

    Args:
        commands: the subparsers.
        name: of the command.
        summary: a line for the list of commands.
        about: what its own help begins with, printed as it is.
        examples: what its own help ends with, printed as it is.

    Returns:
        Its parser, for its arguments.
    """
    return commands.add_parser(
        name,
        help=summary,
        description=about,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_force(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the option without which no file is overwritten; `what` says which that would be."""
    parser.add_argument("--force", action="store_true", help=f"replace {what}")


def fail(message: str, code: int) -> int:
    """Tells what went wrong on the standard error; returns the exit code that it is given."""
    print(f"sepconv: {message}", file=sys.stderr)
    return code


def problem_with_output(path: Path) -> str | None:
    """What is wrong with a path to write to, asked before minutes of work rather than after."""
    folder = path.resolve().parent
    if path.is_dir():
        return f"--output: {path} is a folder"
    if not folder.is_dir():
        return f"--output: there is no folder {folder}"
    if not os.access(folder, os.W_OK):
        return f"--output: the folder {folder} cannot be written to"
    return None


def positive_int(text: str) -> int:
    """An argument that is a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return value


def tell_step(begun: float, text: str) -> None:
    """Tells what is done now, and how long after `begun` of `time.perf_counter`."""
    print(f"[{time.perf_counter() - begun:5.1f} s] {text} ...", flush=True)


@contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM is an exception, as Ctrl-C is, so that drafts are removed."""

    def stop(*_: Any) -> None:
        raise TerminatedError

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def count(number: int) -> str:
    """In millions, as papers write it.

    Example:
        >>> count(1_234_567), count(3_860_000_000)
        ('1.23 M', '3,860 M')
    """
    return f"{number / 1e6:,.2f} M" if number < 1e8 else f"{number / 1e6:,.0f} M"


def milliseconds(seconds: float) -> str:
    """Without the unit, and with as many digits as are worth reading.

    Example:
        >>> milliseconds(0.0012345), milliseconds(0.12345)
        ('1.234', '123.5')
    """
    return f"{1e3 * seconds:.3f}" if seconds < 0.01 else f"{1e3 * seconds:.1f}"
