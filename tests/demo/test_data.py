"""The demo's pictures: where they come from, and what is wrong with a file."""

import gzip

import numpy as np
import pytest

from sepconv.demo import data


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
