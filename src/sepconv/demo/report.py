"""The demo's report: an HTML page in one file, for light and dark themes."""

from __future__ import annotations

import html
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sepconv.demo.compare import ENGINES, LABELS, Comparison, table

__all__ = ["page", "write", "write_whole"]

# Matplotlib writes these colours into the SVG, where the page's own replace them, which follow the
# reader's theme.
_THEME = {
    "#010101": "var(--text)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--stock)",
    "#050505": "var(--ours)",
}
_TEXT, _MUTED, _LINE, _STOCK, _OURS = _THEME
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _TEXT,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "lines.linewidth": 2,
}

# Blue and orange of Okabe and Ito's palette, which colour-blind readers tell apart; the lines
# differ in their dashes and markers too.
_CSS = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; --text: #1b1f24;
  --muted: #57606a; --line: #d0d7de; --stock: #c25a00; --ours: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b1f26; --text: #e8ebef;
  --muted: #a3adb8; --line: #3a424d; --stock: #f0a030; --ours: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; min-width: min(100%, 32rem);
  font-variant-numeric: tabular-nums; }
th, td { padding: .5rem 0 .5rem 2rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child { text-align: left; font-weight: 400; padding-left: 0; }
thead th { font-weight: 600; white-space: normal; }
thead th:nth-child(2) { color: var(--stock); } thead th:nth-child(3) { color: var(--ours); }
tbody tr:last-child > * { font-weight: 700; border-bottom: 0; }
figure { margin: 1rem 0; padding: 1rem; background: var(--card); border-radius: .5rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .5rem; max-width: 46rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; }
"""


def _svg(figure: Any, label: str) -> str:
    """A figure as SVG in the page's colours."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # two figures would share these names
    svg = re.sub("|".join(_THEME), lambda found: _THEME[found.group()], svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _curves(comparison: Comparison) -> str:
    """Plots of the loss over epochs, and of the test accuracy over seconds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, PercentFormatter

    runs = ((comparison.stock, _STOCK, "--", "o"), (comparison.ours, _OURS, "-", "s"))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        by_epoch, by_time = figure.subplots(1, 2)
        for run, color, dashes, marker in runs:
            style = {"color": color, "linestyle": dashes, "marker": marker, "markersize": 5}
            loss = run.history["loss"]
            by_epoch.plot(range(1, len(loss) + 1), loss, label=LABELS[run.layers], **style)
            seconds = np.cumsum(run.epoch_seconds)
            by_time.plot(seconds, run.history["val_accuracy"], label=LABELS[run.layers], **style)
        by_epoch.set(title="Training loss", xlabel="epoch", yscale="log")
        by_epoch.xaxis.get_major_locator().set_params(integer=True)
        by_time.set(
            title="Test accuracy", xlabel="seconds of training", xscale="log", ylim=(0, 1.03)
        )
        by_time.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        for axis in (by_epoch.yaxis, by_time.xaxis):
            low, high = axis.get_view_interval()
            steps = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 7)
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        by_time.minorticks_off()
        by_epoch.minorticks_off()
        for axes in (by_epoch, by_time):
            axes.tick_params(length=0)
            axes.legend(frameon=False, labelcolor=_TEXT)
        return _svg(figure, "Learning curves: training loss by epoch, test accuracy by seconds")


def _mosaic(kernels: np.ndarray, columns: int) -> np.ndarray:
    """Kernels side by side with a gap of one cell, each divided by its own largest value."""
    count, height, width = kernels.shape
    largest = np.abs(kernels).max(axis=(1, 2), keepdims=True)
    kernels = kernels / np.where(largest > 0, largest, 1)
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, kernel in enumerate(kernels):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = kernel
    return canvas


def _kernels(comparison: Comparison, columns: int = 16) -> str:
    """The depthwise kernels of every layer that sepconv trained."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mosaics = {
        name: _mosaic(np.asarray(kernels), columns)
        for name, kernels in comparison.ours.kernels.items()
    }
    heights = [mosaic.shape[0] for mosaic in mosaics.values()]
    with mpl.rc_context(_STYLE):
        figure = Figure(
            figsize=(10, sum(heights) * 0.104 + 0.42 * len(heights)), layout="constrained"
        )
        axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for ax, (name, mosaic) in zip(axes, mosaics.items(), strict=True):
            ax.imshow(mosaic, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
            count = len(comparison.ours.kernels[name])
            ax.set_title(f"{name.replace('_', ' ')}: {count} kernels", pad=6)
            ax.axis("off")
        return _svg(figure, "Learned depthwise kernels, layer by layer")


def _table(comparison: Comparison) -> str:
    head = "".join(f'<th scope="col">{html.escape(label)}</th>' for label in LABELS.values())
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{stock}</td><td>{ours}</td></tr>'
        for name, stock, ours in table(comparison)
    )
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col"></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def page(comparison: Comparison, title: str, machine: list[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        comparison: what to report.
        title: the data set's title.
        machine: rows (what, value) on where it ran.
    """
    stock, ours = comparison.stock, comparison.ours
    engine = ENGINES[comparison.engine][1]
    faster = comparison.speed_up >= 1
    factor = comparison.speed_up if faster else 1 / comparison.speed_up
    headline = f"An epoch on {engine} is {factor:.1f} times {'faster' if faster else 'slower'}"
    facts = "".join(
        f"<dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd>" for what, value in machine
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sepconv on {html.escape(title)}</title>
<style>{_CSS}</style>
<main>
<h1>{headline}</h1>
<p class="lead">One network of {ours.parameters:,} weights, trained twice on
{html.escape(title)} from the same start: with Keras' own separable convolutions, and with
sepconv's in their place. Test accuracy {stock.test_accuracy:.1%} and {ours.test_accuracy:.1%}.</p>
{_table(comparison)}
<h2>Learning curves</h2>
<figure>{_curves(comparison)}
<figcaption>Left, the two compute the same thing, so epoch by epoch the losses go together; they
part by rounding. Right, how long each took to get there, compilation included; mind the
logarithmic axis.</figcaption></figure>
<h2>What the depthwise kernels learned</h2>
<figure>{_kernels(comparison)}
<figcaption>Every depthwise kernel of the network that sepconv trained, each scaled by its own
largest weight: orange is negative, white zero, purple positive.</figcaption></figure>
<h2>How it was measured</h2>
<p>Each training ran alone, in a process of its own, with seed {comparison.seed} for the order of
the pictures and the same weights at the start. Seconds an epoch is the median over the epochs
after the first, of the training steps alone; compilation is what the very first
step took longer than others. Peak
memory is what the process held at its most while training, above what it held before. Accuracy is
that of the last epoch on pictures held out from training.</p>
<dl>{facts}</dl>
</main>
</html>
"""


def write_whole(path: Path, text: str) -> None:
    """Writes a text to a path, all of it or nothing.

    The text goes to a temporary file beside it, which then takes the path's name; on any error, an
    interrupt too, the temporary file is removed and what was at the path stays.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # as an ordinary file; mkstemp's is for its owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write(path: Path, comparison: Comparison, title: str, machine: list[tuple[str, str]]) -> None:
    """Writes the page to a file; arguments as for `page`."""
    write_whole(path, page(comparison, title, machine))
