"""The report of `sepconv.factorize`, which prints as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sepconv.models.record import in_brief

__all__ = ["LayerReport", "Report"]


class LayerReport(NamedTuple):
    """The result for one convolution.

    Attributes:
        layer: its name, with those of the models around it: ``"encoder/conv_1"``.
        rank: the depth multiplier of its separable convolution; None where it was left alone.
        full_rank: the rank at which it would be exact.
        parameters: the number of its weights, before and after.
        multiply_adds: of one picture, before and after, over all calls of a shared layer.
        error: the relative error of its output before bias and activation (without calibration
            data, of its kernel), in the norm; 0 where it was left alone.
        svd_error: the same for the plain SVD, which does not use the data.
        note: why it was left alone, or another remark.
    """

    layer: str
    rank: int | None
    full_rank: int
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int]
    error: float
    svd_error: float
    note: str


class Report(Sequence[LayerReport]):
    """The convolutions of a model in the order of its layers; prints as a table.

    Attributes:
        title: the model's name.
        parameters: the number of weights of the whole model, before and after.
        multiply_adds: of its convolutions and dense layers for one picture, before and after.
        milliseconds: the time to predict one picture, before and after; None for a single layer.
        data_aware: whether errors are those of outputs on calibration data, or of kernels.
        seconds: how long the factorization took.
        verification: the result of comparing the new model's predictions with those of the old one
            with the low-rank kernels, as in `Record.verification`.

    Example:
        >>> row = LayerReport("conv", 2, 9, (592, 210), (9216, 3200), 0.03, 0.2, "")
        >>> print(Report("net", [row], (592, 210), (9216, 3200), None, True, 0.5))
        factorize net: 1 of 1 convolutions, 0.5 s
          layer   rank  parameters   multiply-adds   error  plain SVD
          conv   2 / 9  592 -> 210  9,216 -> 3,200  0.0300     0.2000
        parameters 592 -> 210 (2.82x fewer), multiply-adds 9,216 -> 3,200 (2.88x fewer)
        error: relative, of the layer's output on the data
    """

    def __init__(
        self,
        title: str,
        layers: Sequence[LayerReport],
        parameters: tuple[int, int],
        multiply_adds: tuple[int, int],
        milliseconds: tuple[float, float] | None,
        data_aware: bool,
        seconds: float,
    ) -> None:
        self.title = title
        self._layers = list(layers)
        self.parameters = parameters
        self.multiply_adds = multiply_adds
        self.milliseconds = milliseconds
        self.data_aware = data_aware
        self.seconds = seconds
        self.verification = ""

    @property
    def changed(self) -> int:
        """The number of factorized convolutions."""
        return sum(row.rank is not None for row in self._layers)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self._layers)

    def __str__(self) -> str:
        head = ["layer", "rank", "parameters", "multiply-adds", "error"]
        rows = [head + ["plain SVD"] * self.data_aware + [""]]
        for row in self._layers:
            kept = row.rank is None
            errors = [row.error, row.svd_error] if self.data_aware else [row.error]
            rows.append(
                [
                    row.layer,
                    "-" if kept else f"{row.rank} / {row.full_rank}",
                    _change(row.parameters),
                    _change(row.multiply_adds),
                    *("-" if kept else f"{error:.4f}" for error in errors),
                    row.note,
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"factorize {self.title}: {self.changed} of {len(self)} convolutions, "]
        lines[0] += f"{self.seconds:.1f} s{in_brief(self.verification)}"
        for first, *middle, note in rows:
            cells = [f"{cell:>{w}}" for cell, w in zip(middle, widths[1:-1], strict=True)]
            lines.append("  ".join(["", f"{first:{widths[0]}}", *cells, note]).rstrip())
        totals = f"parameters {_change(self.parameters)} ({_ratio(self.parameters)}), "
        totals += f"multiply-adds {_change(self.multiply_adds)} ({_ratio(self.multiply_adds)})"
        if self.milliseconds:
            before, after = self.milliseconds
            totals += f", one picture {before:.2f} -> {after:.2f} ms"
        what = "the layer's output on the data" if self.data_aware else "the kernel"
        return "\n".join([*lines, totals, f"error: relative, of {what}"])

    def __repr__(self) -> str:
        return f"Report({self.title!r}, {self._layers!r})"


def _change(numbers: tuple[int, int]) -> str:
    before, after = numbers
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"


def _ratio(numbers: tuple[int, int]) -> str:
    before, after = numbers
    return f"{before / after:.2f}x fewer" if after else "none"
