"""The command line, `sepconv`. What a command needs is imported when that command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sepconv.explain import command as explain
from sepconv.models import command as models

__all__ = ["main"]

_ABOUT = """\
Fast depthwise and depthwise-separable convolution on CPUs.

  sepconv demo     trains a network on real data with Keras' layers, then with
                   sepconv's, and compares time, memory and accuracy
  sepconv bench    times sepconv against other libraries and the machine's limits
  sepconv doctor   says what was found here, and how to mend what is missing

and of Keras models in files:

  sepconv explain     says what every layer costs, and where the time goes
  sepconv accelerate  replaces Keras' layers by sepconv's
  sepconv optimize    folds and fuses layers for inference
  sepconv factorize   approximates ordinary convolutions by separable ones
"""
_EXAMPLES = """\
examples:
  sepconv doctor
  sepconv demo
  sepconv demo --engine torch --output torch.html
  sepconv demo --help
  sepconv bench --quick
  sepconv explain MobileNet
  sepconv accelerate model.keras fast.keras
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
_BENCH = """\
Times sepconv, the libraries installed here and the machine itself, in one run:
layers of published networks, alone and with the 1x1 convolution that follows,
forward and in training. All have the same inputs, cores and number of threads,
each takes the fastest of its ways, and they take turns. Whoever does not
compute the right values is told of, not timed.

Prints tables and writes bench.json, bench.md, roofline.svg and speedup.svg.
Ctrl-C ends a run early and keeps what was measured. All of it takes hours;
--quick shows a little of each in less than three minutes.
"""
_BENCH_EXAMPLES = """\
examples:
  sepconv bench --quick
  sepconv bench --against torch,onnxruntime --workloads mobilenet_v1
  sepconv bench --workloads 'xception/*,eegnet' --mode 'separable*' --batch 1
  sepconv bench --mode pointwise,pointwise-training --threads 1

peers: {peers}
modes: {modes}
networks: {networks}
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


def _batches(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
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
    _add_bench(commands)
    commands.add_parser(
        "doctor",
        help="say what was found here, and how to mend what is missing",
        description=_DOCTOR,
        formatter_class=raw,
    )
    explain.add_parser(commands)
    models.add_parsers(commands)
    return parser


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="time sepconv against other libraries and the machine's limits",
        description=_BENCH,
        formatter_class=_BenchHelp,
    )
    bench.add_argument("--quick", action="store_true", help="a little of each, in three minutes")
    bench.add_argument(
        "--against",
        metavar="PEER,...",
        help="the libraries to compare with (default: all that are installed)",
    )
    bench.add_argument(
        "--workloads",
        metavar="PATTERN,...",
        help="which layers: a network or a pattern of network/block (default: all)",
    )
    bench.add_argument(
        "--mode",
        metavar="PATTERN,...",
        help="what to do with them (default: all modes; with --quick, four)",
    )
    bench.add_argument(
        "--batch",
        type=_batches,
        metavar="N,...",
        help="batch sizes (default: 1 and 8, for EEGNet 1 and 32; with --quick, 1)",
    )
    bench.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads and cores for everybody (default: all of this process' cores)",
    )
    bench.add_argument(
        "--output",
        type=Path,
        default=Path("sepconv-bench"),
        metavar="DIR",
        help="the folder to write to (default: sepconv-bench)",
    )


class _BenchHelp(argparse.RawDescriptionHelpFormatter):
    """Adds the names of everything that can be chosen, which only the benchmark knows."""

    def format_help(self) -> str:
        import textwrap

        from sepconv.bench.peers import PEERS
        from sepconv.bench.workloads import MODES, WORKLOADS

        networks = dict.fromkeys(workload.name.split("/")[0] for workload in WORKLOADS)
        names: dict[str, Iterable[str]] = {"peers": PEERS, "modes": MODES, "networks": networks}
        shown = {
            what: textwrap.fill(
                ", ".join(found), 78, subsequent_indent="  ", break_on_hyphens=False
            )
            for what, found in names.items()
        }
        return super().format_help() + "\n" + _BENCH_EXAMPLES.format(**shown)


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


def _bench(options: argparse.Namespace) -> int:
    from sepconv.bench import command
    from sepconv.bench.measure import WorkerError

    folder = options.output
    if folder.exists() and not folder.is_dir():
        return _fail(f"--output: {folder} is not a folder", 2)
    wrong = _check_output(folder / "bench.md" if folder.exists() else folder)
    if wrong:
        return _fail(wrong, 2)
    cores = command.available_threads()
    threads = options.threads or cores
    if threads > cores:
        return _fail(f"--threads: this process has {cores} cores, received {threads}", 2)
    try:
        chosen = command.cases(options.workloads, options.mode, options.batch, options.quick)
        names = command.chosen_peers(options.against)
        from rich.console import Console

        from sepconv import doctor

        console = Console()
        for hint in command.missing() if options.against is None else ():
            console.print(hint, style="yellow", markup=False)
        facts = [row for row in doctor.machine() if row[0] != "threads"]
        whole = command.run(chosen, names, threads, options.quick, folder, facts, console)
    except command.UsageError as error:
        return _fail(str(error), 2)
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "matplotlib"):
            raise
        return _fail(f"the benchmark needs {error.name}: pip install rich matplotlib", 2)
    except WorkerError as error:
        return _fail(f"{error}\n`sepconv doctor` may know more.", 1)
    return 0 if whole else _fail("stopped before the end.", 130)


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
        carried out as given, 130 where it was interrupted, 143 where it was terminated.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.version:
        from sepconv import __version__

        print(f"sepconv {__version__}")
        return 0
    if options.command == "demo":
        return _demo(options)
    if options.command == "bench":
        return _bench(options)
    if options.command == "doctor":
        return _doctor()
    if options.command == "explain":
        return explain.run(options)
    if options.command in models.COMMANDS:
        return models.run(options)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
