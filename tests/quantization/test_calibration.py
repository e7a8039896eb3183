"""Calibration data in every form that is taken, and what is refused."""

import numpy as np
import pytest

from sepconv.program.network import Input
from sepconv.quantization import calibration as module
from sepconv.quantization.calibration import arrays_of

ONE = [Input("x", (None, 2))]
TWO = [Input("x", (None, 2)), Input("y", (None, None, 3))]
X = np.arange(12.0).reshape(6, 2)
Y = np.arange(36.0).reshape(6, 2, 3)


class Tensor:
    """What PyTorch's tensors have."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, "torch.float16"

    def detach(self):
        return self

    cpu = float = detach

    def numpy(self):
        return self.array


class Sequence:
    """Batches by their numbers, as Keras' PyDataset has them: there is no end to them."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[2 * (i % 3) :][:2], np.zeros(2)


@pytest.mark.parametrize(
    "given",
    [
        X,
        X.astype("float16"),
        X.astype("int64"),
        {"x": X},
        [X[:2], X[2:]],
        (X[:1], X[1:2], X[2:3], X[3:4], X[4:]),
        iter([X[:2], X[2:]]),
        [(X[:4], [0, 1, 2, 3]), (X[4:], [0, 1])],
        ((X[i : i + 1], "target", 1.0) for i in range(6)),
        [({"x": X[:3]}, 0), ({"x": X[3:]}, 0)],
        [{"x": X}],
        [X.tolist()],
        [(X.tolist(), 0)],
        [[X, np.zeros(6)]],
        Tensor(X),
        [Tensor(X[:3]), Tensor(X[3:])],
        Sequence(),
    ],
)
def test_one_input(given):
    (found,) = arrays_of(given, ONE)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize(
    "given",
    [
        [X, Y],
        (X, Y),
        {"y": Y, "x": X},
        [(X[:2], Y[:2]), (X[2:], Y[2:])],
        [([X[:2], Y[:2]], "targets"), ([X[2:], Y[2:]], "targets")],
        [((X, Y), "targets", "weights")],
        ({"x": X[i::6], "y": Y[i::6]} for i in range(6)),
    ],
)
def test_two_inputs(given):
    x, y = arrays_of(given, TWO)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_no_more_than_enough_is_used(monkeypatch):
    monkeypatch.setattr(module, "MOST_EXAMPLES", 5)

    def endless():
        while True:
            yield X[:2]

    assert len(arrays_of(endless(), ONE)[0]) == 5
    assert len(arrays_of(X, ONE)[0]) == 5


def test_a_fixed_batch_takes_multiples_of_it():
    assert len(arrays_of(X, [Input("x", (4, 2))])[0]) == 4
    with pytest.raises(ValueError, match="at least 8 examples, the batch that the model fixes"):
        arrays_of(X, [Input("x", (8, 2))])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "must have examples. Received: no batch"),
        (X[:0], ValueError, "must have examples, as many for every input"),
        (X[:, :1], ValueError, r"shape \(None, 2\), where None may be any size. Re.*\(6, 1\)"),
        (X[0], ValueError, r"Received: \(2,\)"),
        ([X, X[:, :1]], ValueError, "Batches of calibration must be of one shape"),
        ({"z": X}, ValueError, r"each of the inputs \['x'\]. Received: \['z'\]"),
        (None, TypeError, "must be an array of inputs, several of them, or batches. Re.*NoneType"),
        ("pictures", TypeError, "Received: str"),
        ([None], TypeError, "A batch of calibration must be .* Received: NoneType"),
        ([np.float32(1)], TypeError, "A batch of calibration must be"),
        (np.float32(1), ValueError, r"must have examples.* the shapes \[\(\)\]"),
        (X + 1j, TypeError, "must hold numbers. Received: an array of complex128"),
        (np.array(["a"]), TypeError, "must hold numbers. Received: an array of <U1"),
    ],
)
def test_other_data_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        arrays_of(given, ONE)


def test_lengths_are_compared():
    with pytest.raises(ValueError, match=r"as many for every input. Received: the shapes"):
        arrays_of([X, Y[:5]], TWO)


def test_names_that_are_no_inputs_are_left_out():
    (found,) = arrays_of({"label": np.zeros(6), "x": X}, ONE)
    np.testing.assert_array_equal(found, X)
