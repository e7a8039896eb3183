"""The PyTorch module that the command line names, as `sepconv explain PACKAGE:NAME`."""

from __future__ import annotations

import re
import sys
from typing import Any

from sepconv.models.files import FileError, first_line, import_modules

__all__ = ["is_named", "named_module"]


def is_named(text: str) -> bool:
    """Whether a text is the name of a module within a Python module, rather than of a file.

    Example:
        >>> is_named("geffnet:mixnet_s"), is_named("model.keras"), is_named("MobileNet")
        (True, False, False)
    """
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", text) is not None


def named_module(text: str) -> Any:
    """Imports the Python module and takes the PyTorch module from it, or makes it.

    Args:
        text: ``"PACKAGE:NAME"``. PACKAGE is in the current directory or on the Python path; NAME
            is a `torch.nn.Module`, or a class or function that makes one without arguments.

    Returns:
        The module.

    Raises:
        FileError: there is no such module or name, or it is or makes something else, or fails.

    Example:
        >>> named_module("torch.nn:Identity")
        Identity()
    """
    from torch import nn

    package, _, name = text.partition(":")
    import_modules([package], asked_by=text)
    try:
        found = getattr(sys.modules[package], name)
    except AttributeError as error:
        raise FileError(f"{text}: the module {package} has no {name}") from error
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        # A user's function may raise anything.
        except Exception as error:
            raise FileError(
                f"{text}: {name}() fails with {type(error).__name__}: {first_line(error)}. It is "
                "called without arguments"
            ) from error
    if not isinstance(found, nn.Module):
        raise FileError(
            f"{text} must be a torch.nn.Module, or make one when it is called without arguments. "
            f"Received: {type(found).__name__}"
        )
    return found
