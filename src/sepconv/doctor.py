"""Finds out what runs here, whether each engine works, and how to mend it: `sepconv doctor`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from sepconv._commands import add_command
from sepconv.versions import TESTED

__all__ = ["Finding", "add_parsers", "cpu_model", "examine", "machine", "main", "probe", "run"]

_ABOUT = """\
Says what sepconv found here: processor, instruction set, threads, engines and
versions. On every engine that is installed it computes a tiny convolution and
holds it against the reference; each in a process of its own, so that a crash
is shown, too. A version outside of those that sepconv is tested with is called
untested. Ends with exit code 1 if something is broken; an engine that is not
installed, or untested, is not broken.
"""

#: Engine -> the distributions that may bring it; of each, the first is the one to install.
ENGINES = {
    "jax": ("jax",),
    "torch": ("torch",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
}


class Finding(NamedTuple):
    """One row of the doctor's table.

    Attributes:
        what: the thing looked at.
        state: ``"ok"``, ``"missing"`` (optional, not installed), ``"untested"`` (it works, but in
            another version than those tested) or ``"broken"``.
        found: what was found, for people.
        mend: how to mend it; empty where nothing is to be mended.
    """

    what: str
    state: str
    found: str
    mend: str = ""


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(*distributions: str) -> str | None:
    """The version of the first of them that is installed."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


# Those that multiply bytes four at a time, or inherit it.
_INT8_LEVELS = ("x86-64-v4-vnni", "x86-64-v4-bf16", "neon-dotprod", "neon-i8mm", "neon-bf16")


def _bfloat16(level: str) -> str:
    """How a level multiplies bfloat16: levels whose names end so have an instruction for it."""
    if level.endswith("-bf16"):
        return "multiplied by an instruction of its own, up to twice float32's rate"
    return f"multiplied as float32, at its rate: {level} has no instruction for it"


def _int8(level: str) -> str:
    """How a level multiplies int8: some have an instruction for it."""
    if level in _INT8_LEVELS:
        return "multiplied by an instruction of its own, up to four times float32's rate"
    return f"widened to 16 bits and multiplied in pairs: {level} has no instruction for it"


def machine(engine: str | None = None) -> list[tuple[str, str]]:
    """Rows (what, value): the processor, the kernels in use, and versions.

    Args:
        engine: adds the versions of Keras and of this engine.
    """
    import numpy as np

    import sepconv

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [
        ("processor", f"{cpu_model()}, {cores} logical cores for this process"),
        ("instruction set", f"{sepconv.isa_name()} (SEPCONV_ISA chooses another)"),
        ("bfloat16", _bfloat16(sepconv.isa_name())),
        ("int8", _int8(sepconv.isa_name())),
        ("threads", f"{sepconv.num_threads()} (SEPCONV_NUM_THREADS chooses another number)"),
        ("sepconv", sepconv.__version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
    ]
    if engine is not None:
        found = _version(*ENGINES[engine]) or "unknown"
        rows += [(TESTED[engine].name, found), ("Keras", _version("keras") or "-")]
    return rows


def probe(engine: str) -> float:
    """The relative error of a tiny separable convolution on an engine, against the reference.

    Raises:
        Exception: whatever kept the engine or its adapter from loading or from computing.
    """
    import numpy as np

    from sepconv import engines, reference

    rng = np.random.default_rng(0)
    shapes = ((2, 6, 7, 3), (3, 3, 3, 2), (1, 1, 6, 5), (5,))
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    expected = reference.separable_conv2d(*arrays, strides=2, padding="same")
    y = engines.load(engine).separable_conv2d(*arrays, strides=2, padding="same")
    return float(np.linalg.norm(np.asarray(y) - expected) / np.linalg.norm(expected))


def _probe_apart(engine: str) -> tuple[float | None, str]:
    """`probe` in a process of its own, which may crash: (error or None, what went wrong)."""
    command = [sys.executable, "-P", "-m", "sepconv.doctor", engine]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return None, "no answer within 300 s"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return None, lines[-1] if lines else f"the process ended with code {done.returncode}"


def _examine_adapter(engine: str, name: str, found: str, mend: str) -> Finding:
    error, problem = _probe_apart(engine)
    if error is None:
        return Finding(name, "broken", f"{found}, but sepconv.{engine} fails: {problem}", mend)
    if not error < 1e-5:
        wrong = f"{found}, but a convolution is off by {error:.1e}, relative"
        return Finding(name, "broken", wrong, "Please report this, with the whole table.")
    return Finding(name, "ok", f"{found}; a convolution is right to {error:.0e}")


def _with_range(finding: Finding, module: str, distribution: str, version: str) -> Finding:
    """A finding with the versions that are tested; untested where it is ok, but outside of them."""
    tested = TESTED[module]
    place = tested.place(version)
    if place == 0:
        return finding._replace(found=f"{finding.found}; tested: {tested}")
    side = "newer" if place > 0 else "older"
    found = f"{finding.found}; {version} is {side} than what is tested: {tested}"
    if finding.state != "ok":
        return finding._replace(found=found)
    mend = f"If it fails, take one that is tested: pip install '{distribution}~={tested.newest}.0'"
    return finding._replace(state="untested", found=found, mend=mend)


def _examine_keras() -> Finding:
    found = _version("keras")
    if found is None:
        mend = "Comes with any engine: pip install 'sepconv[jax]'"
        return Finding("Keras", "missing", "not installed, so no sepconv.layers", mend)
    return _with_range(Finding("Keras", "ok", found), "keras", "keras", found)


def _examine_engine(engine: str) -> Finding:
    name = TESTED[engine].name
    if importlib.util.find_spec(engine) is None:
        return Finding(name, "missing", "not installed", f"pip install 'sepconv[{engine}]'")
    rebuild = "Install sepconv anew, now that the engine is there: pip install --force-reinstall "
    rebuild += "--no-deps --no-cache-dir sepconv (in a clone: pip install .)"
    found = _version(*ENGINES[engine])
    finding = _examine_adapter(engine, name, found or "installed", rebuild)
    return finding if found is None else _with_range(finding, engine, ENGINES[engine][0], found)


def examine() -> list[Finding]:
    """Everything that `sepconv doctor` shows."""
    rows = [Finding(what, "ok", value) for what, value in machine()]
    rebuild = "Install sepconv anew: pip install --force-reinstall --no-deps sepconv"
    rows.append(_examine_adapter("numpy", "NumPy kernels", "loaded", rebuild))
    return [*rows, _examine_keras(), *map(_examine_engine, ENGINES)]


def add_parsers(commands: Any) -> None:
    """Adds the command to an `argparse` parser's subparsers."""
    parser = add_command(
        commands,
        "doctor",
        summary="say what was found here, and how to mend what is missing",
        about=_ABOUT,
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carries out the command; returns the exit code, as `sepconv.cli.main` does."""
    findings = examine()
    _print(findings)
    return 1 if any(finding.state == "broken" for finding in findings) else 0


def _print(findings: Sequence[Finding]) -> None:
    """As a table where rich is installed; as plain lines where not, for it must work anywhere."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for what, state, found, mend in findings:
            print(f"{state:9}{what:16}{found}" + (f"\n{'':25}{mend}" if mend else ""))
        return
    shown = Table(box=box.SIMPLE_HEAD, show_header=False)
    styles = {"ok": "green", "missing": "yellow", "untested": "yellow", "broken": "bold red"}
    for what, state, found, mend in findings:
        text = Text(found)
        if mend:
            text.append(f"\n{mend}", style="bold")
        shown.add_row(Text(state, style=styles[state]), what, text)
    Console().print(shown)


def main(arguments: list[str]) -> None:
    """Prints `probe` of the one engine named."""
    print(json.dumps(probe(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
