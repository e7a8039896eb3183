"""`sepconv demo`: from options to a table and a page; what it needs is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sepconv._commands import add_command, fail, positive_int, problem_with_output

__all__ = ["add_parsers", "run"]

_ABOUT = """\
Trains a small network of separable convolutions twice from the same weights,
with Keras' own layers and then with sepconv's, each in a process of its own,
and compares them. Nothing is downloaded. With the default settings it takes
less than five minutes on two cores; nearly all of that is Keras' own.

Prints a table and writes a page with the learning curves and pictures of the
learned kernels.
"""
_EXAMPLES = """\
examples:
  sepconv demo                         on JAX, scikit-learn's digits
  sepconv demo --engine tensorflow     the same on TensorFlow
  sepconv demo --epochs 3              a quick look, less accurate
  sepconv demo --data fashion-mnist    clothes, from Debian's package
                                       dataset-fashion-mnist
"""


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be in 0 .. 2**32 - 1, received {text}")
    return value


def add_parsers(commands: Any) -> None:
    """Adds the command to an `argparse` parser's subparsers."""
    parser = add_command(
        commands,
        "demo",
        summary="train with Keras' layers and with sepconv's, and compare",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--engine",
        choices=("jax", "torch", "tensorflow"),
        default="jax",
        help="what Keras runs on (default: jax)",
    )
    parser.add_argument(
        "--data",
        choices=("digits", "fashion-mnist"),
        default="digits",
        help="what to learn (default: digits)",
    )
    parser.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="how often each network sees the training set (default: 8 for digits, "
        "3 for fashion-mnist)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="S",
        help="of the weights and of the order of the pictures (default: 0)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="where to write the page (default: report.html)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carries out the command; returns the exit code, as `sepconv.cli.main` does."""
    from sepconv.demo import compare, data

    wrong = problem_with_output(options.output)
    if wrong:
        return fail(wrong, 2)
    try:
        compare.check_installed(options.engine)
        pictures = data.load(options.data)
        from rich.console import Console

        from sepconv import doctor
        from sepconv.demo import report

        console = Console()
        epochs = options.epochs or data.DATA_SETS[options.data][1]
        console.print(
            f"Training on {pictures.title}: {len(pictures.x_train):,} pictures, "
            f"{epochs} epochs; {len(pictures.x_test):,} more to test on."
        )
        comparison = compare.compare(options.engine, options.data, epochs, options.seed, console)
        console.print(_table(comparison, pictures.title))
        machine = doctor.machine(options.engine)
        report.write(options.output, comparison, pictures.title, machine)
    except (compare.NotInstalledError, data.DataMissingError) as error:
        return fail(str(error), 2)
    except compare.TrainingError as error:
        return fail(f"{error}\n`sepconv doctor` may know more.", 1)
    except KeyboardInterrupt:
        return fail("stopped; no report was written.", 130)
    console.print(f"The whole story, with pictures: {options.output}")
    return 0


def _table(comparison: Any, title: str) -> Any:
    from rich import box
    from rich.table import Table

    from sepconv.demo.compare import ENGINES, LABELS, table

    shown = Table(
        title=f"{title} on {ENGINES[comparison.engine][1]}", title_style="bold", box=box.SIMPLE_HEAD
    )
    shown.add_column("")
    for label in LABELS.values():
        shown.add_column(label, justify="right")
    *rows, last = table(comparison)
    for row in rows:
        shown.add_row(*row)
    shown.add_row(*last, style="bold")
    return shown
