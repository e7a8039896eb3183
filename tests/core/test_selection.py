"""The names of engines that SEPCONV_TEST_ENGINES may hold."""

from __future__ import annotations

import os

import pytest
from helpers import selection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jax,torch", ["jax", "torch"]),
        ("jax, torch", ["jax", "torch"]),
        (" tensorflow ,\tjax,", ["tensorflow", "jax"]),
        ("", []),
        (" , ", []),
    ],
)
def test_blanks_are_no_part_of_a_name(text, expected, monkeypatch):
    monkeypatch.setenv("SEPCONV_TEST_ENGINES", text)
    assert selection.selected() == expected


def test_all_are_tested_where_none_is_named(monkeypatch):
    monkeypatch.delenv("SEPCONV_TEST_ENGINES", raising=False)
    assert selection.selected() == ["jax", "torch", "tensorflow"]


def test_an_unknown_name_is_an_error(monkeypatch):
    monkeypatch.setenv("SEPCONV_TEST_ENGINES", "jax, theano")
    with pytest.raises(pytest.UsageError, match=r"must be among .*theano"):
        selection.selected()


@pytest.mark.parametrize(("text", "expected"), [(" torch, jax", "torch"), ("", None)])
def test_keras_runs_on_the_first_of_them(text, expected, monkeypatch):
    monkeypatch.setenv("SEPCONV_TEST_ENGINES", text)
    monkeypatch.setenv("KERAS_BACKEND", "")  # so that it is restored
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(pytest, "importorskip", lambda name: name)
    assert selection.import_keras() == "keras"
    assert os.environ.get("KERAS_BACKEND") == expected
