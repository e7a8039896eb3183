"""The command line, `sepconv`. What a command needs is imported when that command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_ABOUT = """\
Fast depthwise and depthwise-separable convolution on CPUs.

  sepconv demo     trains a network on real data with Keras' layers, then with
                   sepconv's, and compares time, memory and accuracy
  sepconv doctor   says what was found here, and how to mend what is missing
"""
_EXAMPLES = """\
examples:
  sepconv doctor
  sepconv demo
  sepconv demo --engine torch --output torch.html
  sepconv demo --help
"""
_DEMO = """\
Trains a small network of separable convolutions twice from the same weights,
with Keras' own layers and then with sepconv's, each in a process of its own,
and compares them. Nothing is downloaded. With the default settings it takes
less than five minutes on two cores; nearly all of that is Keras' own.

Prints a table and writes a page with the learning curves and pictures of the
learned kernels.
"""
_DEMO_EXAMPLES = """\
examples:
  sepconv demo                         on JAX, scikit-learn's digits
  sepconv demo --engine tensorflow     the same on TensorFlow
  sepconv demo --epochs 3              a quick look, less accurate
  sepconv demo --data fashion-mnist    clothes, from Debian's package
                                       dataset-fashion-mnist
"""
_DOCTOR = """\
Says what sepconv found here: processor, instruction set, threads, engines and
versions. On every engine that is installed it computes a tiny convolution and
holds it against the reference; each in a process of its own, so that a crash
is shown, too. Ends with exit code 1 if something is broken; an engine that is
not installed is not broken.
"""


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be in 0 .. 2**32 - 1, received {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="sepconv", description=_ABOUT, epilog=_EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="{demo,doctor}")
    demo = commands.add_parser(
        "demo",
        help="train with Keras' layers and with sepconv's, and compare",
        description=_DEMO,
        epilog=_DEMO_EXAMPLES,
        formatter_class=raw,
    )
    demo.add_argument(
        "--engine",
        choices=("jax", "torch", "tensorflow"),
        default="jax",
        help="what Keras runs on (default: jax)",
    )
    demo.add_argument(
        "--data",
        choices=("digits", "fashion-mnist"),
        default="digits",
        help="what to learn (default: digits)",
    )
    demo.add_argument(
        "--epochs",
        type=_positive,
        metavar="N",
        help="how often each network sees the training set (default: 8 for digits, "
        "3 for fashion-mnist)",
    )
    demo.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="S",
        help="of the weights and of the order of the pictures (default: 0)",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="where to write the page (default: report.html)",
    )
    commands.add_parser(
        "doctor",
        help="say what was found here, and how to mend what is missing",
        description=_DOCTOR,
        formatter_class=raw,
    )
    return parser


def _check_output(path: Path) -> str | None:
    """What is wrong with a path to write to, asked before minutes of work rather than after."""
    folder = path.resolve().parent
    if path.is_dir():
        return f"--output: {path} is a folder"
    if not folder.is_dir():
        return f"--output: there is no folder {folder}"
    if not os.access(folder, os.W_OK):
        return f"--output: the folder {folder} cannot be written to"
    return None


def _fail(message: str, code: int) -> int:
    print(f"sepconv: {message}", file=sys.stderr)
    return code


def _demo(options: argparse.Namespace) -> int:
    from sepconv.demo import compare, data

    wrong = _check_output(options.output)
    if wrong:
        return _fail(wrong, 2)
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
        console.print(_comparison_table(comparison, pictures.title))
        machine = doctor.machine(options.engine)
        report.write(options.output, comparison, pictures.title, machine)
    except (compare.NotInstalledError, data.DataMissingError) as error:
        return _fail(str(error), 2)
    except compare.TrainingError as error:
        return _fail(f"{error}\n`sepconv doctor` may know more.", 1)
    except KeyboardInterrupt:
        return _fail("stopped; no report was written.", 130)
    console.print(f"The whole story, with pictures: {options.output}")
    return 0


def _comparison_table(comparison: Any, title: str) -> Any:
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


def _doctor() -> int:
    from sepconv import doctor

    findings = doctor.examine()
    _print_findings(findings)
    return 1 if any(finding.state == "broken" for finding in findings) else 0


def _print_findings(findings: Sequence[Any]) -> None:
    """As a table where rich is installed; as plain lines where not, for it must work anywhere."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for what, state, found, mend in findings:
            print(f"{state:8}{what:16}{found}" + (f"\n{'':24}{mend}" if mend else ""))
        return
    shown = Table(box=box.SIMPLE_HEAD, show_header=False)
    styles = {"ok": "green", "missing": "yellow", "broken": "bold red"}
    for what, state, found, mend in findings:
        text = Text(found)
        if mend:
            text.append(f"\n{mend}", style="bold")
        shown.add_row(Text(state, style=styles[state]), what, text)
    Console().print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: what follows `sepconv`; None takes the process' own.

    Returns:
        The exit code: 0, 1 where something is broken or failed, 2 where the command cannot be
        carried out as given, 130 where it was interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.version:
        from sepconv import __version__

        print(f"sepconv {__version__}")
        return 0
    if options.command == "demo":
        return _demo(options)
    if options.command == "doctor":
        return _doctor()
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
