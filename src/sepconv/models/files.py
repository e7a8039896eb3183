"""Files on the command line: read without running their code, written whole or not at all."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "FileError",
    "check_target",
    "first_line",
    "import_modules",
    "read",
    "read_array",
    "replacing",
]


_H5 = (".h5", ".hdf5")

#: Keras' modules with the classes and functions of models.
_MODULES = (
    *("activations", "constraints", "dtype_policies", "initializers", "layers", "losses"),
    *("metrics", "models", "optimizers", "quantizers", "regularizers", "ops"),
)


class FileError(ValueError):
    """A file cannot be read or written as asked; the message says which and why."""


def check_target(target: Path, force: bool, source: Path | None = None) -> None:
    """Raises for a path that cannot be written, before minutes of work are lost.

    Args:
        target: where to write.
        force: whether a file that is there may be replaced.
        source: the file to read, which must be another one.

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

    It is in a temporary folder beside the target, so that the last step is a rename on one file
    system: a reader finds the old file or the new one, whole. After an error or an interrupt,
    neither the new file nor the folder remains.

    Args:
        target: the file to make.
        force: whether it may replace an existing file.

    Yields:
        The path to write to, with the target's name.

    Raises:
        FileError: the target was made by another program in the meantime.
    """
    folder = target.resolve().parent
    with tempfile.TemporaryDirectory(prefix=".sepconv-", dir=folder) as draft:
        path = Path(draft) / target.name
        yield path
        check_target(target, force)
        os.replace(path, target)


def read_array(path: Path, option: str) -> Any:
    """The array in a .npy file, for an option of the command line.

    Raises:
        FileError: it cannot be read, or is something else; the message names the option.
    """
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"{option}: {path} is not a .npy file with numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise FileError(f"{option}: {path} is an archive of arrays: save one alone, with np.save")
    return array


def read(path: Path) -> Any:
    """The model in a ``.keras`` or ``.h5`` file, as it was saved; no code in the file is run.

    Args:
        path: the file, with Keras' layers, ours, or both.

    Returns:
        The model.

    Raises:
        FileError: the file is not there, is of another kind, needs code to be run, or has layers of
            an unregistered class.
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
    # Keras raises a dozen kinds of exceptions for faulty files.
    except Exception as error:
        unknown = dict(_unknown(config))
        if unknown:
            raise FileError(f"{path} {_refusal(unknown)}") from error
        raise FileError(f"{path}: Keras does not load it: {first_line(error)}") from error


def _config(path: Path) -> Any:
    """The config of the model in a file, as JSON."""
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    if path.suffix not in (".keras", *_H5):
        raise FileError(
            f"{path} is not a .keras or .h5 file; a model of another format becomes one by "
            "keras.models.load_model(path).save('model.keras')"
        )
    try:
        return _config_of_h5(path) if path.suffix in _H5 else _config_of_archive(path)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise FileError(f"{path} is not a Keras model: {first_line(error)}") from error
    except OSError as error:
        # h5py has no number for a file of another kind.
        why = "cannot be read" if error.errno else "is not a Keras model"
        raise FileError(f"{path} {why}: {error.strerror or first_line(error)}") from error


def _config_of_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def _config_of_h5(path: Path) -> Any:
    """The config of a whole model and of its compilation, which may name a user's own losses."""
    import h5py

    with h5py.File(path, "r") as file:
        texts = [file.attrs.get(name) for name in ("model_config", "training_config")]
    if texts[0] is None:
        raise ValueError("it has weights alone; save all of it, with model.save('model.keras')")
    return [json.loads(text) for text in texts if text is not None]


def _has_code(config: Any) -> bool:
    """Whether a config carries a Python lambda, which Keras writes as its bytecode."""
    if isinstance(config, dict):
        # The latter is Keras 2's form.
        if config.get("class_name") == "__lambda__" or "lambda" in (
            config.get("function_type"),
            config.get("output_shape_type"),
            config.get("mask_type"),
        ):
            return True
        return any(_has_code(value) for value in config.values())
    return isinstance(config, list) and any(_has_code(value) for value in config)


def _refusal(unknown: dict[str, str]) -> str:
    """The message about unknown classes and functions, with how to make them known."""
    # The saved name of a registered class begins with its package.
    bare = next((name for name in unknown.values() if ">" not in name), None)
    register = "register_keras_serializable" if bare is None else "get_custom_objects"
    how = "" if bare is None else f"()[{bare!r}] = {bare}"
    return (
        f"has what Keras does not know: {', '.join(unknown)}. Name the module of your own that "
        f"registers it, with keras.saving.{register}{how}: --import MODULE"
    )


def _unknown(config: Any) -> Iterator[tuple[str, str]]:
    """The objects in a config whose class or function Keras does not find: (description, name)."""
    if isinstance(config, list):
        for value in config:
            yield from _unknown(value)
    if not isinstance(config, dict):
        return
    name, inner = config.get("class_name"), config.get("config")
    if isinstance(name, str) and not _is_known(config, name):
        if name == "function":
            yield f"the function {inner!r}", str(inner)
        else:
            called = inner.get("name") if isinstance(inner, dict) else None
            what = str(config.get("registered_name") or name)
            layer = f"the layer {called!r} of the class {what}"
            yield layer if called else f"the class {what}", what
    for value in config.values():
        yield from _unknown(value)


def _is_known(config: dict[str, Any], name: str) -> bool:
    import keras

    registered = config.get("registered_name") or name
    if name.startswith("__") or keras.saving.get_registered_object(registered) is not None:
        return True
    if name == "function":
        name = str(config.get("config"))
        if keras.saving.get_registered_object(name) is not None:
            return True
    elif "module" in config:
        return str(config["module"]).split(".")[0] == "keras"
    # An object without a module is from a .h5 file or a function of Keras'.
    return any(hasattr(getattr(keras, module), name) for module in _MODULES)


def import_modules(names: Sequence[str], asked_by: str = "--import") -> None:
    """Imports a user's modules, which register the classes that files name.

    Args:
        names: modules in the current directory or on the Python path.
        asked_by: the argument of the command that names them, for errors.

    Raises:
        FileError: there is no such module, or it fails.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        for name in names:
            _import_module(name, asked_by)
    finally:
        sys.path.remove(here)


def _import_module(name: str, asked_by: str) -> None:
    try:
        importlib.import_module(name)
    # A user's module may raise anything.
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(f"{missing}.")):
            hint = f". Without the ending: {name[:-3]}" if name.endswith(".py") else ""
            raise FileError(
                f"{asked_by}: there is no module {name} in {os.getcwd()} or on the Python path"
                f"{hint}"
            ) from error
        raise FileError(
            f"{asked_by}: {name} fails with {type(error).__name__}: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; some engines add a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
