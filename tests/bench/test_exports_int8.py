"""benchmarks/exports_int8.py: the int8 file of each quantiser says what the float network says.

A process of its own converts, with Keras on TensorFlow, whichever engine the other tests have.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import scripts

#: Participants, with the modules that make their files and read them.
MODULES = {
    "sepconv-program-int8": (),
    "onnxruntime-int8": ("onnxruntime", "onnx", "tf2onnx"),
    "openvino-int8": ("openvino", "nncf", "onnx", "tf2onnx"),
    "litert-int8": ("ai_edge_litert",),
}

#: Writes the files, and the float network's outputs.
CONVERT = """
import json, sys
from pathlib import Path
import keras, numpy as np
import exports, networks
folder, names = Path(sys.argv[1]), sys.argv[2:]
keras.utils.set_random_seed(0)
layers = [
    keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
    keras.layers.BatchNormalization(), keras.layers.ReLU(6.0),
    keras.layers.SeparableConv2D(16, 3, padding="same", activation="relu"),
    keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5),
]
model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
x = networks.smooth_pictures("MobileNet", 16, 2, seed=1)
np.save(folder / "x.npy", x)
np.save(folder / "expected.npy", model.predict(x, verbose=0))
missing = exports.export(model, x, folder, names, networks.calibration("MobileNet", 16))
(folder / "missing.json").write_text(json.dumps(missing))
"""


@pytest.fixture(scope="module")
def benchmarks():
    with scripts.importable(scripts.BENCHMARKS):
        yield {name: importlib.import_module(name) for name in ("runtimes", "settings", "networks")}


def installed(who):
    return all(importlib.util.find_spec(module) for module in MODULES[who])


@pytest.fixture(scope="module")
def files(benchmarks, tmp_path_factory):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow writes the files")
    folder = tmp_path_factory.mktemp("int8")
    known = benchmarks["runtimes"].RUNTIMES
    names = [name for who in MODULES if installed(who) for name in known[who]]
    # Timing several ways would take longer than the rest; its file is like the untuned one.
    names.remove("tuned-int8.sepconv")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    paths = [str(scripts.BENCHMARKS), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, "-c", CONVERT, str(folder), *names]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
    return folder


@pytest.mark.parametrize("who", MODULES)
def test_int8_agrees_with_float(who, files, benchmarks):
    if not installed(who):
        pytest.skip(f"{' or '.join(MODULES[who])} is not installed")
    missing = json.loads((files / "missing.json").read_text())
    runtimes, settings = benchmarks["runtimes"], benchmarks["settings"]
    names = [name for name in runtimes.RUNTIMES[who] if not name.startswith("tuned")]
    assert not {name: missing[name] for name in names if name in missing}
    x, expected = np.load(files / "x.npy"), np.load(files / "expected.npy")
    if who.startswith("sepconv"):
        # Elsewhere these tests have engines in the process, which a served program must not have.
        import sepconv

        y = sepconv.load(files / "int8.sepconv")(x)
        assert settings.held_against(expected, y, "int8") > 20
        return
    ways = runtimes.runs(who, files, x, 1)
    assert len(ways) >= len(names)
    for prepare in ways.values():
        y = benchmarks["networks"].as_array(prepare()())
        assert settings.held_against(expected, y, "int8") > 20


def test_an_output_without_signal_is_refused(benchmarks):
    expected = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    held = benchmarks["settings"].held_against
    near = expected + 0.1 * np.random.default_rng(1).normal(size=1000).astype(np.float32)
    assert held(expected, near, "int8") == pytest.approx(20, abs=1)
    with pytest.raises(ValueError, match=r"signal-to-noise ratio is -6\.0 dB"):
        held(expected, -expected, "int8")
    with pytest.raises(ValueError, match="shape"):
        held(expected, expected[:10], "int8")
    with pytest.raises(ValueError, match="off by"):
        held(expected, near, "float32")


def test_pictures_are_in_the_range_of_their_network(benchmarks):
    networks = benchmarks["networks"]
    plain = networks.calibration("MobileNetV2", 32)
    assert plain.shape == (networks.CALIBRATION, 32, 32, 3)
    assert plain.dtype == np.float32
    assert -1 <= plain.min() < -0.5 < 0.5 < plain.max() <= 1
    of_bytes = networks.calibration("MobileNetV3Large", 32)
    np.testing.assert_allclose(of_bytes, 127.5 * (plain + 1), rtol=1e-6, atol=1e-4)
    # Others than those of the comparison.
    assert not np.array_equal(networks.smooth_pictures("MobileNetV2", 32, 1, seed=1)[0], plain[0])
