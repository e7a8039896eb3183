"""What the commands share: how they fail, where they may write, and numbers as arguments."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

__all__ = ["fail", "positive_int", "problem_with_output"]


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
