"""`sepconv bench`: options and exit codes; the benchmark itself is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sepconv._commands import fail, positive_int, problem_with_output
from sepconv.arrays import DTYPES

__all__ = ["add_parsers", "run"]

_ABOUT = """\
Times sepconv, the libraries installed here and the machine itself, in one run:
layers of published networks, alone and with the 1x1 convolution that follows,
forward and in training. All have the same inputs, cores and number of threads,
each takes the fastest of its ways, and they take turns. Whoever does not
compute the right values is told of, not timed.

Prints tables and writes bench.json, bench.md, roofline.svg and speedup.svg.
Ctrl-C ends a run early and keeps what was measured. All of it takes hours;
--quick shows a little of each in less than three minutes.
"""
_EXAMPLES = """\
examples:
  sepconv bench --quick
  sepconv bench --against torch,onnxruntime --workloads mobilenet_v1
  sepconv bench --workloads 'xception/*,eegnet' --mode 'separable*' --batch 1
  sepconv bench --mode pointwise,pointwise-training --threads 1
  sepconv bench --dtype bfloat16 --against torch,openvino --quick

peers: {peers}
modes: {modes}
networks: {networks}
"""


def _batches(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part) for part in text.split(","))


def add_parsers(commands: Any) -> None:
    """Adds the command to an `argparse` parser's subparsers."""
    parser = commands.add_parser(
        "bench",
        help="time sepconv against other libraries and the machine's limits",
        description=_ABOUT,
        formatter_class=_Help,
    )
    parser.add_argument("--quick", action="store_true", help="a little of each, in three minutes")
    parser.add_argument(
        "--against",
        metavar="PEER,...",
        help="the libraries to compare with (default: all that are installed)",
    )
    parser.add_argument(
        "--workloads",
        metavar="PATTERN,...",
        help="which layers: a network or a pattern of network/block (default: all)",
    )
    parser.add_argument(
        "--mode",
        metavar="PATTERN,...",
        help="what to do with them (default: all modes; with --quick, four)",
    )
    parser.add_argument(
        "--batch",
        type=_batches,
        metavar="N,...",
        help="batch sizes (default: 1 and 8, for EEGNet 1 and 32; with --quick, 1)",
    )
    parser.add_argument(
        "--dtype",
        choices=(*DTYPES, "int8"),
        default="float32",
        help="of all arrays; beside another than float32, sepconv is also timed in float32; int8 "
        "is sepconv's alone, for inference, between arrays of float32 (default: float32)",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        metavar="N",
        help="threads and cores for everybody (default: all of this process' cores)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("sepconv-bench"),
        metavar="DIR",
        help="the folder to write to (default: sepconv-bench)",
    )
    parser.set_defaults(run=run)


class _Help(argparse.RawDescriptionHelpFormatter):
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
        return super().format_help() + "\n" + _EXAMPLES.format(**shown)


def run(options: argparse.Namespace) -> int:
    """Carries out the command; returns the exit code, as `sepconv.cli.main` does."""
    from sepconv.bench import benchmark
    from sepconv.bench.measure import WorkerError

    folder = options.output
    if folder.exists() and not folder.is_dir():
        return fail(f"--output: {folder} is not a folder", 2)
    wrong = problem_with_output(folder / "bench.md" if folder.exists() else folder)
    if wrong:
        return fail(wrong, 2)
    cores = benchmark.available_threads()
    threads = options.threads or cores
    if threads > cores:
        return fail(f"--threads: this process has {cores} cores, received {threads}", 2)
    try:
        chosen = benchmark.cases(
            options.workloads, options.mode, options.batch, options.quick, options.dtype
        )
        names = benchmark.chosen_peers(options.against, options.dtype)
        from rich.console import Console

        from sepconv import doctor

        console = Console()
        for hint in benchmark.missing(options.dtype) if options.against is None else ():
            console.print(hint, style="yellow", markup=False)
        facts = [row for row in doctor.machine() if row[0] != "threads"]
        facts.append(("dtype", options.dtype))
        whole = benchmark.run(chosen, names, threads, options.quick, folder, facts, console)
    except benchmark.UsageError as error:
        return fail(str(error), 2)
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "matplotlib", "ml_dtypes"):
            raise
        return fail(f"the benchmark needs {error.name}: pip install {error.name}", 2)
    except WorkerError as error:
        return fail(f"{error}\n`sepconv doctor` may know more.", 1)
    return 0 if whole else fail("stopped before the end.", 130)
