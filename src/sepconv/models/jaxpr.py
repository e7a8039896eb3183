"""A program that JAX traced, computed once without compiling it.

XLA takes longer to compile a small network than the network takes: for MobileNet half a second, and
five where it compiles operation by operation. NumPy makes a single prediction faster: it has most
operations of a network's inference. JAX computes those that NumPy lacks; if there are more than a
few, XLA compiles the whole program. sepconv's own operations are computed by the kernels that XLA
would call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from sepconv.engines.jax.compat import binding
from sepconv.models import jaxpr_rules

__all__ = ["evaluate"]

#: Operations that JAX may compile one by one, 20 to 50 ms each, before the whole is compiled.
_MOST_COMPILED = 6
#: Operations that contain a program, with the name of its parameter.
_CALLS = {
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


def evaluate(
    program: core.ClosedJaxpr, arguments: Sequence[Any], *, by_engine: bool = False
) -> list[Any]:
    """The results of a program, as `jax.make_jaxpr` gives it.

    Args:
        program: with its constants.
        arguments: a NumPy or JAX array for each of its inputs.
        by_engine: whether XLA has to compile it anyway.

    Returns:
        NumPy arrays; those of random keys and the like are JAX'.

    Example:
        >>> program = jax.make_jaxpr(lambda x: jax.numpy.exp(x) + 1)(np.ones(2, "float32"))
        >>> evaluate(program, [np.zeros(2, "float32")])
        [array([2., 2.], dtype=float32)]
    """
    strangers: set[Any] = set()
    _find_strangers(program.jaxpr, strangers)
    if by_engine or len(strangers) > _MOST_COMPILED:
        # Constants as arguments: XLA would compute with those in the program while it compiles.
        compiled = jax.jit(functools.partial(jax.core.eval_jaxpr, program.jaxpr))
        return [_as_numpy(value) for value in compiled(program.consts, *arguments)]
    return _run(program.jaxpr, program.consts, arguments)


def _find_strangers(program: core.Jaxpr, found: set[Any]) -> None:
    """Adds what tells apart the operations that NumPy does not compute."""
    for equation in program.eqns:
        inner = _inner(equation)
        if inner is not None:
            _find_strangers(inner.jaxpr, found)
        elif _rule(equation) is None:
            shapes = tuple(str(v.aval) for v in equation.invars)
            found.add((equation.primitive.name, shapes, str(equation.params)))


def _inner(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """The program that an operation contains, or None."""
    key = _CALLS.get(equation.primitive.name)
    inner = None if key is None else equation.params.get(key)
    if isinstance(inner, core.Jaxpr):
        return core.ClosedJaxpr(inner, ())
    return inner


def _rule(equation: core.JaxprEqn) -> Callable[..., Any] | None:
    """The NumPy function for an operation with its operands; None where there is none."""
    variables = (*equation.invars, *equation.outvars)
    if not all(getattr(v.aval, "dtype", None) in jaxpr_rules.NUMPY_DTYPES for v in variables):
        return None
    return jaxpr_rules.rule(equation.primitive.name, equation.params, equation.invars)


def _run(program: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = {}
    values.update(zip(program.constvars, map(_as_numpy, constants), strict=True))
    values.update(zip(program.invars, map(_as_numpy, arguments), strict=True))
    last = {v: e for e in program.eqns for v in e.invars if not isinstance(v, core.Literal)}
    kept = {v for v in program.outvars if not isinstance(v, core.Literal)}

    def read(variable: Any) -> Any:
        if isinstance(variable, core.Literal):
            literal: Any = variable
            return np.asarray(literal.val, literal.aval.dtype)
        return values[variable]

    for equation in program.eqns:
        operands = [read(v) for v in equation.invars]
        results = _apply(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
        for variable in {v for v in equation.invars if not isinstance(v, core.Literal)}:
            # Or all that a network has in between would stay in memory.
            if last[variable] is equation and variable not in kept:
                del values[variable]
    return [read(v) for v in program.outvars]


def _apply(equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    inner = _inner(equation)
    if inner is not None:
        return _run(inner.jaxpr, inner.consts, operands)
    rule = _rule(equation)
    if rule is None:
        return _apply_by_jax(equation, operands)
    with np.errstate(all="ignore"):
        result = rule(*operands)
    expected: Any = equation.outvars[0].aval
    result = np.asarray(result, expected.dtype)
    if result.shape != expected.shape:
        raise AssertionError(f"{equation.primitive.name} gave {result.shape}, not {expected}")
    return [result]


def _apply_by_jax(equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    primitive = equation.primitive
    results = jax.jit(binding(primitive, equation.params))(*operands)
    return [_as_numpy(r) for r in (results if primitive.multiple_results else [results])]


def _as_numpy(value: Any) -> Any:
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return np.asarray(value)
