"""From a PyTorch module to a network as data (`sepconv.program.network`), without Keras."""

from __future__ import annotations

from sepconv.modules.lowering.lower import lower, lowered

__all__ = ["lower", "lowered"]
