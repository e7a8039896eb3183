"""The style of plots: SVG in colours that follow the reader's theme and that all can tell apart."""

from __future__ import annotations

import html
import io
import re
from typing import Any

__all__ = ["BLUE", "GREEN", "LINE", "MUTED", "ORANGE", "STYLE", "TEXT", "themed"]

# Matplotlib writes these colours; they stand for those of `_CSS`, which follow the reader's theme.
_THEME = {
    "#010101": "text",
    "#020202": "muted",
    "#030303": "line",
    "#040404": "orange",
    "#050505": "blue",
    "#060606": "page",
    "#070707": "green",
}
TEXT, MUTED, LINE, ORANGE, BLUE, _PAGE, GREEN = _THEME

# Of Okabe and Ito's palette, which colour-blind readers tell apart; no plot relies on them alone.
_CSS = """svg { --page: #ffffff; --text: #1b1f24; --muted: #57606a; --line: #d0d7de;
  --orange: #c25a00; --blue: #0072b2; --green: #00805d; }
@media (prefers-color-scheme: dark) { svg { --page: #12151a; --text: #e8ebef; --muted: #a3adb8;
  --line: #3a424d; --orange: #f0a030; --blue: #56b4e9; --green: #2fc79a; } }"""

# Any: Matplotlib's stubs want a literal type of all its parameters' names.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sepconv",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": TEXT,
    "figure.facecolor": _PAGE,
    "axes.facecolor": _PAGE,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": TEXT,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.4,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}


def themed(figure: Any, label: str) -> str:
    """A Matplotlib figure as an SVG whose colours follow the reader's theme.

    Args:
        figure: drawn under `matplotlib.rc_context(STYLE)`, in the colours of this file.
        label: a description for screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub("|".join(_THEME), lambda found: f"var(--{_THEME[found.group()]})", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
    return re.sub(r"(<svg[^>]*>)", rf"\1\n<style>{_CSS}</style>", svg, count=1)
