"""`sepconv export`: an ONNX file of a Keras file or of a program."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sepconv._commands import add_command, add_force, fail, tell_step
from sepconv.models.command import DiffersError, add_engine, add_imports, carry_out

if TYPE_CHECKING:
    from sepconv.program.network import Network

__all__ = ["TOLERANCES", "add_parsers", "run"]

#: The largest difference of ONNX Runtime's predictions, relative to the largest, of a network of
#: floats and of one with int8 steps, whose roundings may differ by one and then add up.
TOLERANCES = 1e-4, 0.1

_ABOUT = """\
Writes a network for inference as an ONNX file, for other runtimes. Of an int8 one, as `sepconv
quantize` makes it, every int8 step is between a DequantizeLinear and a QuantizeLinear of its
scales.

Reads IN, writes OUT and checks it as ONNX does. Where ONNX Runtime is installed, it predicts with
OUT on made-up input, and OUT appears only when the predictions are IN's.
"""
_EXAMPLES = """\
examples:
  sepconv export mobilenet.keras mobilenet.onnx
  sepconv export small.sepconv small.onnx
"""


def add_parsers(commands: Any) -> None:
    """Adds the command to an `argparse` parser's subparsers."""
    parser = add_command(
        commands,
        "export",
        summary="write a model or a program as an ONNX file",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "source", type=Path, metavar="IN", help="the file to read, .keras, .h5 or .sepconv"
    )
    parser.add_argument("target", type=Path, metavar="OUT.onnx", help="the file to write")
    add_force(parser, "OUT if it is there")
    add_engine(parser)
    add_imports(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carries out `sepconv export`; returns the exit code, as `sepconv.cli.main` does."""
    from sepconv.models.export_onnx import require_onnx

    try:
        require_onnx()
    except ImportError as error:
        return fail(str(error), 2)
    keras = options.source.suffix != ".sepconv"
    return carry_out(options, ".onnx", _export, keras=keras)


def _export(options: argparse.Namespace) -> int:
    from sepconv.models import files
    from sepconv.models.export_onnx import contents_of, export_onnx
    from sepconv.program.program import Program

    begun = time.perf_counter()
    tell_step(begun, f"Reading {options.source}")
    try:
        of_program = options.source.suffix == ".sepconv"
        source = options.source if of_program else files.read(options.source)
        network, notes = contents_of(source)
    except (ValueError, TypeError) as error:
        raise files.FileError(f"{options.source}: {error}") from error
    except OSError as error:
        raise files.FileError(f"{options.source}: {error.strerror or error}") from error
    program = Program(network, notes=notes)
    with files.replacing(options.target, options.force) as draft:
        tell_step(begun, f"Writing {options.target}")
        try:
            export_onnx(program, draft)
        except ValueError as error:
            raise files.FileError(f"{options.source}: {error}") from error
        told = _compared(draft, program, network, begun)
    print(f"Written: {options.target}, {options.target.stat().st_size / 1e6:.1f} MB")
    print(told)
    return 0


def _compared(path: Path, program: Any, network: Network, begun: float) -> str:
    """What to say of ONNX Runtime's predictions.

    Raises:
        DiffersError: they are others than the program's.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return "Not compared, since ONNX Runtime is not installed: pip install onnxruntime"
    import onnxruntime

    from sepconv.program.comparing import differences

    tell_step(begun, "Predicting with ONNX Runtime on made-up input")
    inputs = {entry.name: _drawn(entry.shape) for entry in network.inputs}
    expected = program(*inputs.values())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Without it, sums of bytes saturate on processors that have no instruction for them.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = session.run(None, inputs)
    wanted = list(expected) if isinstance(expected, tuple) else [expected]
    apart = max(differences(wanted, found))
    tolerance = TOLERANCES[any(step.operation == "quantize" for step in network.steps)]
    # Not "above": what is not a number is refused, too.
    if not apart <= tolerance:
        raise DiffersError(
            f"ONNX Runtime's predictions differ by {apart:.1e} of the largest, more than "
            f"{tolerance:.0e}; the file was not written."
        )
    return (
        f"The same predictions: on made-up input, ONNX Runtime's differ by at most {apart:.1e} of "
        f"the largest (allowed: {tolerance:.0e})."
    )


def _drawn(shape: Sequence[int | None]) -> np.ndarray:
    """Random numbers for an input: a batch of two, and 32 of what else is open."""
    sizes = [(32 if axis else 2) if size is None else size for axis, size in enumerate(shape)]
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)
