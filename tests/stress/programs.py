"""Networks of keras.applications at full size, compiled and held against Keras: a line each.

KERAS_BACKEND=torch python tests/stress/programs.py                  all that the engine has
KERAS_BACKEND=jax python tests/stress/programs.py NASNetMobile       some

The statistics of batch normalization are those of the pictures, as after training, so that outputs
vary from picture to picture. Batches of 1, 3 and 8 must predict what Keras predicts, and give the
same bits on 1, 2 and 3 threads, and in 1,000 calls from 8 threads at once (of MobileNetV2). It also
tries whether that would show a mistake in any step: with the weights of one step as zeros,
whichever it is, the program must predict something else.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import keras
import numpy as np

import sepconv
from sepconv.program.network import Network
from sepconv.program.program import Program

#: Networks, and the size of their pictures.
NETWORKS = {
    "MobileNet": 224,
    "MobileNetV2": 224,
    "MobileNetV3Small": 224,
    "MobileNetV3Large": 224,
    "Xception": 299,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetV2B0": 224,
    "NASNetMobile": 224,
    "ConvNeXtTiny": 224,
    "ResNet50": 224,
    "DenseNet121": 224,
}

#: Networks that scale pictures themselves.
_OWN_SCALE = ("Efficient", "V3", "ConvNeXt")

#: What rounding may change, of the largest output; and how much outputs must vary, of their size.
MOST, LEAST = 1e-4, 0.1


def pictures(name: str, size: int) -> np.ndarray:
    """Eight, of 8 x 8 fields in colors of their own."""
    fields = np.random.default_rng(2).uniform(0, 255, (8, 8, 8, 3))
    side = -(-size // 8)
    x = fields.repeat(side, axis=1).repeat(side, axis=2)[:, :size, :size]
    own = any(part in name for part in _OWN_SCALE)
    return (x if own else x / 127.5 - 1).astype("float32")


def trained(name: str, x: np.ndarray) -> Any:
    """A network whose weights are random and whose statistics are those of `x`."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    make = getattr(keras.applications, name)
    model = make(input_shape=x.shape[1:], weights=None, classifier_activation=None)
    for layer in model._flatten_layers(recursive=True, include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
        elif type(layer).__name__ == "LayerScale":  # which begins at 1e-6, too little to matter
            layer.gamma.assign(rng.uniform(0.2, 0.6, layer.gamma.shape))
        elif hasattr(getattr(layer, "bias", None), "assign"):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    model(x[:4], training=True)
    return model


def check(name: str) -> bool:
    """Prints how far the program is from Keras; whether that is right."""
    x = pictures(name, NETWORKS[name])
    model = trained(name, x)
    program = sepconv.compile(model, verify=False)
    expected = np.concatenate([model.predict_on_batch(x[i : i + 2]) for i in range(0, 8, 2)])
    apart, same = [], True
    for batch in (1, 3, 8):
        results = []
        for threads in (1, 2, 3):
            sepconv.set_num_threads(threads)
            results.append(program(x[:batch]))
            same &= np.array_equal(results[0], results[-1])
        apart.append(np.abs(results[0] - expected[:batch]).max() / np.abs(expected).max())
    silent = _without_effect(program.network, x[:1], results[0][:1])
    varies = expected.std(axis=0).mean() / np.abs(expected).mean()
    if name == "MobileNetV2":
        same &= _same_for_many(program, x)
    numbers = ", ".join(f"{number:.1e}" for number in apart)
    right = max(apart) <= MOST and varies >= LEAST and same and not silent
    print(
        f"{name:18} batches of 1, 3, 8: {numbers} apart; outputs vary by {varies:.2f} of their "
        f"size; {'the same bits' if same else 'OTHER BITS'}; "
        f"{f'without effect: {silent}' if silent else 'every step counts'}"
        f"{'' if right else '  WRONG'}",
        flush=True,
    )
    return right


def _without_effect(network: Network, x: np.ndarray, expected: np.ndarray) -> list[str]:
    """The steps whose weights can be zeros and the check above would not show it."""
    silent = []
    for number, step in enumerate(network.steps):
        if not step.weights:
            continue
        # New tensors, since steps may share theirs.
        zeros = [np.zeros_like(network.tensors[i]) for i in step.weights.values()]
        weights = {part: len(network.tensors) + i for i, part in enumerate(step.weights)}
        steps = list(network.steps)
        steps[number] = step._replace(weights=weights)
        wrong = network._replace(steps=tuple(steps), tensors=(*network.tensors, *zeros))
        found = Program(wrong)(x)
        if np.abs(found - expected).max() <= MOST * np.abs(expected).max():
            silent.append(f"{number} {step.name}")
    return silent


def _same_for_many(program: Any, x: np.ndarray) -> bool:
    """Whether 1,000 calls from 8 threads at once give the bits of calls alone."""
    sepconv.set_num_threads(2)
    expected = [program(x[i : i + 1]) for i in range(8)]
    wrong = []

    def call(i: int) -> None:
        for _ in range(125):
            if not np.array_equal(program(x[i : i + 1]), expected[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return not wrong


def main() -> int:
    """Checks the networks that are named, or all."""
    right = True
    for name in sys.argv[1:] or NETWORKS:
        if name == "NASNetMobile" and keras.backend.backend() == "torch":
            continue  # Keras has none there
        right &= check(name)
        keras.backend.clear_session()
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
