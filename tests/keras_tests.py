"""Runs the tests that Keras has of its layers, with sepconv's layers in the place of Keras' own.

    KERAS_BACKEND=jax python tests/keras_tests.py

The tests are those of the Keras that is installed, which ships them; none of them is copied here.
It says of each suite how many of its tests passed, and fails unless all did, and unless each of the
layers that the suite is for was called, and was ours. ``--stock`` runs them with Keras' own layers,
which says what to expect; ``--quick`` leaves out all but the depthwise and separable layers.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import importlib
import os
import sys
import unittest
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

#: Suites -> the modules of their tests, and the layers that take the place of Keras' own.
SUITES = {
    "depthwise and separable convolutions": (
        ("convolutional.depthwise_conv_test", "convolutional.separable_conv_test"),
        ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    ),
    "Conv2D and its kin": (("convolutional.conv_test",), ("Conv2D",)),
    "BatchNormalization": (
        ("normalization.batch_normalization_test",),
        ("BatchNormalization",),
    ),
}


@contextlib.contextmanager
def in_place(kit, names):
    """Keras' layers of these names are those of `kit`, and a counter that it yields their calls."""
    import keras.src.layers

    calls = collections.Counter()
    with contextlib.ExitStack() as stack:
        for name in names:
            layer = getattr(kit, name)
            stack.enter_context(mock.patch.object(layer, "call", _counting(layer, calls)))
            stack.enter_context(mock.patch.object(keras.src.layers, name, layer))
        yield calls


def _counting(layer, calls):
    original = layer.call

    @functools.wraps(original)  # Keras reads the signature
    def call(self, *args, **kwargs):
        calls[layer] += 1
        return original(self, *args, **kwargs)

    return call


def run(modules):
    """Runs the tests of these modules, and returns how many passed and how many ran."""
    # Not before the layers are in place: decorators in them look layers up.
    loaded = [importlib.import_module(f"keras.src.layers.{module}") for module in modules]
    tests = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromModule, loaded))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(tests)
    bad = {test.id() for test, _ in result.failures + result.errors}
    ran = result.testsRun - len(result.skipped)
    return ran - len(bad), ran


def judge(suites, kit):
    """Runs suites, and returns lines on what came of them, and complaints."""
    lines, complaints = [], []
    with in_place(kit, [name for _, names in suites.values() for name in names]) as calls:
        for title, (modules, names) in suites.items():
            calls.clear()
            passed, ran = run(modules)
            counts = {name: calls[getattr(kit, name)] for name in names}
            lines.append(f"{title}: {passed} of {ran} passed")
            lines.append("    calls: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
            if passed < ran or not ran:
                complaints.append(f"{title}: {ran - passed} of {ran} did not pass")
            complaints += [f"{name} was never called" for name, n in counts.items() if not n]
    return lines, complaints


def main():
    """Runs the suites, says what came of them and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stock", action="store_true", help="test Keras' own layers")
    parser.add_argument("--quick", action="store_true", help="the first suite alone")
    arguments = parser.parse_args()

    import keras

    kit = keras.layers if arguments.stock else importlib.import_module("sepconv.layers")
    suites = dict(list(SUITES.items())[: 1 if arguments.quick else None])
    lines, complaints = judge(suites, kit)
    print(f"Keras {keras.__version__}'s own tests of {kit.__name__} on {keras.backend.backend()}")
    print("\n".join(lines + [f"FAILED: {complaint}" for complaint in complaints]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
