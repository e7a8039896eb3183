"""The demo's training, on a network and a data set of a few seconds."""

import keras
import numpy as np
import pytest
from helpers.selection import keras_backend_is_selected

from sepconv import doctor, layers
from sepconv.demo.data import Pictures
from sepconv.demo.training import build_network, train

if not keras_backend_is_selected():
    pytest.skip("SEPCONV_TEST_ENGINES leaves Keras' backend out", allow_module_level=True)


@pytest.fixture
def pictures():
    """Bright upper halves against bright lower halves, with noise."""
    rng = np.random.default_rng(0)
    x, y = rng.random((128, 8, 8, 1)).astype("float32") / 2, rng.integers(0, 2, 128)
    x[y == 0, :4] += 0.5
    x[y == 1, 4:] += 0.5
    return Pictures("halves", x[:96], y[:96], x[96:], y[96:], ("upper", "lower"))


def test_both_trainings_go_the_same_way(pictures, tmp_path):
    runs, events = {}, []
    for name in ("keras", "sepconv"):
        weights = str(tmp_path / "start.npz")
        network = {"filters": (4, 4), "strides": (2,)}
        runs[name] = train(name, pictures, 3, 0, weights, events.append, **network)
    stock, ours = runs["keras"], runs["sepconv"]
    assert ours.history["loss"] == pytest.approx(stock.history["loss"], rel=1e-3)
    assert ours.history["val_loss"] == pytest.approx(stock.history["val_loss"], rel=1e-3)
    assert ours.history["loss"][-1] < ours.history["loss"][0]
    assert np.shape(ours.kernels["block_1"]) == (4, 5, 5)
    assert np.allclose(ours.kernels["block_1"], stock.kernels["block_1"], atol=1e-3)
    for run in runs.values():
        assert len(run.epoch_seconds) == 3
        assert 0 <= run.compile_seconds < run.epoch_seconds[0]
        assert run.peak_bytes >= 0  # so small a network may need no more than there was
    kinds = [event["event"] for event in events]
    assert kinds == 2 * 3 * (["batch"] * 3 + ["epoch"])


def test_the_network_starts_from_the_saved_weights(pictures, tmp_path):
    path = str(tmp_path / "start.npz")
    network = {"filters": (4, 4), "strides": (2,)}
    train("sepconv", pictures, 1, 0, path, **network)
    kept = dict(np.load(path))
    first = train("sepconv", pictures, 1, 1, path, **network)
    again = train("sepconv", pictures, 1, 1, path, **network)
    assert first.history["loss"] == again.history["loss"]
    assert all(np.array_equal(kept[name], array) for name, array in np.load(path).items())


def test_the_whole_network_is_made_of_the_layers_asked_for():
    assert isinstance(build_network(layers, 10).get_layer("block_3"), layers.SeparableConv2D)
    stock = build_network(keras.layers, 10)
    assert type(stock.get_layer("block_3")) is keras.layers.SeparableConv2D
    assert stock.output_shape == (None, 10)


def test_the_doctor_finds_this_engine_well():
    finding = doctor._examine_engine(keras.backend.backend())
    assert finding.state == "ok", finding
