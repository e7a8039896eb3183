"""What is raised where a model, or a layer in it, has no counterpart among a network's steps."""

from __future__ import annotations

__all__ = ["NotLowered"]

_OF_KERAS = (
    "Replace it by layers that are known; or give sepconv.compile partial=True, which leaves it to "
    "Keras and compiles the parts of the model around it."
)


class NotLowered(ValueError):  # noqa: N818 - it says what happened, as StopIteration does
    """A layer or operation cannot be a part of a network.

    Args:
        label: the name of the layer, or of what else was found.
        kind: its class.
        why: the reason.
        what: what has that name, and is of that class.
        advice: what to do.

    Attributes:
        label: the name of the layer, or of what else was found.
        kind: its class.
        why: the reason.
    """

    def __init__(
        self,
        label: str,
        kind: str,
        why: str,
        *,
        what: str = "layer",
        advice: str = _OF_KERAS,
    ) -> None:
        super().__init__(
            f"The {what} {label!r} of the class {kind} cannot be compiled: {why}. {advice}"
        )
        self.label, self.kind, self.why = label, kind, why
