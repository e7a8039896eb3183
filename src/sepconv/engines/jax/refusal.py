"""Why nothing of a program that JAX lowers is ours: whole programs that patches leave to JAX."""

from __future__ import annotations

from typing import Any

from sepconv.engines.jax.compat import typeof, varying_axes

__all__ = ["is_spread", "refusal"]


def refusal(context: Any, params: dict[str, Any]) -> str | None:
    """Why a patch computes nothing of the program that is being lowered, if that is so.

    Args:
        context: the one that a rule gets.
        params: of the primitive.
    """
    module = context.module_context
    if getattr(module.lowering_parameters, "for_export", False):
        return "the program is exported"
    if tuple(module.platforms) != ("cpu",):
        return "the program is lowered for several platforms"
    # The context of a program under `shard_map` or `pmap` has no such number.
    if getattr(module.axis_context, "num_devices", None) != 1:
        return "the program is spread over devices"
    shardings = [getattr(a, "sharding", None) for a in (*context.avals_in, *context.avals_out)]
    meshes = [sharding.mesh for sharding in shardings if sharding is not None]
    if params.get("out_sharding") is not None or not all(mesh.empty for mesh in meshes):
        return "arrays with a sharding in their type"
    return None


def is_spread(array: Any) -> bool:
    """Whether an array's type says how it lies on devices."""
    aval = typeof(array)
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    return bool(varying_axes(aval)) or not getattr(mesh, "empty", True)
