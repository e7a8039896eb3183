"""The demo's page, and files that are written whole or not at all."""

import os
import re
import stat
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sepconv.demo import compare, report


def test_the_page_is_whole_and_needs_nothing_else(comparison):
    text = report.page(comparison, "digits <8x8>", [("processor", "fast & small")])
    assert "digits &lt;8x8&gt;" in text
    assert "fast &amp; small" in text
    assert "10.0 times faster" in text
    assert "prefers-color-scheme: dark" in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(link.startswith(("#", "data:")) for link in links)
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(pictures) == 2
    for picture in pictures:
        assert ElementTree.fromstring(picture).get("aria-label")
    assert not re.search("#0[1-5]0[1-5]0[1-5]", text)  # every stand-in colour was replaced


def test_the_page_does_not_boast_where_sepconv_is_slower(comparison):
    turned = compare.Comparison("jax", "digits", 0, comparison.ours, comparison.stock)
    assert "10.0 times slower" in report.page(turned, "digits", [])


def test_kernels_are_drawn_each_in_its_place():
    kernels = np.stack([np.full((2, 3), 4.0), np.full((2, 3), -1.0), np.zeros((2, 3))])
    canvas = report._mosaic(kernels, 2)
    assert canvas.shape == (5, 7)
    assert np.all(canvas[:2, :3] == 1)
    assert np.all(canvas[:2, 4:] == -1)
    assert np.all(canvas[3:, :3] == 0)
    assert np.all(np.isnan(canvas[2]))
    assert np.all(np.isnan(canvas[:, 3]))


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    report.write_whole(path, "first")
    assert stat.S_IMODE(path.stat().st_mode) & 0o400

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write_whole(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
