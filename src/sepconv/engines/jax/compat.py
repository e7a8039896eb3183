"""What versions of JAX name or do in different ways, under one name each.

The oldest version is the one that `sepconv.versions` names. Each function says what the versions
before some other do without.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

from sepconv.versions import check

__all__ = [
    "aval_like",
    "binding",
    "call_back",
    "ffi_version",
    "no_mesh",
    "register_lowering",
    "sharding_rule",
    "sharding_rule_result",
    "trace_state",
    "typeof",
    "vary",
    "varying_axes",
]

check("jax", jax.__version__)
_VERSION = jax.__version_info__

# No one version has all the names that are asked for here.
_core: Any = jax.core
_lax: Any = jax.lax

#: The abstract value of an array or a tracer; `jax.typeof` is of JAX 0.6.
typeof: Any = jax.typeof if hasattr(jax, "typeof") else _core.get_aval


def ffi_version() -> tuple[int, int] | None:
    """The version of the FFI that the installed XLA has, or None where its headers do not say."""
    header = Path(jaxlib.__file__).parent / "include" / "xla" / "ffi" / "api" / "c_api.h"
    with contextlib.suppress(OSError):
        text = header.read_text(encoding="utf-8")
        numbers = [
            re.search(rf"#define XLA_FFI_API_{part} (\d+)", text) for part in ("MAJOR", "MINOR")
        ]
        if all(numbers):
            major, minor = (int(number[1]) for number in numbers if number)
            return major, minor
    return None


def trace_state() -> Any:
    """What is equal within one trace and differs between traces."""
    try:
        from jax.extend.core import get_opaque_trace_state
    except ImportError:  # before JAX 0.10, with an argument that had no effect
        return _core.get_opaque_trace_state("sepconv")
    return get_opaque_trace_state()


def register_lowering(primitive: Any, rule: Callable[..., Any]) -> None:
    """Registers a rule whose result belongs to one call and must not be kept for equal ones.

    Versions that have no such word keep only the results of rules that ask for it.
    """
    if "cacheable" in inspect.signature(mlir.register_lowering).parameters:
        mlir.register_lowering(primitive, rule, cacheable=False)
    else:
        mlir.register_lowering(primitive, rule)


def binding(primitive: Any, params: Mapping[str, Any]) -> Callable[..., Any]:
    """What applies a primitive to operands, with the parameters that it has in a traced program.

    JAX 0.7.2 and older give the programs among the parameters apart from the others.
    """
    found = primitive.get_bind_params(params)
    programs, others = found if isinstance(found, tuple) else ((), found)
    return functools.partial(primitive.bind, *programs, **others)


def call_back(
    context: Any, compute: Callable[..., Sequence[Any]], operands: Sequence[Any]
) -> Sequence[Any]:
    """The results of a call of Python's in a program that is being lowered, on NumPy's arrays."""
    options: dict[str, Any] = {"has_side_effect": False}
    if "returns_token" in inspect.signature(mlir.emit_python_callback).parameters:
        options["returns_token"] = False
    avals = context.avals_in, context.avals_out
    results, _, _ = mlir.emit_python_callback(
        context, compute, None, list(operands), *avals, **options
    )
    return results


def varying_axes(aval: Any) -> frozenset[Any]:
    """The manual mesh axes (of `jax.shard_map`) along which an array differs.

    JAX 0.5 does not know them: all arrays of a program may then be combined.
    """
    manual = getattr(aval, "mat", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def vary(array: Any, axes: tuple[Any, ...]) -> Any:
    """The array, made to vary over more manual mesh axes."""
    if hasattr(_lax, "pcast"):
        return _lax.pcast(array, axes, to="varying")
    return _lax.pvary(array, axes)  # the older name


def aval_like(like: Any, shape: Sequence[int], batch: bool) -> Any:
    """The abstract value of a result with the dtype and mesh axes of `like`.

    Where `batch` holds, the first axis is sharded as that of `like` is. Before JAX 0.6 the types of
    arrays have no sharding.
    """
    if getattr(like, "sharding", None) is None:
        return jax.core.ShapedArray(tuple(shape), like.dtype)
    spec = [None for _ in shape]
    if batch:
        spec[0] = like.sharding.spec[0]
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec(*spec))
    manual: dict[str, Any] = {}
    if hasattr(like, "mat"):
        manual["manual_axis_type"] = like.mat
    elif hasattr(like, "vma"):  # from JAX 0.6 on
        manual["vma"] = like.vma
    return jax.core.ShapedArray(tuple(shape), like.dtype, sharding=sharding, **manual)


def no_mesh() -> AbstractContextManager[Any]:
    """A context in which no mesh is set, whichever the user has set.

    Before JAX 0.7.2 that is private, and what a user can set there has no effect on our programs.
    """
    if not hasattr(jax.sharding, "use_abstract_mesh"):
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def sharding_rule(rule: Any) -> Any:
    """Shardy's rule of a custom partitioning; before JAX 0.6 it cannot follow from the operands.

    There, programs that turn Shardy on, which is off by default, get an error of JAX's.
    """
    return rule if _VERSION >= (0, 6) else None


def sharding_rule_result(text: str, factors: Mapping[str, Sequence[str]]) -> Any:
    """What such a rule returns: before JAX 0.7.2 it cannot say which factors are not cut.

    What comes to us cut along them is then gathered by the partitioner, as before Shardy.
    """
    return (text, dict(factors)) if _VERSION >= (0, 7, 2) else text
