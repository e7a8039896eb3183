"""The example of a web service: what it answers, and what it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import scripts

from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program

FOLDER = Path(__file__).parents[2] / "examples/serve"
SIZE = 16
CLASSES = ["dark", "red", "green", "blue", "cyan", "magenta"]
#: A network that sees which color a picture has: its mean color, times these, and a softmax.
COLORS = 8 * np.array([[-1, 1, -1, -1, -1, 1], [-1, -1, 1, -1, 1, -1], [-1, -1, -1, 1, 1, 1]])


@pytest.fixture(scope="module")
def program():
    steps = [
        Step("reduce", "mean", (0,), {"function": "mean", "axes": [1, 2], "keepdims": False}),
        Step("dense", "dense", (1,), {"activation": "none"}, {"kernel": 0}),
        Step("softmax", "softmax", (2,), {"axis": 1, "logarithm": False}),
    ]
    inputs = [Input("picture", (None, SIZE, SIZE, 3))]
    network = Network("float32", inputs, steps, [3], ["classes"], [COLORS.astype("float32")])
    return Program(network, notes={"classes": json.dumps(CLASSES)})


@pytest.fixture(scope="module")
def modules():
    for needed in ("anyio", "PIL", "starlette", "uvicorn", "python_multipart", "httpx2"):
        pytest.importorskip(needed)
    with scripts.importable(FOLDER):
        import app
        import pictures

        yield app, pictures


@pytest.fixture(scope="module")
def client(modules, program):
    from starlette.testclient import TestClient

    with TestClient(modules[0].create(program), raise_server_exceptions=False) as client:
        yield client


def picture(color=(255, 0, 0), size=(40, 30), kind="PNG", mode="RGB", **settings):
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind, **settings)
    return file.getvalue()


def send(client, data):
    return client.post("/classify", files={"picture": ("picture", data)})


def refused(response, status, words):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert words in response.json()["error"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("color", "name"), [((250, 0, 0), "red"), ((0, 250, 0), "green"), ((0, 0, 250), "blue")]
)
def test_a_picture_is_classified(kind, color, name, client):
    response = send(client, picture(color, kind=kind))
    assert response.status_code == 200
    said = response.json()
    assert said["classes"][0]["name"] == name
    probabilities = [one["probability"] for one in said["classes"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.9 < sum(probabilities) <= 1.0001
    assert said["milliseconds"] >= 0


def test_a_picture_is_turned_as_its_camera_says(modules):
    from PIL import Image

    _, pictures = modules
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = picture(size=(40, 30), kind="JPEG", exif=exif)
    assert pictures.read(data).size == (30, 40)


def test_a_picture_is_prepared_as_for_the_network_in_keras(modules):
    pytest.importorskip("skimage")
    from PIL import Image
    from skimage import data

    with scripts.importable(FOLDER.parent / "efficientnet_lite0"):
        import photographs

    received = modules[1].prepare(Image.fromarray(data.chelsea()), 224)
    np.testing.assert_array_equal(received, photographs.load("chelsea", 224), strict=True)


def test_the_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "https://" not in response.text
    assert 'lang="en"' in response.text


def test_what_is_no_form_with_a_picture_is_refused(client):
    refused(client.post("/classify", content=picture()), 415, "multipart/form-data")
    refused(client.post("/classify", files={"photo": picture()}), 400, "no file named 'picture'")
    form = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/classify", content=b"nothing", headers=form), 400, "")
    two = [("picture", picture()), ("picture", picture())]
    refused(client.post("/classify", files=two), 400, "Too many files")
    refused(client.get("/classify"), 405, "")
    refused(client.get("/other"), 404, "")


def test_what_is_no_picture_is_refused(client):
    refused(send(client, b"text"), 415, "must be a picture: JPEG, PNG, WEBP")
    refused(send(client, b""), 415, "must be a picture")
    refused(send(client, picture(kind="BMP")), 415, "must be a picture")
    refused(send(client, picture(40_000, mode="I;16")), 415, "'I;16'")
    noise = np.random.default_rng(0).bytes(3 * 40 * 30)
    from PIL import Image

    file = io.BytesIO()
    Image.frombytes("RGB", (40, 30), noise).save(file, "PNG")
    refused(send(client, file.getvalue()[:1000]), 400, "damaged")


@pytest.mark.parametrize("size", [(5001, 5000), (20_000, 20_000)])
def test_a_small_file_with_many_pixels_is_refused(size, client):
    data = picture(0, size, mode="1")
    assert len(data) < 1 << 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(send(client, data), 413, "at most 25,000,000 pixels")


def test_a_large_upload_is_not_read_to_its_end(client, modules):
    app, _ = modules
    sent = 0

    def body():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="p"\r\n\r\n'
        for _ in range(40):
            sent += 1 << 20
            yield bytes(1 << 20)

    form = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/classify", content=body(), headers=form), 413, f"{app.MOST_BYTES:,}")
    refused(send(client, bytes(app.MOST_BYTES)), 413, "bytes")


def test_a_failure_of_the_server_is_json_without_details(modules, program):
    from starlette.testclient import TestClient

    class Failing:
        inputs, notes, calls = program.inputs, program.notes, 0

        def __call__(self, x):
            self.calls += 1
            if self.calls > 1:
                raise MemoryError("secret")
            return program(x)

    client = TestClient(modules[0].create(Failing()), raise_server_exceptions=False)
    response = send(client, picture())
    refused(response, 500, "The server failed.")
    assert "secret" not in response.text


def test_the_service_needs_no_engine_and_no_keras(modules, program, tmp_path):
    path = tmp_path / "colors.sepconv"
    program.save(path)
    code = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import app, sepconv
app.create(sepconv.load({str(path)!r}))
print([name for name in ("keras", "jax", "torch", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
