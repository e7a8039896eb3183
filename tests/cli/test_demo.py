"""The demo's parts that need no engine: data, processes, table and page."""

import gzip
import json
import os
import re
import stat
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sepconv.demo import compare, data, report
from sepconv.demo.training import Job

JOB = Job("keras", "digits", 1, 0, "weights.npz")


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_upsampling_keeps_flat_pictures_and_symmetry():
    assert np.all(data.upsample(np.full((1, 8, 8), 0.5), 32) == 0.5)
    image = np.random.default_rng(0).random((1, 8, 8))
    assert np.array_equal(data.upsample(image[:, ::-1], 32), data.upsample(image, 32)[:, ::-1])
    assert data.upsample(image, 8) == pytest.approx(image)


def test_digits_are_whole_apart_and_in_range():
    digits = data.load("digits")
    assert digits.x_train.shape[1:] == digits.x_test.shape[1:] == (32, 32, 1)
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert digits.x_train.dtype == np.float32
    assert digits.x_train.min() >= 0
    assert digits.x_train.max() <= 1
    train = {picture.tobytes() for picture in digits.x_train}
    assert not any(picture.tobytes() in train for picture in digits.x_test)


def test_an_unknown_data_set_is_an_error():
    with pytest.raises(ValueError, match=r"one of \['digits', 'fashion-mnist'\]"):
        data.load("imagenet")


def test_fashion_mnist_is_read_from_its_files(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
    labels = np.arange(7, dtype=np.uint8)
    for name in ("train", "t10k"):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    pictures = data._fashion_mnist(tmp_path, train=5, test=3)
    assert pictures.x_train.shape == (5, 32, 32, 1)
    assert pictures.y_test.tolist() == [0, 1, 2]
    assert np.array_equal(pictures.x_test[:, 2:30, 2:30, 0], images[:3] / np.float32(255))


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\0\0\x08\x03\0\0", b"\0\0\x08\x01\0\0\0\2A"]
)
def test_a_damaged_file_is_an_error(content, tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"file\.gz is"):
        data.read_idx(path)


@pytest.fixture
def child(tmp_path, monkeypatch):
    """`child(script)` lets a shell script stand for the process that trains."""

    def prepare(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(compare.sys, "executable", str(path))

    return prepare


def test_a_training_tells_its_events_and_returns_its_run(child, comparison):
    done = json.dumps({"event": "done", "run": vars(comparison.ours)})
    child(f'echo \'{{"event": "start", "steps": 3}}\'\necho \'{done}\'')
    shown = []
    assert compare._run(JOB, "jax", shown.append) == comparison.ours
    assert shown == [{"event": "start", "steps": 3}]


def test_the_two_trainings_follow_each_other_from_one_file_of_weights(monkeypatch, comparison):
    from rich.console import Console

    jobs = []

    def run(job, engine, show):
        jobs.append(job)
        show({"event": "start", "steps": 1})
        show({"event": "batch", "epoch": 0, "loss": 0.5, "accuracy": 0.75})
        show({"event": "epoch", "epoch": 0, "val_accuracy": 0.875})
        return getattr(comparison, {"keras": "stock", "sepconv": "ours"}[job.layers])

    monkeypatch.setattr(compare, "_run", run)
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    assert compare.compare("jax", "digits", 1, 7, console) == compare.Comparison(
        "jax", "digits", 7, comparison.stock, comparison.ours
    )
    assert [job.layers for job in jobs] == ["keras", "sepconv"]
    assert jobs[0].weights == jobs[1].weights
    assert console.export_text().count("loss 0.500 accuracy 75.0% test 87.5%") == 2


def test_a_training_that_dies_is_told_with_its_last_words(child):
    child("echo the last words >&2; exit 7")
    with pytest.raises(compare.TrainingError, match=r"(?s)exit code 7.*the last words"):
        compare._run(JOB, "jax", print)


def test_an_interrupt_ends_the_training_process(child):
    child('echo "{\\"event\\": \\"start\\", \\"pid\\": $$}"\nexec sleep 600')
    seen = []

    def interrupt(event):
        seen.append(event["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare._run(JOB, "jax", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_the_table_says_what_was_measured(comparison):
    rows = {name: (stock, ours) for name, stock, ours in compare.table(comparison)}
    assert rows["seconds an epoch"] == ("4.00", "0.40")  # the median without the first
    assert rows["test accuracy"] == ("97.50%", "97.50%")
    assert rows["peak memory, MB"] == ("123", "123")
    assert rows["speed-up an epoch"] == ("1.0x", "10.0x")


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
