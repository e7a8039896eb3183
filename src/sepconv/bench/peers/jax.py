"""JAX: lax.conv_general_dilated under jit, with its own gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.bench.cases import Arrays, typed
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.workloads import Case

__all__ = ["Jax"]


class Jax(Peer):
    """JAX on XLA:CPU, which takes as many threads as the process has cores."""

    title = "JAX"
    modules = ("jax",)
    distribution = "jax"
    install = "jax"
    environment = {"JAX_PLATFORMS": "cpu"}  # noqa: RUF012 - see Peer

    def __init__(self, threads: int) -> None:
        import jax

        jax.devices()

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """The 1x1 convolution as a matrix product and as a convolution, which XLA tells apart."""
        if case.operation == "depthwise":
            return {"jit": lambda: self._prepare(case, inputs, True)}
        return {
            "jit, 1x1 as a product": lambda: self._prepare(case, inputs, True),
            "jit, 1x1 as a convolution": lambda: self._prepare(case, inputs, False),
        }

    def _prepare(self, case: Case, inputs: Arrays, product: bool) -> BuiltCase:
        import jax
        from jax import lax

        w = case.workload

        def compute(arrays: dict[str, Any]) -> Any:
            y = arrays["x"]
            layout = ("NHWC", "HWIO", "NHWC")
            if "depthwise_kernel" in arrays:
                y = lax.conv_general_dilated(
                    y,
                    arrays["depthwise_kernel"].reshape(*w.kernel, 1, w.middle),
                    w.strides,
                    w.padding.upper(),
                    rhs_dilation=w.dilation,
                    dimension_numbers=layout,
                    feature_group_count=w.channels,
                )
            if "pointwise_kernel" in arrays:
                if product:
                    y = y @ arrays["pointwise_kernel"]
                else:
                    kernel = arrays["pointwise_kernel"][None, None]
                    y = lax.conv_general_dilated(
                        y, kernel, (1, 1), "VALID", dimension_numbers=layout
                    )
            if "bias" in arrays:
                y = jax.nn.relu6(y + arrays["bias"])
            return y

        @jax.jit
        def step(arrays: dict[str, Any], dy: Any) -> Any:
            if dy is None:
                return {"y": compute(arrays)}
            y, pull = jax.vjp(compute, arrays)
            return {"y": y} | {f"d{name}": grad for name, grad in pull(dy)[0].items()}

        jax.config.update("jax_enable_x64", case.dtype == "float64")
        arrays = {name: jax.device_put(array) for name, array in typed(case, inputs).items()}
        dy = arrays.pop("dy", None)
        return BuiltCase(
            lambda: jax.block_until_ready(step(arrays, dy)),
            lambda result: {name: np.asarray(array) for name, array in result.items()},
        )
