"""`sepconv explain`: from the name or file of a model, module or program to a table or picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

from sepconv._commands import add_command, add_force, count, fail, milliseconds, positive_int
from sepconv.models.command import EngineError, add_engine, add_imports, use_engine

__all__ = ["add_parsers", "run"]

_HELP = "say what every layer of a model costs, and where its time goes"
_ABOUT = """\
A table of a model's convolutions and dense layers, one use a row:

  output          the shape, without the batch
  parameters      the layer's weights
  multiply-adds   as papers count them
  standard        those of an ordinary convolution with the same kernel, input
                  and output
  floor           the time that the layer takes at least: its arithmetic at this
                  machine's rate of multiply-adds, or its bytes at the
                  bandwidth of the memory that they fit in, whichever is more
  time            measured, the layer alone, compiled as Keras does it in
                  predict; the median of several runs

A second table says how sepconv's kernels compute the layers, or would where
they are Keras' own, one step a row:

  step            depthwise and pointwise one after the other; or fused, in
                  tiles or in parts of small images that go through both
  kernel          which kernel computes the depthwise step; `product` is the
                  matrix product of a 1x1 convolution alone
  tile            the most that a task computes at a time: rows, columns and
                  channels, or of a product pixels and filters
  tasks           how many there are to share among threads
  scratch         what a thread works in beside the tensors

--output draws where the time goes. A model of keras.applications gets random
weights, which take the same time; nothing is downloaded.

Of a program, which `sepconv compile` makes, there is a row a step, with its
weights' bytes; its floor is that of its arithmetic, of int8 where the step is
one, and its time is measured within the program. No Keras is needed. A second
table says how convolutions go: the kernel, of int8 with the outputs that it has
in registers, and the tasks with the most rows, or pixels and filters, of one.
A Keras model that is a program, as `sepconv quantize` makes it, is shown alike.

PACKAGE:NAME is a PyTorch module, or a class or function that makes one without
arguments, in a Python module in the current directory or on the Python path,
which is imported. Its steps are those of its program, as sepconv.optimize
makes it.
"""
_EXAMPLES = """\
examples:
  sepconv explain MobileNet
  sepconv explain EfficientNetB0 --engine torch --output explain.svg
  sepconv explain model.keras --batch 8
  sepconv explain fully_convolutional.keras --size 480x640
  sepconv explain model.sepconv
  sepconv explain geffnet:mixnet_s --shape 3x224x224
"""


#: Columns of a terminal that the whole table fits in.
_WIDTH = 110


def _sizes(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split("x"))
    if any(value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return values


def add_parsers(commands: Any) -> None:
    """Adds the command to an `argparse` parser's subparsers."""
    parser = add_command(commands, "explain", summary=_HELP, about=_ABOUT, examples=_EXAMPLES)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .keras, .h5 or .sepconv file, a name in keras.applications, or PACKAGE:NAME of a "
        "PyTorch module",
    )
    parser.add_argument(
        "--batch", type=positive_int, metavar="N", help="examples at a time (default: 1)"
    )
    parser.add_argument(
        "--size",
        type=_sizes,
        metavar="H[xW]",
        help="the size of the pictures, where the model does not fix it (default: 64; for "
        "keras.applications what the network was published with)",
    )
    parser.add_argument(
        "--shape",
        type=_sizes,
        metavar="CxHxW",
        help="of a PyTorch module's input, without the batch (default: 3x224x224)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.svg", help="where to draw the picture (default: not)"
    )
    add_force(parser, "the picture if it is there")
    add_engine(parser)
    add_imports(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carries out the command; returns the exit code, as `sepconv.cli.main` does."""
    from sepconv.explain.named import is_named
    from sepconv.models.files import FileError, check_target, import_modules, replacing

    try:
        if is_named(options.model):
            _explain_module(options)
            return 0
        _refuse(options, ("shape",), f"for PyTorch modules, and {options.model} is none")
        if Path(options.model).suffix == ".sepconv":
            _explain_program(options)
            return 0
        if options.output is not None:
            check_target(options.output, options.force)
            import matplotlib  # noqa: F401 - missed now, not when all is measured
        use_engine(options.engine)
        import_modules(options.imports)
        found = _explain(options)
        if found is not None and options.output is not None:
            from sepconv.explain.plot import picture

            with replacing(options.output, options.force) as draft:
                draft.write_text(picture(found), encoding="utf-8")
            print(f"The picture: {options.output}")
    except (FileError, EngineError) as error:
        return fail(str(error), 2)
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "matplotlib", "torch"):
            raise
        return fail(f"explain needs {error.name}: pip install {error.name}", 2)
    except KeyboardInterrupt:
        return fail("stopped; nothing was written.", 130)
    return 0


def _explain(options: argparse.Namespace) -> Any:
    """Explains under a progress bar and prints the table; None of a model that is a program."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from sepconv.bench import roofline
    from sepconv.bench.benchmark import available_threads
    from sepconv.explain.analysis import explain
    from sepconv.models.files import FileError
    from sepconv.models.verify import random_inputs

    console = _console()
    console.print(f"Reading {options.model} ...", markup=False, highlight=False)
    model = _model(options.model, options.size)
    program = _whole_program(model)
    if program is not None:
        if options.output is not None:
            raise FileError(f"--output is for models of layers, and {options.model} is a program")
        _show_program(options, program, console)
        return None
    console.print("Measuring the machine's limits ...")
    machine = roofline.measure(available_threads(), 0.3)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}"))
    try:
        inputs = random_inputs(model, options.batch or 1, options.size)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("")

            def show(done: int, of: int, what: str) -> None:
                progress.update(task, completed=done, total=of, description=what)

            found = explain(model, inputs, machine, show)
    except ValueError as error:
        raise FileError(f"{options.model}: {error}") from error
    for part in _shown(found, console.width):
        console.print(part)
    return found


def _console() -> Any:
    from rich.console import Console

    # A file or a pipe has no width of its own; what reads it is spared the dots of cut columns.
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def _explain_program(options: argparse.Namespace) -> None:
    """Explains a program and prints the table."""
    import sepconv
    from sepconv.models.files import FileError

    reason = f"for Keras models, and {options.model} is a program"
    _refuse(options, ("output", "engine", "imports"), reason)
    console = _console()
    console.print(f"Reading {options.model} ...", markup=False, highlight=False)
    try:
        program = sepconv.load(options.model)
    except OSError as error:
        raise FileError(f"{options.model} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FileError(_of(options.model, error)) from error
    _show_program(options, program, console)


def _whole_program(model: Any) -> Any:
    """The program of a model that is one and nothing else, as of int8; None of others."""
    from sepconv.models.graph import Graph
    from sepconv.models.lowering.programs import whole_program
    from sepconv.program.program import Program

    try:
        found = whole_program(Graph(model), None)
    except (TypeError, ValueError):  # no such model, which is said where it is explained
        return None
    return None if found is None else Program(found.network)


def _show_program(options: argparse.Namespace, program: Any, console: Any) -> None:
    """Measures a program and prints its table."""
    import sepconv
    from sepconv.bench import roofline
    from sepconv.explain.program_table import program_table
    from sepconv.explain.programs import example_inputs, explain_program
    from sepconv.models.files import FileError

    console.print("Measuring the machine's limits, then the program ...")
    machine = roofline.measure(sepconv.num_threads(), 0.3)
    try:
        arrays = example_inputs(program, options.batch, options.size)
        found = explain_program(options.model, program, arrays, machine)
    except ValueError as error:
        raise FileError(_of(options.model, error)) from error
    for part in program_table(found):
        console.print(part)


def _explain_module(options: argparse.Namespace) -> None:
    """Explains a PyTorch module and prints the table."""
    import torch

    from sepconv.explain.modules import explain_module
    from sepconv.explain.named import named_module
    from sepconv.explain.program_table import program_table
    from sepconv.models.files import FileError

    reason = f"for Keras models, and {options.model} is a PyTorch module"
    _refuse(options, ("output", "engine", "imports"), reason)
    reason = f"for Keras models and programs; --shape is what {options.model} takes"
    _refuse(options, ("size",), reason)
    console = _console()
    console.print(f"Importing {options.model} ...", markup=False, highlight=False)
    module = named_module(options.model)
    console.print("Measuring the machine's limits, then the module ...")
    example = torch.zeros(options.batch or 1, *(options.shape or (3, 224, 224)))
    try:
        explanation = explain_module(module, example)
    # What the module itself raises for such an input, too.
    except (RuntimeError, TypeError, ValueError) as error:
        raise FileError(_of(options.model, error)) from error
    for part in program_table(explanation.found):
        console.print(part)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    """Raises where one of these options is given."""
    from sepconv.models.files import FileError

    for name in names:
        if getattr(options, name):
            flag = "import" if name == "imports" else name
            raise FileError(f"--{flag} is {reason}")


def _of(name: str, error: Exception) -> str:
    """An error's message with the file's name, which it may have already."""
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


def _model(name: str, size: tuple[int, ...] | None) -> Any:
    """The model in a file, or the one of keras.applications with random weights."""
    from sepconv.models.files import FileError, read

    path = Path(name)
    if path.suffix or path.exists():
        return read(path)
    import keras

    known = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in known:
        raise FileError(
            f"{name} is no file and not in keras.applications. There are: {_list(known)}"
        )
    shape = None if size is None else (size[0], size[-1], 3)
    try:
        return getattr(keras.applications, name)(weights=None, input_shape=shape)
    except ValueError as error:
        raise FileError(f"{name} does not take --size {size}: {error}") from error


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _shown(found: Any, width: int) -> list[Any]:
    """The table, less what would not fit in `width` columns, and what is to be known of it."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{found.name} on {found.engine}, batch {found.batch}",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_footer=True,
    )
    total = found.total
    columns: tuple[tuple[str, str, Literal["left", "right"]], ...] = (
        ("layer", "all of them", "left"),
        ("kind", "", "left"),
        ("output", "", "right"),
        ("parameters", f"{total.parameters:,}", "right"),
        ("multiply-adds", count(total.multiply_adds), "right"),
        ("standard", count(total.standard), "right"),
        ("floor ms", milliseconds(found.floor), "right"),
        ("time ms", milliseconds(found.layers), "right"),
        ("share", "", "right"),
    )
    left_out = () if width >= _WIDTH else ("parameters", "standard")
    for header, footer, justify in columns:
        if header not in left_out:
            table.add_column(header, footer, justify=justify, no_wrap=header != "layer")
    for row in found.rows:
        cells = (
            row.name,
            row.kind,
            "x".join(map(str, row.output_shape[1:])),
            f"{row.cost.parameters:,}",
            count(row.cost.multiply_adds),
            count(row.cost.standard),
            milliseconds(row.floor),
            milliseconds(row.seconds),
            found.share(row.seconds),
        )
        pairs = zip(columns, cells, strict=True)
        table.add_row(*(cell for (header, _, _), cell in pairs if header not in left_out))
    return [table, *_notes(found), *_plans(found)]


def _plans(found: Any) -> list[Any]:
    """How our kernels compute the layers, where there are some for any."""
    from rich import box
    from rich.table import Table

    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    table = Table(
        title=f"sepconv's kernels for these layers, on {threads}",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    numbers = ("tile", "tasks", "scratch KiB")
    for header in ("layer", "step", "kernel", *numbers):
        justify: Literal["left", "right"] = "right" if header in numbers else "left"
        table.add_column(header, justify=justify, no_wrap=header != "layer")
    for row in found.rows:
        for step in row.steps:
            tile = "x".join(map(str, step.tile))
            scratch = f"{step.scratch / 1024:,.0f}"
            table.add_row(row.name, step.kind, step.kernel, tile, str(step.tasks), scratch)
    return [table] if table.rows else []


def _notes(found: Any) -> list[str]:
    total = found.total
    notes = [
        f"The whole network: {found.parameters:,} parameters, {milliseconds(found.seconds)} ms a "
        f"prediction; the sum of the layers above, each alone, is {milliseconds(found.layers)} ms."
    ]
    if total.multiply_adds < total.standard:
        notes.append(
            f"Ordinary convolutions would need {total.standard / total.multiply_adds:.1f} times "
            "the multiply-adds."
        )
    return notes
