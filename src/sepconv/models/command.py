"""`sepconv accelerate`, `optimize` and `factorize`: from one Keras file to another."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sepconv._commands import (
    TerminatedError,
    add_command,
    add_force,
    fail,
    positive_int,
    tell_step,
    terminable,
)

__all__ = [
    "COMMANDS",
    "DiffersError",
    "EngineError",
    "add_conversion",
    "add_engine",
    "add_imports",
    "add_parsers",
    "carry_out",
    "run",
    "use_engine",
]

#: In the order in which one is looked for where nobody chose.
_ENGINES = ("jax", "torch", "tensorflow")

_ACCELERATE = """\
Replaces Keras' depthwise and separable convolutions in a model by sepconv's, and ordinary ones
where sepconv computes them. Weights, names, and how the model is compiled stay; it predicts the
same, and can be trained on.

Reads IN, writes OUT, reads OUT back and holds its predictions on input that is made for the model
against IN's. OUT appears only when all of that went well. To load it:

  import keras, sepconv
  model = keras.models.load_model("OUT.keras")
"""
_OPTIMIZE = """\
Rewrites a model for inference: folds batch normalization into the convolutions beside it, fuses
what follows a depthwise convolution into it, and drops what does nothing when predicting. The
predictions stay the same to 1e-4; do not train the result.

Reads IN, writes OUT, reads OUT back and holds its predictions on input that is made for the model
against IN's. OUT appears only when all of that went well. To load it:

  import keras, sepconv
  model = keras.models.load_model("OUT.keras")
"""
_FACTORIZE = """\
Replaces a model's ordinary convolutions by separable ones that come close to them, within the
budget that you choose. The result is another, cheaper function: train it on for a few epochs.

Reads IN, writes OUT, and says how far OUT's predictions on input that is made for the model are
from IN's. Without --data the kernels are approximated; with it, the layers' outputs for your
examples.
"""
_EXAMPLES = {
    "accelerate": """\
examples:
  sepconv accelerate mobilenet.keras fast.keras
  sepconv accelerate old.h5 fast.keras --import my_layers
  sepconv accelerate --force --engine torch mobilenet.keras mobilenet.keras
""",
    "optimize": """\
examples:
  sepconv optimize mobilenet.keras served.keras
  sepconv optimize mobilenet.keras served.keras --dtype bfloat16
  sepconv explain served.keras
""",
    "factorize": """\
examples:
  sepconv factorize vgg.keras small.keras --energy 0.95
  sepconv factorize vgg.keras small.keras --rank 2 --data pictures.npy
  sepconv factorize vgg.keras small.keras --flops 0.3 --data pictures.npy
""",
}


class _Command(NamedTuple):
    """What the three commands differ in.

    Attributes:
        help: a line for the list of commands.
        about: what it does.
        doing: what is going on while it works.
        tolerance: the largest difference allowed, relative; None where it is an approximation.
    """

    help: str
    about: str
    doing: str
    tolerance: float | None


COMMANDS = {
    "accelerate": _Command(
        "replace a model's depthwise and separable convolutions by sepconv's",
        _ACCELERATE,
        "Replacing layers",
        1e-5,
    ),
    "optimize": _Command(
        "fold and fuse a model's layers for inference", _OPTIMIZE, "Folding and fusing layers", 1e-4
    ),
    "factorize": _Command(
        "approximate a model's ordinary convolutions by separable ones",
        _FACTORIZE,
        "Factorizing kernels",
        None,
    ),
}


class DiffersError(RuntimeError):
    """What was made does not predict what the model does."""


class EngineError(RuntimeError):
    """The engine asked for is not there; the message says how to get it."""


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds the option that chooses what Keras runs on."""
    parser.add_argument(
        "--engine",
        choices=_ENGINES,
        help="what Keras runs on (default: KERAS_BACKEND, else the first of these installed)",
    )


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names modules with layers of somebody's own."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module, from the current directory or the Python path, which registers "
        "layers of your own with keras.saving.register_keras_serializable; may be repeated",
    )


def add_conversion(
    parser: argparse.ArgumentParser,
    target: str,
    *,
    what: str = "the file to write",
    force: str = "OUT if it is there",
) -> None:
    """Adds what `carry_out` needs of a command that makes one file of another.

    Args:
        parser: of the command, which has its own options already: these follow in its help.
        target: the name of the file to write, in its help.
        what: what that is.
        force: what `--force` replaces.
    """
    parser.add_argument(
        "source", type=Path, metavar="IN", help="the model to read, a .keras or .h5 file"
    )
    parser.add_argument("target", type=Path, metavar=target, help=what)
    add_force(parser, force)
    add_engine(parser)
    add_imports(parser)


def use_engine(engine: str | None) -> str:
    """Has Keras run on an engine, which must be decided before Keras is imported.

    Returns:
        The engine's name.

    Raises:
        EngineError: it is not installed, or Keras runs on another one already.
    """
    if engine is None:
        engine = os.environ.get("KERAS_BACKEND") or next(filter(_installed, _ENGINES), None)
    if engine is None or not _installed("keras") or not _installed(engine):
        wanted = engine or _ENGINES[0]
        raise EngineError(
            f"this needs Keras and {wanted}, not both installed here: pip install "
            f"'sepconv[{wanted}]'"
        )
    os.environ["KERAS_BACKEND"] = engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    if keras.backend.backend() != engine:
        raise EngineError(f"Keras runs on {keras.backend.backend()} in this process, not {engine}")
    return engine


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _budget(text: str) -> int | float:
    """A part, or above 1 a number, as `factorize` takes it."""
    value = _positive(text)
    if value > 1 and value != int(value):
        raise argparse.ArgumentTypeError(f"above 1 it must be a whole number, received {text}")
    return int(value) if value > 1 else value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, received {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, received {text}")
    return value


def add_parsers(commands: Any) -> None:
    """Adds the three commands to an `argparse` parser's subparsers."""
    for name, command in COMMANDS.items():
        parser = add_command(
            commands, name, summary=command.help, about=command.about, examples=_EXAMPLES[name]
        )
        if name == "factorize":
            _add_budget(parser)
        if name == "optimize":
            parser.add_argument(
                "--dtype",
                choices=("bfloat16", "float16"),
                help="what blocks compute in, and have their weights in (default: as the layers)",
            )
        add_conversion(parser, "OUT.keras", force="OUT if it is there, even if it is IN")
        parser.set_defaults(run=run)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--rank",
        type=positive_int,
        metavar="N",
        help="depthwise filters an input channel, in every layer",
    )
    budget.add_argument(
        "--energy",
        type=_fraction,
        metavar="E",
        help="keep at least this part of each layer's squared norm, 0 to 1",
    )
    budget.add_argument(
        "--max-error", type=_positive, metavar="E", help="the largest relative error of a layer"
    )
    for name, what in (("flops", "multiply-adds for one example"), ("parameters", "weights")):
        budget.add_argument(
            f"--{name}",
            type=_budget,
            metavar="N",
            help=f"at most this part of the model's {what}, up to 1, or this many, above 1",
        )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE.npy",
        help="examples of the model's input; the outputs for them are kept close, not the kernels",
    )


def run(options: argparse.Namespace) -> int:
    """Carries out one of the three commands; returns the exit code, as `sepconv.cli.main` does."""
    return carry_out(options, ".keras", _convert)


def carry_out(
    options: argparse.Namespace,
    suffix: str,
    convert: Callable[[argparse.Namespace], int],
    *,
    keras: bool = True,
) -> int:
    """Carries out a command that makes one file of another, and tells what went wrong.

    Args:
        options: those of `add_conversion` among them.
        suffix: what the target's name must end in.
        convert: makes the file, and returns the exit code.
        keras: whether that needs Keras.

    Returns:
        The exit code.
    """
    from sepconv.models.files import FileError, check_target, import_modules

    try:
        if options.target.suffix != suffix:
            raise FileError(f"{options.target}: the file to write must end in {suffix}")
        check_target(options.target, options.force, options.source)
        if keras:
            use_engine(options.engine)
            import_modules(options.imports)
        with terminable():
            return convert(options)
    except (FileError, EngineError) as error:
        return fail(str(error), 2)
    except DiffersError as error:
        return fail(str(error), 1)
    except OSError as error:
        return fail(f"{options.target} cannot be written: {error.strerror or error}", 1)
    except (KeyboardInterrupt, TerminatedError) as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else 128 + signal.SIGTERM
        return fail(f"stopped; {options.target} was not written.", code)


def _convert(options: argparse.Namespace) -> int:
    from sepconv.models import files, verify

    command = COMMANDS[options.command]
    function = _function(options)
    begun = time.perf_counter()
    tell_step(begun, f"Reading {options.source}")
    model = files.read(options.source)
    try:
        tell_step(begun, command.doing)
        changed, record = function(model)
        # Where the predictions could not be compared, those of the file cannot be either.
        comparable = record.verification.startswith("verified")
        if comparable:
            inputs = verify.random_inputs(model)
            tell_step(begun, "Predicting on made-up input")
            expected = verify.predict(model, inputs)
    except (ValueError, TypeError) as error:
        raise files.FileError(f"{options.source}: {error}") from error
    print(record)
    apart: float | None = None
    with files.replacing(options.target, options.force) as draft:
        tell_step(begun, f"Writing {options.target}")
        changed.save(draft)
        tell_step(begun, "Reading it back")
        read = files.read(draft)
        if comparable:
            tell_step(begun, "Predicting on the same input")
            apart = verify.difference(expected, verify.predict(read, inputs))
            _check(options, command, apart)
    if apart is None:
        print(
            f"Written: {options.target}\nIts predictions were not compared: {record.verification}"
        )
        return 0
    return _tell(options, command, apart)


def _check(options: argparse.Namespace, command: _Command, apart: float) -> None:
    # Not "above": what is not a number is refused, too.
    tolerance = _tolerance(options, command)
    if tolerance is not None and not apart <= tolerance:
        raise DiffersError(
            f"the predictions differ by {apart:.1e} of the largest, more than "
            f"{tolerance:.0e}; {options.target} was not written."
        )


def _tolerance(options: argparse.Namespace, command: _Command) -> float | None:
    """The largest difference allowed, relative; in a half type that of most networks."""
    from sepconv.models.comparing import precision_of, usual

    dtype = getattr(options, "dtype", None)
    if dtype is None or command.tolerance is None:
        return command.tolerance
    return max(command.tolerance, usual(precision_of(dtype)))


def _function(options: argparse.Namespace) -> Callable[[Any], tuple[Any, Any]]:
    """What the command does to a model: returns (model, something to print)."""
    import sepconv
    from sepconv.models.files import read_array

    function = getattr(sepconv, options.command)
    if options.command == "optimize" and options.dtype is not None:
        return lambda model: function(model, dtype=options.dtype)
    if options.command != "factorize":
        return function
    names = ("rank", "energy", "max_error", "flops", "parameters")
    budget = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    data = None if options.data is None else read_array(options.data, "--data")
    return lambda model: function(model, data=data, **budget)


def _tell(options: argparse.Namespace, command: _Command, apart: float) -> int:
    print(f"Written: {options.target}")
    tolerance = _tolerance(options, command)
    if tolerance is None:
        cure = " Training the new model on makes up for most of it." if apart else ""
        print(
            f"Approximation error: {apart:.1e}, the largest difference between the predictions of "
            f"the two on made-up input, relative to the largest prediction.{cure}"
        )
    else:
        print(
            f"The same predictions: on made-up input they differ by at most {apart:.1e} of the "
            f"largest (allowed: {tolerance:.0e})."
        )
    return 0
