"""The examples in README.md and docs/ run, on every engine that they name."""

import os

import pytest
from helpers import documents

import sepconv


@pytest.mark.parametrize("page", documents.pages(engine=True), ids=lambda page: page.stem)
def test_examples_run(page, tmp_path, monkeypatch):
    import keras

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", keras.backend.backend())
    examples = documents.examples(page)
    engines = None, keras.backend.backend()
    mine = [e for e in examples if e.engine in engines and e.is_installed()]
    namespace = {"__name__": "example"}
    try:
        for example in mine:
            example.run(namespace)
    finally:
        sepconv.unpatch_keras()
        if keras.backend.backend() == "jax":
            sepconv.unpatch_jax()
