"""`sepconv compile` and `sepconv run`: a Keras file made a program, and a program run on arrays."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from sepconv._commands import add_command, add_force, fail, positive_int, tell_step
from sepconv.models.command import DiffersError, add_conversion, carry_out

__all__ = ["TOLERANCE", "add_parsers", "run_compile", "run_program"]

#: The largest difference of a program's predictions from the model's, relative to the largest; and
#: in units in the last place of what is computed in, which is more for bfloat16 alone.
TOLERANCE = 1e-4
_ULPS = 8

_COMPILE = """\
Makes a program of a model for inference: the whole network as one native call, in a file that is
served with NumPy alone, without Keras or an engine. Batch normalization is folded and blocks are
fused, as by `sepconv optimize`.

Reads IN, writes OUT, reads OUT back and holds its predictions on input that is made for the model
against IN's. OUT appears only when all of that went well. To load it:

  import sepconv
  program = sepconv.load("OUT.sepconv")
  predictions = program(batch)
"""
_COMPILE_EXAMPLES = """\
examples:
  sepconv compile mobilenet.keras mobilenet.sepconv
  sepconv compile old.h5 old.sepconv --import my_layers --force
  sepconv compile precise.keras precise.sepconv --dtype float64
  sepconv compile mobilenet.keras half.sepconv --dtype bfloat16
  sepconv compile mobilenet.keras here.sepconv --tune
  sepconv explain mobilenet.sepconv
"""
_RUN = """\
Runs a program on arrays in .npy files, and writes what it gives to others. It needs neither Keras
nor an engine.

With --repeat it also runs that often on the same arrays, after a first run, and says how long one
takes.
"""
_RUN_EXAMPLES = """\
examples:
  sepconv run mobilenet.sepconv --input pictures.npy --output classes.npy
  sepconv run two_inputs.sepconv --input a.npy --input b.npy --output y.npy --force
  SEPCONV_NUM_THREADS=1 sepconv run mobilenet.sepconv --input picture.npy --repeat 100
"""


def add_parsers(commands: Any) -> None:
    """Adds the two commands to an `argparse` parser's subparsers."""
    parser = add_command(
        commands,
        "compile",
        summary="make a model one native call, in a file that needs no Keras",
        about=_COMPILE,
        examples=_COMPILE_EXAMPLES,
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "bfloat16"),
        help="what to compute in (default: as the model); of bfloat16, inputs and outputs are "
        "float32",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="time several ways of running it on this machine, and keep the fastest in OUT",
    )
    add_conversion(parser, "OUT.sepconv")
    parser.set_defaults(run=run_compile)

    parser = add_command(
        commands,
        "run",
        summary="run a program that `sepconv compile` made on arrays",
        about=_RUN,
        examples=_RUN_EXAMPLES,
    )
    parser.add_argument("program", type=Path, metavar="FILE.sepconv", help="the program")
    for name, metavar, what in (
        ("input", "X.npy", "an array to run it on, one an input, in the program's order"),
        ("output", "Y.npy", "where to write what it gives, one an output; none to write nothing"),
    ):
        parser.add_argument(
            f"--{name}",
            dest=f"{name}s",
            action="append",
            default=[],
            type=Path,
            metavar=metavar,
            help=f"{what}; may be repeated",
        )
    parser.add_argument(
        "--repeat", type=positive_int, metavar="N", help="time this many runs, and say the median"
    )
    add_force(parser, "outputs that are there")
    parser.set_defaults(run=run_program)


def run_compile(options: argparse.Namespace) -> int:
    """Carries out `sepconv compile`; returns the exit code, as `sepconv.cli.main` does."""
    return carry_out(options, ".sepconv", _compile)


def _compile(options: argparse.Namespace) -> int:
    import keras

    import sepconv
    from sepconv.models import comparing, files, verify
    from sepconv.program.comparing import changed_outputs
    from sepconv.program.program import as_list

    begun = time.perf_counter()
    tell_step(begun, f"Reading {options.source}")
    model = files.read(options.source)
    try:
        tell_step(begun, "Compiling and timing several ways" if options.tune else "Compiling")
        program = sepconv.compile(model, dtype=options.dtype, tune=options.tune)
        inputs = verify.random_inputs(model)
        tell_step(begun, "Predicting on made-up input")
        expected = verify.predict(model, inputs)
    except (ValueError, TypeError) as error:
        raise files.FileError(f"{options.source}: {error}") from error
    with files.replacing(options.target, options.force) as draft:
        tell_step(begun, f"Writing {options.target}")
        program.save(draft)
        tell_step(begun, "Reading it back and predicting on the same input")
        found = as_list(sepconv.load(draft)(*keras.tree.flatten(inputs)))
        apart = verify.difference(expected, found)
        precise = comparing.precision_of(options.dtype or "float64")
        precise = max(comparing.precision(model), precise)
        tolerance = max(TOLERANCE, _ULPS * precise)
        if precise > comparing.precision_of("float32"):
            changed = changed_outputs(program, keras.tree.flatten(inputs), precise)
            tolerance = max(comparing.roundings(found, changed, [tolerance] * len(found)))
        # Not "above": what is not a number is refused, too.
        if not apart <= tolerance:
            raise DiffersError(
                f"the predictions differ by {apart:.1e} of the largest, more than "
                f"{tolerance:.0e}; {options.target} was not written."
            )
    size = options.target.stat().st_size
    print(f"Written: {options.target}, {size / 1e6:.1f} MB")
    print(
        f"The same predictions: on made-up input they differ by at most {apart:.1e} of the "
        f"largest (allowed: {tolerance:.0e})."
    )
    return 0


def run_program(options: argparse.Namespace) -> int:
    """Carries out `sepconv run`; returns the exit code, as `sepconv.cli.main` does."""
    from sepconv.models.files import FileError

    try:
        return _run(options)
    except FileError as error:
        return fail(str(error), 2)
    except MemoryError:
        return fail(f"{options.program}: there is not enough memory to run it on these arrays", 1)
    except KeyboardInterrupt:
        return fail("stopped.", 130)


def _run(options: argparse.Namespace) -> int:
    from sepconv.models.files import FileError, check_target, read_array
    from sepconv.program.program import as_list

    for target in options.outputs:
        if target.suffix != ".npy":
            raise FileError(f"--output: {target}: the file to write must end in .npy")
        check_target(target, options.force)
    program = _program(options.program)
    for name, given, there in (
        ("--input", options.inputs, program.inputs),
        ("--output", options.outputs, program.outputs),
    ):
        if len(given) != len(there) and not (name == "--output" and not given):
            names = ", ".join(f"{each.name} {_shape(each.shape)}" for each in there)
            raise FileError(
                f"{options.program} has {len(there)} {name[2:]}{'s'[: len(there) != 1]}: {names}. "
                f"Give {name} as often. Received: {len(given)}"
            )
    arrays = [read_array(path, "--input") for path in options.inputs]
    try:
        results = as_list(program(*arrays))
    except (ValueError, TypeError) as error:
        raise FileError(f"{options.program}: {error}") from error
    for each, result in zip(program.outputs, results, strict=True):
        print(f"{each.name}: {_shape(result.shape)} {result.dtype}")
    for target, result in zip(options.outputs, results, strict=False):
        _write(target, result, options.force)
    if options.repeat is not None:
        _time(program, arrays, options.repeat)
    return 0


def _program(path: Path) -> Any:
    import sepconv
    from sepconv.models.files import FileError

    try:
        return sepconv.load(path)
    except ValueError as error:
        raise FileError(str(error)) from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "a number"


def _write(target: Path, result: Any, force: bool) -> None:
    import numpy as np

    from sepconv.models.files import FileError, replacing

    try:
        with replacing(target, force) as draft, open(draft, "wb") as file:
            np.save(file, result)
    except OSError as error:
        raise FileError(f"{target} cannot be written: {error.strerror or error}") from error
    print(f"Written: {target}")


def _time(program: Any, arrays: list[Any], repeat: int) -> None:
    import sepconv

    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        program(*arrays)
        samples.append(time.perf_counter() - start)
    threads = sepconv.num_threads()
    print(
        f"{1e3 * statistics.median(samples):.3f} ms a run, the median of {repeat}, on {threads} "
        f"thread{'s'[: threads != 1]} of {sepconv.isa_name()}"
    )
