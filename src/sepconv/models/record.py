"""The record of the changes to a model's layers, which prints as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

__all__ = ["Change", "Record", "in_brief"]


class Change(NamedTuple):
    """The change of one layer.

    Attributes:
        layer: the layer's name, with those of the models around it: ``"encoder/conv_1"``.
        kind: its class before.
        done: whether it was changed.
        note: what it became, or why it was not changed.
    """

    layer: str
    kind: str
    done: bool
    note: str


class Record(Sequence[Change]):
    """The changes to a model, in the order of its layers; prints as a table.

    Attributes:
        verification: the result of comparing the new model's predictions with the old one's, such
            as
            ``"verified: the predictions differ by at most 3e-07 of the largest"``.

    Example:
        >>> print(Record("accelerate", [Change("conv_1", "DepthwiseConv2D", True, "sepconv's")]))
        accelerate: 1 of 1 layers changed
          yes  conv_1  DepthwiseConv2D  sepconv's
    """

    def __init__(self, title: str, changes: Sequence[Change] = ()) -> None:
        self.title = title
        self.verification = ""
        self._changes = list(changes)

    def add(self, layer: str, kind: str, done: bool, note: str) -> None:
        """Appends a `Change` with these fields."""
        self._changes.append(Change(layer, kind, done, note))

    @property
    def changed(self) -> int:
        """The number of changed layers."""
        return sum(change.done for change in self._changes)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> list[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | list[Change]:
        return self._changes[index]

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __str__(self) -> str:
        columns = [c.layer for c in self], [c.kind for c in self]
        widths = [max(map(len, column), default=0) for column in columns]
        lines = [self._heading() + in_brief(self.verification)]
        for layer, kind, done, note in self._changes:
            start = f"  {'yes' if done else 'no ':3}  {layer:{widths[0]}}  {kind:{widths[1]}}"
            lines.append(f"{start}  {note}".rstrip())
        return "\n".join(lines)

    def _heading(self) -> str:
        return f"{self.title}: {self.changed} of {len(self)} layers changed"

    def __repr__(self) -> str:
        return f"Record({self.title!r}, {self._changes!r})"


def in_brief(verification: str) -> str:
    """The verification in brief, to append to a line about a model.

    Example:
        >>> in_brief("verified: the predictions are the same")
        ', verified'
        >>> in_brief("not verified: verify=False")
        ', not verified: verify=False'
    """
    said = "verified" if verification.startswith("verified:") else verification
    return f", {said}" if said else ""
