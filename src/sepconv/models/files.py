"""Keras files on the command line: read without running what they contain, written whole or not."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["FileError", "check_target", "first_line", "read", "replacing"]


class FileError(ValueError):
    """A file that cannot be read or written as asked; the message says which and why."""


def check_target(target: Path, force: bool, source: Path | None = None) -> None:
    """Says no to a path before minutes of work are lost on it.

    Args:
        target: where to write.
        force: whether a file that is there may be replaced.
        source: what is read, which `target` must not be, either.

    Raises:
        FileError: the target is there, or cannot be written.
    """
    folder = target.resolve().parent
    if target.is_dir():
        raise FileError(f"{target} is a folder")
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise FileError(f"the folder {folder} cannot be written to")
    if force or not os.path.lexists(target):
        return
    if source is not None and source.exists() and target.exists() and source.samefile(target):
        raise FileError(f"{target} is the file to read, too; --force replaces it")
    raise FileError(f"{target} is there already; --force replaces it")


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """Gives a path to write to, which becomes `target` when the block ends without an error.

    It lies in a folder of its own beside the target, so that the last step is a rename on one file
    system: whoever looks sees the old file or the new one, whole. An error or an interrupt
    leaves neither the new file nor the folder.

    Args:
        target: the file that is to be.
        force: whether it may replace one.

    Yields:
        The path to write to, with the target's name.

    Raises:
        FileError: the target has come into being in the meantime.
    """
    folder = target.resolve().parent
    with tempfile.TemporaryDirectory(prefix=".sepconv-", dir=folder) as draft:
        path = Path(draft) / target.name
        yield path
        check_target(target, force)
        os.replace(path, target)


def read(path: Path) -> Any:
    """The model in a ``.keras`` file, as it was saved; no code that the file contains is run.

    Args:
        path: the file, with Keras' layers, ours, or both.

    Returns:
        The model.

    Raises:
        FileError: the file is not there, is of another kind, or needs code to be run.
    """
    config = _config(path)
    if _has_code(config):
        raise FileError(
            f"{path} needs unsafe deserialization: it contains Python code (a Lambda layer), which "
            "is not run. Put a layer registered with keras.saving in its place"
        )
    import keras

    import sepconv.layers  # noqa: F401 - registers the layers that the file may name

    try:
        return keras.models.load_model(path, safe_mode=True)
    # Whatever is wrong in a file comes out of Keras as one of a dozen kinds of exceptions.
    except Exception as error:
        raise FileError(f"{path}: Keras does not load it: {first_line(error)}") from error


def _config(path: Path) -> Any:
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    if path.suffix != ".keras":
        raise FileError(
            f"{path} is not a .keras file; a model of another format becomes one by "
            "keras.models.load_model(path).save('model.keras')"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise FileError(f"{path} is not a Keras model: {first_line(error)}") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error


def _has_code(config: Any) -> bool:
    """Whether a config carries a Python lambda, which Keras writes as its bytecode."""
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__":
            return True
        return any(_has_code(value) for value in config.values())
    return isinstance(config, list) and any(_has_code(value) for value in config)


def first_line(error: BaseException) -> str:
    """What an exception says first; some engines add a page to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
