"""What is raised where a model, or a layer in it, has no counterpart among a network's steps."""

from __future__ import annotations

__all__ = ["NotLowered"]


class NotLowered(ValueError):  # noqa: N818 - it says what happened, as StopIteration does
    """A layer or operation cannot be a part of a network.

    Attributes:
        label: the name of the layer, or of what else was found.
        kind: its class.
        why: the reason.
    """

    def __init__(self, label: str, kind: str, why: str) -> None:
        super().__init__(
            f"The layer {label!r} of the class {kind} cannot be compiled: {why}. Replace it by "
            "layers that are known; or give sepconv.compile partial=True, which leaves it to Keras "
            "and compiles the parts of the model around it."
        )
        self.label, self.kind, self.why = label, kind, why
