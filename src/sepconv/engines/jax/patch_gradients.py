"""Has both gradients of a convolution made by one call while a patch of JAX is on.

JAX differentiates a convolution in each operand apart: two convolutions, each of which reads the
result's gradient. Where our kernels compute a convolution, they make both gradients in one call.
So the patch puts a rule of ours in the place of JAX's for the tangents of both operands. Its
tangent is a primitive, and the transpose of that one another. Whatever else is asked of the two
(further derivatives, batching, another platform) follows from the convolutions that JAX would have
made, and a convolution with one operand that moves stays JAX's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.interpreters import ad, batching, mlir

from sepconv.engines.jax.calls import make_primitive, output_aval
from sepconv.engines.jax.compat import typeof
from sepconv.engines.jax.refusal import is_spread, refusal
from sepconv.engines.jax.served import Served, serve
from sepconv.engines.jax.transforms import composed_batch, composed_jvp, is_zero, no_cotangents

__all__ = ["GradientPatch"]

#: The parameters of JAX's convolution, by name.
_Params = tuple[tuple[str, Any], ...]

Report = Callable[[str], None]


class GradientPatch:
    """Replaces JAX's rule for the tangents of convolutions.

    Args:
        report: hears the kind of each convolution whose gradients are compiled as one call.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._original: Any = None  # JAX's rule, while replaced
        self._ours: Any = None
        self._on = False

    def put(self) -> None:
        """Replaces the rule."""
        rule = ad.primitive_jvps.get(lax.conv_general_dilated_p)
        self._on = True
        _report_to(self._report)
        # Ours may have stayed, under a rule that someone else put over it. A version of JAX that
        # has no such rule differentiates in some other way, and as without us.
        if rule is not None and (self._ours is None or rule is self._original):
            self._original, self._ours = rule, self._tangent_rule
            ad.primitive_jvps[lax.conv_general_dilated_p] = self._ours

    def take(self) -> None:
        """Puts JAX's rule back, unless someone else has replaced ours since."""
        self._on = False
        _report_to(None)
        if ad.primitive_jvps.get(lax.conv_general_dilated_p) is self._ours:
            ad.primitive_jvps[lax.conv_general_dilated_p] = self._original
            self._ours = None

    def _tangent_rule(
        self, primals: Sequence[Any], tangents: Sequence[Any], **params: Any
    ) -> tuple[Any, Any]:
        if not self._on or any(map(is_zero, tangents)) or any(map(is_spread, primals)):
            result: tuple[Any, Any] = self._original(primals, tangents, **params)
            return result
        y = lax.conv_general_dilated_p.bind(*primals, **params)
        if _in_one_call((*map(typeof, primals), typeof(y)), params) is None:
            return y, self._original(primals, tangents, **params)[1]
        return y, _tangent.bind(*primals, *tangents, params=tuple(params.items()))


_report: Report | None = None


def _report_to(report: Report | None) -> None:
    """Sets what hears of gradients in one call; None where no patch is on."""
    global _report
    _report = report


def _in_one_call(avals: Sequence[Any], params: dict[str, Any]) -> Served | None:
    """The convolution of lhs and rhs to a result, if one call makes both gradients."""
    lhs, rhs, out = (tuple(aval.shape) for aval in avals)
    found = serve((lhs, rhs, out), [aval.dtype.name for aval in avals], params)
    return found if isinstance(found, Served) and found.gradients else None


# --- The primitives, and the convolutions that JAX would have made --------------------------------


def _convolve(lhs: Any, rhs: Any, params: _Params) -> Any:
    return lax.conv_general_dilated_p.bind(lhs, rhs, **dict(params))


def _for_lhs(lhs: Any, rhs: Any, dy: Any, params: _Params) -> Any:
    like = jax.ShapeDtypeStruct(lhs.shape, lhs.dtype)
    return jax.linear_transpose(lambda lhs: _convolve(lhs, rhs, params), like)(dy)[0]


def _for_rhs(lhs: Any, rhs: Any, dy: Any, params: _Params) -> Any:
    like = jax.ShapeDtypeStruct(rhs.shape, rhs.dtype)
    return jax.linear_transpose(lambda rhs: _convolve(lhs, rhs, params), like)(dy)[0]


def _composed_tangent(lhs: Any, rhs: Any, dlhs: Any, drhs: Any, *, params: _Params) -> Any:
    return _convolve(dlhs, rhs, params) + _convolve(lhs, drhs, params)


def _composed_gradients(lhs: Any, rhs: Any, dy: Any, *, params: _Params) -> list[Any]:
    return [_for_lhs(lhs, rhs, dy, params), _for_rhs(lhs, rhs, dy, params)]


def _tangent_aval(lhs: Any, rhs: Any, *_: Any, params: _Params) -> Any:
    like = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (lhs, rhs))
    y = jax.eval_shape(functools.partial(_convolve, params=params), *like)
    return output_aval(lhs, y.shape)


def _gradients_avals(lhs: Any, rhs: Any, _: Any, *, params: _Params) -> list[Any]:
    return [output_aval(a, a.shape) for a in (lhs, rhs)]


_tangent = make_primitive(
    "convolution_tangent", abstract=_tangent_aval, elsewhere=_composed_tangent
)
_gradients = make_primitive(
    "convolution_gradients",
    abstract=_gradients_avals,
    elsewhere=_composed_gradients,
    multiple_results=True,
)


def _lower_gradients(context: Any, *operands: Any, params: _Params) -> Any:
    """By one call on the CPU; by JAX's convolutions where the patch is off or refuses a program."""
    report, named = _report, dict(params)
    found = None
    if report is not None and not refusal(context, named):
        found = _in_one_call(context.avals_in, named)
    if report is None or found is None:
        call: Any = functools.partial(_composed_gradients, params=params)
    else:
        report(found.kind)
        call = found.gradients
    return mlir.lower_fun(call, multiple_results=True)(context, *operands)


mlir.register_lowering(_gradients, _lower_gradients, platform="cpu")


# --- Differentiation and vmap ---------------------------------------------------------------------


def _tangent_transpose(
    dy: Any, lhs: Any, rhs: Any, dlhs: Any, drhs: Any, *, params: _Params
) -> list[Any]:
    if is_zero(dy):
        return no_cotangents((lhs, rhs, dlhs, drhs))
    for_lhs, for_rhs = map(ad.is_undefined_primal, (dlhs, drhs))
    if for_lhs and for_rhs:
        return [None, None, *_gradients.bind(lhs, rhs, dy, params=params)]
    if for_lhs:
        return [None, None, _for_lhs(lhs, rhs, dy, params), None]
    return [None, None, None, _for_rhs(lhs, rhs, dy, params)]


def _gradients_transpose(
    cotangents: Sequence[Any], lhs: Any, rhs: Any, dy: Any, *, params: _Params
) -> list[Any]:
    dlhs, drhs = cotangents
    if is_zero(dlhs) and is_zero(drhs):
        return no_cotangents((lhs, rhs, dy))
    if is_zero(drhs):
        return [None, None, _convolve(dlhs, rhs, params)]
    if is_zero(dlhs):
        return [None, None, _convolve(lhs, drhs, params)]
    return [None, None, _tangent.bind(lhs, rhs, dlhs, drhs, params=params)]


for _primitive, _composed in ((_tangent, _composed_tangent), (_gradients, _composed_gradients)):
    ad.primitive_jvps[_primitive] = functools.partial(composed_jvp, _composed)
    batching.primitive_batchers[_primitive] = functools.partial(composed_batch, _composed)
ad.primitive_transposes[_tangent] = _tangent_transpose
ad.primitive_transposes[_gradients] = _gradients_transpose
