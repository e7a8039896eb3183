"""Replaces JAX's rule for lowering convolutions on the CPU by ours while a patch is on.

Flax's batch normalization goes with it, by `flax_patch`, and gradients of both operands at once,
by `patch_gradients`.

Whatever calls `lax.conv_general_dilated`, JAX lowers it by one rule of its table for the platform
"cpu": after differentiation, `vmap` and `scan` have done their part, and for the forms that they
make. The table is private to JAX, though it has been the same in all versions that are tested. What
is not served goes to JAX's own rule.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.interpreters import mlir

from sepconv._hold import Hold
from sepconv.engines.jax.flax_patch import FlaxPatch
from sepconv.engines.jax.patch_gradients import GradientPatch
from sepconv.engines.jax.refusal import refusal
from sepconv.engines.jax.served import Served, serve
from sepconv.versions import TESTED

__all__ = ["JaxPatch", "patch_jax", "unpatch_jax"]

_SERVED = "served"


def patch_jax() -> JaxPatch:
    """Makes JAX's own convolutions on the CPU compute with our kernels.

    From then on, in the whole process, our kernels compute `jax.lax.conv_general_dilated` where it
    is a depthwise convolution (of any multiplier) or a 1x1 one, in one or two axes of space, of
    float32, float64, float16 or bfloat16; and so `jax.lax.conv`, `flax.nnx.Conv`,
    `flax.linen.Conv`, `equinox.nn.Conv2d`, haiku's and anybody's own, under every transformation
    of JAX's. Their gradients are served as well, so that training gets faster. It may be called
    again, from any thread. `unpatch_jax` undoes it, and so does the end of the ``with`` statement
    that it is used in; of nested or concurrent ones, the end of the last.

    JAX's own rule computes the rest, as without a patch: other convolutions, and all of a program
    that is spread over devices, exported (`jax.export`) or lowered for several platforms, of other
    dtypes, or with a `preferred_element_type` of another kind than its operands'. Axes of images
    must lie as in NHWC or NCHW; those of kernels may lie anyhow.

    Of flax, `flax.nnx.BatchNorm` and `flax.linen.BatchNorm` are served too, in float32 and float64:
    their sums over pixels, forward and in gradients.

    All functions are compiled again at their next call, now and when the patch is undone, for JAX
    keeps what it has compiled: this clears its caches (`jax.clear_caches()`). Only what has been
    compiled ahead of time (``jax.jit(f).lower(x).compile()``) keeps what it was compiled with.

    Returns:
        A context manager that undoes this call at its end. It need not be entered. It is also the
        record of the convolutions compiled since: how many are served, and why others are not.

    Raises:
        RuntimeError: this version of JAX keeps its rules in another way than those known.

    Warns:
        RuntimeWarning: this version of flax has other functions than those known; it normalizes as
            without the patch.

    Example:
        >>> import jax, jax.numpy as jnp, sepconv
        >>> x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
        >>> with sepconv.patch_jax() as record:
        ...     y = jax.lax.conv_general_dilated(
        ...         x, kernel, (1, 1), "SAME",
        ...         dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4,
        ...     )
        >>> print(record)
        patch_jax: 1 of 1 convolutions served
            1  depthwise
    """
    return JaxPatch()


def unpatch_jax() -> None:
    """Undoes all calls of `patch_jax`.

    Example:
        >>> import sepconv
        >>> _ = sepconv.patch_jax()
        >>> sepconv.unpatch_jax()
    """
    _switch.release_all()


class JaxPatch(Hold):
    """A call of `patch_jax`, to be used in a ``with`` statement or left alone; prints as a table.

    It counts convolutions when JAX compiles them, not when they run. JAX compiles equal ones within
    a program once. Both gradients of a convolution count as two, though one call may make them.

    Attributes:
        served: for each kind of convolution, how many our kernels compute.
        handed_on: for each reason, how many JAX's own rule computes.
        normalizations: for "served" and for each reason why not, how many of flax's.
    """

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        self.handed_on: Counter[str] = Counter()
        self.normalizations: Counter[str] = Counter()
        super().__init__()

    def _acquire(self) -> int:
        return _switch.acquire(self)

    def _release(self, era: int) -> None:
        _switch.release(self, era)

    def __str__(self) -> str:
        served, others = self.served.total(), self.handed_on.total()
        lines = [f"patch_jax: {served} of {served + others} convolutions served"]
        lines += [f"  {count:3}  {kind}" for kind, count in self.served.most_common()]
        for reason, count in self.handed_on.most_common():
            lines.append(f"  {count:3}  by JAX's own rule: {reason}")
        if self.normalizations:
            count, total = self.normalizations[_SERVED], self.normalizations.total()
            lines.append(f"{count} of {total} normalizations of flax served")
            reasons = self.normalizations - Counter({_SERVED: count})
            lines += [f"  {count:3}  by flax: {reason}" for reason, count in reasons.most_common()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"JaxPatch(served={dict(self.served)!r}, handed_on={dict(self.handed_on)!r}, "
            f"normalizations={dict(self.normalizations)!r})"
        )


def _rules() -> dict[Any, Any]:
    """JAX's table of the rules for the CPU, by primitive."""
    try:
        from jax._src.interpreters.mlir import _platform_specific_lowerings

        rules = _platform_specific_lowerings["cpu"]
        known = callable(_rule_of(rules[lax.conv_general_dilated_p]))
    except (ImportError, AttributeError, KeyError, TypeError):
        known = False
    if not known:
        raise RuntimeError(
            f"patch_jax() does not know JAX {jax.__version__}, which keeps its rules for "
            f"convolutions in another way than {TESTED['jax']} do; call the functions of "
            "sepconv.jax instead, or install one of those versions."
        )
    return rules


def _rule_of(entry: Any) -> Any:
    """The rule of an entry: from JAX 0.8 an entry says more than the rule."""
    return getattr(entry, "rule", entry)


def _entry(original: Any, rule: Callable[..., Any]) -> Any:
    """An entry like the original one, for another rule."""
    return rule if original is _rule_of(original) else dataclasses.replace(original, rule=rule)


class _Switch:
    """Has our rule in JAX's table while a call holds the patch."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        self._records: tuple[JaxPatch, ...] = ()  # one a hold; replaced, never changed
        self._era = 0  # how often all holds were ended at once
        self._original: Any = None  # JAX's entry, while replaced
        self._ours: Any = None
        self._nested = threading.local()
        self._flax = FlaxPatch(self._count_normalization)
        self._gradients = GradientPatch(self._count_gradients)

    def acquire(self, record: JaxPatch) -> int:
        with self._lock:
            rules = _rules()
            self._records += (record,)
            if len(self._records) == 1:
                self._put(rules)
            return self._era

    def release(self, record: JaxPatch, era: int) -> None:
        with self._lock:
            if era == self._era:
                self._records = tuple(other for other in self._records if other is not record)
                if not self._records:
                    self._take()

    def release_all(self) -> None:
        with self._lock:
            self._era += 1
            if self._records:
                self._records = ()
                self._take()

    def _put(self, rules: dict[Any, Any]) -> None:
        entry = rules[lax.conv_general_dilated_p]
        # Ours may have stayed, under a rule that someone else put over it.
        if self._ours is None or entry is self._original:
            self._original = entry
            self._ours = _entry(entry, self._lower)
            rules[lax.conv_general_dilated_p] = self._ours
        self._flax.put()
        self._gradients.put()
        jax.clear_caches()

    def _take(self) -> None:
        rules = _rules()
        if rules[lax.conv_general_dilated_p] is self._ours:
            rules[lax.conv_general_dilated_p] = self._original
            self._ours = None
        # Or someone else's rule, which calls ours, which then calls JAX's.
        self._flax.take()
        self._gradients.take()
        jax.clear_caches()

    def _count_normalization(self, reason: str | None) -> None:
        with self._counting:
            for record in self._records:
                record.normalizations[reason or _SERVED] += 1

    def _count_gradients(self, kind: str) -> None:
        """Both of a convolution, by one call."""
        with self._counting:
            for record in self._records:
                record.served[f"{kind}, input gradient"] += 1
                record.served[f"{kind}, kernel gradient"] += 1

    def _lower(self, context: Any, *operands: Any, **params: Any) -> Any:
        """The rule. JAX's own may lower convolutions of its own, of parts: those stay JAX's."""
        original, records = _rule_of(self._original), self._records
        if not records or getattr(self._nested, "inside", False):
            return original(context, *operands, **params)
        avals = *context.avals_in, *context.avals_out
        lhs, rhs, out = (tuple(aval.shape) for aval in avals)
        dtypes = [aval.dtype.name for aval in avals]
        found = refusal(context, params) or serve((lhs, rhs, out), dtypes, params)
        with self._counting:  # not the other lock: its holder waits for JAX's caches
            for record in records:
                if isinstance(found, Served):
                    record.served[found.kind] += 1
                else:
                    record.handed_on[found] += 1
        if isinstance(found, Served):
            return mlir.lower_fun(found.run, multiple_results=False)(context, *operands)
        self._nested.inside = True
        try:
            return original(context, *operands, **params)
        finally:
            self._nested.inside = False


_switch = _Switch()
