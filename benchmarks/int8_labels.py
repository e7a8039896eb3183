"""What int8 loses of the accuracy of networks that are trained here, on pictures with labels.

    python benchmarks/int8_labels.py                           # digits, and Fashion-MNIST
    python benchmarks/int8_labels.py digits --seeds 5

Trains the demo's separable network with Keras, as `sepconv demo` does, and quantises it with
pictures that it was trained on. Prints the accuracy of both on pictures that neither was made with,
a row a training. Ends with an error where int8 loses more than 0.3 points, on the mean of all
trainings of a data set: a picture more or less is 0.2 points of the digits.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np

#: The most points of accuracy that may be lost.
MOST_LOST = 0.3

#: Pictures that scales are from, the first of those that the network was trained on.
_CALIBRATION = 256


def trained(pictures: Any, epochs: int, seed: int, **network: Any) -> Any:
    """The demo's network after its training.

    Args:
        pictures: a `sepconv.demo.data.Pictures`.
        epochs: passes over those to train with.
        seed: of the weights and of the order of pictures.
        network: arguments of `sepconv.demo.training.build_network` other than its defaults.
    """
    import keras

    from sepconv.demo import training

    keras.utils.set_random_seed(seed)
    size = pictures.x_train.shape[1]
    model = training.build_network(keras.layers, len(pictures.classes), size, **network)
    steps = max(1, len(pictures.x_train) // training.BATCH_SIZE)
    training.compile_network(model, epochs * steps)
    used = steps * training.BATCH_SIZE
    model.fit(
        pictures.x_train[:used],
        pictures.y_train[:used],
        batch_size=training.BATCH_SIZE,
        epochs=epochs,
        verbose=0,
    )
    return model


def measured(model: Any, pictures: Any) -> tuple[float, float, float]:
    """The accuracy of a network and of its int8 one, and how often both say the same; 0 to 1."""
    import sepconv

    program = sepconv.compile(model)
    narrow, _ = sepconv.quantize(program, pictures.x_train[:_CALIBRATION])
    real, found = (np.asarray(each(pictures.x_test)).argmax(1) for each in (program, narrow))
    right = pictures.y_test
    return (
        float((real == right).mean()),
        float((found == right).mean()),
        float((real == found).mean()),
    )


def main() -> int:
    """Reads the command line and prints the table; 0 where no more is lost than may be."""
    from sepconv.demo import data

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", default=list(data.DATA_SETS), metavar="DATA")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--epochs", type=int, help="of each (default: the demo's)")
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    print("| data | seed | float | int8 | lost, points | same class |")
    print("| --- | --- | --- | --- | --- | --- |")
    too_much = []
    for name in options.data:
        try:
            pictures = data.load(name)
        except (data.DataMissingError, ValueError) as error:
            parser.error(str(error))
        lost = []
        for seed in range(options.seeds):
            model = trained(pictures, options.epochs or data.DATA_SETS[name][1], seed)
            real, found, same = measured(model, pictures)
            lost.append(100 * (real - found))
            print(
                f"| {pictures.title} | {seed} | {real:.2%} | {found:.2%} | {lost[-1]:.2f} | "
                f"{same:.2%} |",
                flush=True,
            )
        if np.mean(lost) > MOST_LOST:
            too_much.append(f"{pictures.title}: {np.mean(lost):.2f}")
    if too_much:
        print(f"More than {MOST_LOST} points are lost: {', '.join(too_much)}", file=sys.stderr)
    return 1 if too_much else 0


if __name__ == "__main__":
    sys.exit(main())
