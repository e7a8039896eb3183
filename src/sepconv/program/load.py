"""Opens a program's file."""

from __future__ import annotations

import os

from sepconv.program import file
from sepconv.program.program import Program
from sepconv.program.tune import of_notes

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Program:
    """Opens a program that `Program.save` or ``sepconv compile`` has written.

    Its weights are packed for this processor; the file may be changed or removed afterwards.
    Nothing in the file is code: a broken or hostile one gives an error.

    Args:
        path: of the file.

    Returns:
        A `sepconv.program.program.Program`.

    Raises:
        ValueError: the file is not that of a program, is damaged, or is of a newer version.
        OSError: it cannot be read.

    Example:
        >>> import tempfile, pathlib
        >>> from sepconv.program.network import Input, Network, Step
        >>> step = Step("softmax", "softmax", (0,), {"axis": 1, "logarithm": False})
        >>> program = Program(Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], []))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "net.sepconv"
        ...     program.save(path)
        ...     load(path)([[1.0, 1.0]])
        array([[0.5, 0.5]], dtype=float32)
    """
    network, notes = file.read(path)
    try:
        return Program(network, tuning=of_notes(notes), notes=notes, keep=False)
    except ValueError as error:
        raise ValueError(f"{os.fsdecode(path)}: {error}") from error
