"""Writes the tables of measurements into the pages, from `measured.toml`: ``make figures``.

That of accuracies is from the curves that `examples/train_bfloat16.py` wrote.

A table is in a page between ``<!-- table: NAME -->`` and ``<!-- table: end -->``.
"""

from __future__ import annotations

import json
import re
import statistics
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["MEASURED", "PAGES", "TRAININGS", "filled", "milliseconds"]

_FOLDER = Path(__file__).parent
PAGES = tuple(
    _FOLDER.parent / page for page in ("compare.md", "performance.md", "guides/bfloat16.md")
)
MEASURED: dict[str, Any] = tomllib.loads((_FOLDER / "measured.toml").read_text(encoding="utf-8"))
#: By the data's name, the curves of every training in each policy.
TRAININGS: dict[str, dict[str, list[dict[str, list[float]]]]] = {
    name: json.loads((_FOLDER / f"bfloat16-{file}.json").read_text(encoding="utf-8"))["curves"]
    for name, file in (("scikit-learn digits", "digits"), ("Fashion-MNIST", "fashion-mnist"))
}

_PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- table: end -->)", re.DOTALL)
_MODES = {
    "separable": "separable, forward",
    "separable-training": "separable, training",
    "depthwise": "depthwise alone, forward",
    "pointwise": "1×1 alone, forward",
    "pointwise-training": "1×1 alone, training",
}


def filled(page: str) -> str:
    """A page's text with its tables replaced."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{_TABLES[found[2]]()}\n{found[3]}", page)


def milliseconds(median: str) -> float:
    """The median of ``"754.7 (740.2 to 771.9)"``."""
    return float(median.split()[0])


def layer_title(row: dict[str, Any]) -> str:
    """The title of a row of the layers."""
    return f"{_MODES[row['mode']]}, batch {row['batch']}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(map(str, row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


def _standing(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["cases"], f"{row['best']:.2f}x", row["behind"]


def _ratios(row: dict[str, Any], peers: list[str]) -> list[str]:
    missing = len(peers) - len(row["peers"])
    return [f"{ratio:.2f}x" for ratio in row["peers"]] + ["-"] * missing


def _layers() -> str:
    """The layers as `sepconv bench` prints them."""
    data = MEASURED["layers"]
    head = ["mode", "batch", "cases", "best peer", "behind in", "x floor", *data["peers"]]
    rows = (
        (r["mode"], r["batch"], *_standing(r), f"{r['floor']:.2f}", *_ratios(r, data["peers"]))
        for r in data["rows"]
    )
    return _table(head, rows)


def _layers_in_words() -> str:
    data = MEASURED["layers"]
    peers = [peer.removesuffix("/XNNPACK") for peer in data["peers"]]
    rows = ((layer_title(row), *_standing(row), *_ratios(row, peers)) for row in data["rows"])
    return _table(["layers", "cases", "best peer", "behind it in", *peers], rows)


def _steps() -> str:
    head = ("engine", "network", "stock, ms", "sepconv, ms", "speed-up")
    rows = (
        (e["engine"], r["network"], r["stock"], r["sepconv"], f"{r['ratio']}x", *r["memory"])
        for e in MEASURED["steps"]
        for r in e["rows"]
    )
    return _table((*head, "stock, MB", "sepconv, MB"), rows)


def _step_ratios() -> str:
    networks = [row["network"] for row in MEASURED["steps"][0]["rows"]]
    rows = (
        [engine["name"], *(f"{row['ratio']}x" for row in engine["rows"])]
        for engine in MEASURED["steps"]
    )
    return _table(["", *networks], rows)


def _picture() -> str:
    data = MEASURED["picture"]
    return _table(["", *data["networks"]], ([r["who"], *r["ms"]] for r in data["rows"]))


def _accuracies() -> str:
    """The mean accuracy of held-out pictures and its standard deviation, over the trainings."""
    rows = []
    for data, policies in TRAININGS.items():
        row = [data, len(policies["float32"]), len(policies["float32"][0]["loss"])]
        for trainings in policies.values():
            last = [100 * curves["val_accuracy"][-1] for curves in trainings]
            row.append(f"{statistics.mean(last):.2f} ± {statistics.stdev(last):.2f}")
        rows.append(row)
    return _table(["pictures", "seeds", "epochs", "float32, %", "mixed_bfloat16, %"], rows)


_TABLES = {
    "accuracies": _accuracies,
    "layers": _layers,
    "layers-in-words": _layers_in_words,
    "steps": _steps,
    "step-ratios": _step_ratios,
    "picture": _picture,
}


if __name__ == "__main__":
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text), encoding="utf-8")
