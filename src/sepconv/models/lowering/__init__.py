"""From a Keras model to a network as data (`sepconv.program.network`)."""

from sepconv.models.lowering.lower import lower, lowered
from sepconv.program.building.refusal import NotLowered

__all__ = ["NotLowered", "lower", "lowered"]
