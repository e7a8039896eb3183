"""What the pages say of speed is what docs/figures/measured.toml has: tables, bars and words."""

import importlib
import re

import pytest
from helpers import scripts
from helpers.documents import ROOT

FIGURES = ROOT / "docs" / "figures"
DRAW_AGAIN = "run `make figures`"


@pytest.fixture(scope="module")
def tables():
    with scripts.importable(FIGURES):
        yield importlib.import_module("tables")


def test_tables_in_the_pages_are_current(tables):
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- table: ") == 2 * text.count("<!-- table: end -->") > 0, page
        assert tables.filled(text) == text, f"{page.name}: {DRAW_AGAIN}"


def test_a_changed_number_changes_its_table(tables, monkeypatch):
    page = tables.PAGES[0].read_text(encoding="utf-8")
    row = tables.MEASURED["picture"]["rows"][0]
    monkeypatch.setitem(row, "ms", [123.4] * len(row["ms"]))
    assert "| 123.4 | 123.4 |" in tables.filled(page)


def test_bars_show_what_was_measured(tables):
    shown = {path.stem: texts(path) for path in FIGURES.glob("*.svg")}
    layers, picture = tables.MEASURED["layers"], tables.MEASURED["picture"]
    for row in layers["rows"]:
        for ratio in row["peers"]:
            assert f"{ratio:.2f}x" in shown["compare_layers"], DRAW_AGAIN
    for engine in tables.MEASURED["steps"]:
        for row in engine["rows"]:
            assert f"{row['ratio']}x" in shown["compare_steps"], DRAW_AGAIN
    for row in picture["rows"]:
        for value in row["ms"]:
            assert f"{value} ms" in shown["compare_picture"], DRAW_AGAIN
    step = tables.MEASURED["steps"][0]["rows"][1]
    assert f"{tables.milliseconds(step['stock']):.0f} ms" in shown["before_after"], DRAW_AGAIN


def test_the_words_on_litert_are_the_numbers(tables):
    rows = {row["who"]: row["ms"] for row in tables.MEASURED["picture"]["rows"]}
    ours = rows["`sepconv.optimize` on JAX"]
    ratios = [mine / theirs for mine, theirs in zip(ours, rows["LiteRT"], strict=True)]
    words = f"{min(ratios):.1f} to {max(ratios):.1f} times"
    for name in ("README.md", "docs/index.md", "docs/compare.md", "docs/performance.md"):
        assert words in " ".join((ROOT / name).read_text(encoding="utf-8").split()), name


def texts(path):
    """The words of an SVG."""
    return set(re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(encoding="utf-8")))
