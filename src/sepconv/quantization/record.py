"""The record of a quantisation: a line a block, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

__all__ = ["Block", "Record"]

_DONE = ("equalised", "corrected", "adapted", "refined")
_LAST_COLUMNS = ("noise dB", "% of work", "% of time", "")


class Block(NamedTuple):
    """What became of a step of the float network.

    Attributes:
        name: of the layer that it was.
        operation: its kind.
        int8: whether it computes on bytes.
        why: why it stays float, else nothing.
        least: the least number that its result may be, where that is quantised; else NaN.
        greatest: the greatest.
        decibels: how far its result's signal is above its noise, the difference from the float
            network's on calibration data: 10 * log10 of the ratio of mean squares. NaN where it is
            inside of another block; infinite without any noise.
        multiply_adds: its part of all the network's, 0 to 1.
        seconds: its part of the float program's time on this machine, 0 to 1.
    """

    name: str
    operation: str
    int8: bool
    why: str
    least: float
    greatest: float
    decibels: float
    multiply_adds: float
    seconds: float


class Record(Sequence[Block]):
    """What became of every block of a network, in their order; prints as a table.

    Attributes:
        error: the root mean square of the outputs' difference from the float network's, over the
            root mean square of the outputs; of what goes into a softmax, where an output is one.
            The largest over the outputs, on examples of the calibration data.
        examples: how many examples it and the noise were measured on.
        equalised: whether channels were equalised across layers, which lessened the error.
        corrected: whether biases were corrected, which lessened the error.
        adapted: whether weights were rounded so that their errors cancel out, which lessened it.
        refined: whether values' ranges were chosen by what they do to the outputs, which lessened
            it.
        trained: whether the network was trained since, as an int8 one: the error and the noise are
            not known then, and NaN.

    Example:
        >>> block = Block("conv", "convolution", True, "", 0.0, 6.0, 40.0, 1.0, 1.0)
        >>> how = {"equalised": False, "corrected": True, "adapted": False,
        ...        "refined": False}
        >>> print(Record([block], error=0.01, examples=8, **how))
        quantize: 1 of 1 blocks in int8, 100 % of the multiply-adds; error 1.0 % on 8 examples
        biases corrected
          layer  operation    as    least  greatest  noise dB  % of work  % of time
          conv   convolution  int8      0         6      40.0      100.0      100.0
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        error: float,
        examples: int,
        equalised: bool,
        corrected: bool,
        adapted: bool,
        refined: bool,
        trained: bool = False,
    ) -> None:
        self._blocks = tuple(blocks)
        self.error, self.examples = error, examples
        self.equalised, self.corrected = equalised, corrected
        self.adapted, self.refined = adapted, refined
        self.trained = trained

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        return self._blocks[index]

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    @property
    def floats(self) -> dict[str, str]:
        """The names of the blocks that stay float, with why."""
        return {block.name: block.why for block in self if not block.int8}

    def as_config(self) -> dict[str, Any]:
        """Itself as JSON has it."""
        blocks = [
            [None if isinstance(x, float) and not math.isfinite(x) else x for x in block]
            for block in self
        ]
        return {"blocks": blocks, **{name: getattr(self, name) for name in _DONE}}

    @classmethod
    def of_trained(cls, config: Mapping[str, Any]) -> Record:
        """The record of a network that was trained since, of what `as_config` gave."""
        blocks = [
            Block._make(math.nan if x is None else x for x in given)._replace(decibels=math.nan)
            for given in config["blocks"]
        ]
        done = {name: config[name] for name in _DONE}
        return cls(blocks, error=math.nan, examples=0, trained=True, **done)

    def __str__(self) -> str:
        count = sum(block.int8 for block in self)
        work = sum(block.multiply_adds for block in self if block.int8)
        error = f"error {self.error:.1%} on {self.examples} examples"
        if self.trained:
            error = "trained since, so the error is not known"
        lines = [
            f"quantize: {count} of {len(self)} blocks in int8, {work:.0%} of the multiply-adds; "
            f"{error}".replace("%", " %")
        ]
        done = [
            text
            for text, so in (
                ("channels equalised", self.equalised),
                ("biases corrected", self.corrected),
                ("weights rounded together", self.adapted),
                ("ranges chosen by the outputs", self.refined),
            )
            if so
        ]
        lines += [", ".join(done)] if done else []
        rows = [["layer", "operation", "as", "least", "greatest", *_LAST_COLUMNS]]
        rows += [_row(block) for block in self]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = [
                cell.ljust(width) if i < 3 or i == 8 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append(f"  {'  '.join(cells)}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Record of {len(self)} blocks, error {self.error:.3g}>"

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws the signal above the noise of every block.

        Args:
            path: None, or where to write the picture, by its ending.

        Returns:
            The figure, of Matplotlib.

        Raises:
            ImportError: Matplotlib is not there.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot()
        for int8, label, color in ((True, "int8", "tab:blue"), (False, "float", "tab:orange")):
            shown = [
                (i, block.decibels)
                for i, block in enumerate(self)
                if block.int8 is int8 and math.isfinite(block.decibels)
            ]
            axes.bar(
                [i for i, _ in shown], [decibels for _, decibels in shown], color=color, label=label
            )
        axes.set_xlabel("block")
        axes.set_ylabel("signal above noise, dB")
        axes.set_title(f"Error of the outputs: {self.error:.2%}")
        axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure


def _row(block: Block) -> list[str]:
    least, greatest = (
        "" if math.isnan(end) else f"{end:.4g}" for end in (block.least, block.greatest)
    )
    return [
        block.name,
        block.operation,
        "int8" if block.int8 else "float",
        least,
        greatest,
        "" if math.isnan(block.decibels) else f"{block.decibels:.1f}",
        f"{100 * block.multiply_adds:.1f}",
        f"{100 * block.seconds:.1f}",
        block.why,
    ]
