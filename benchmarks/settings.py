"""Which setting of a participant is measured: the fastest of those with the right output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import networks
import numpy as np
from networks import as_array, difference
from runtimes import Run
from turns import timed

__all__ = ["LEAST_SIGNAL", "TOLERANCES", "Chosen", "choose", "held_against"]

#: Relative to the largest output, of float32 networks. In bfloat16, where each of dozens of layers
#: rounds to 2^-8, it is only to find what is wrong altogether.
TOLERANCES = {"float32": 1e-4, "bfloat16": 16 * 2.0**-8}
#: In int8 outputs are held against the noise: the least signal-to-noise ratio, in decibels.
LEAST_SIGNAL = 3.0


class Chosen(NamedTuple):
    """A setting that is measured; `signal` is its signal-to-noise ratio, in decibels, in int8."""

    setting: str
    run: Run
    signal: float | None


def choose(runs: dict[str, Callable[[], Run]], expected: Path, dtype: str) -> Chosen | str:
    """The fastest of the settings with the right output, or why there is none.

    Args:
        runs: functions that prepare a setting, by its name.
        expected: the right output; where there is no such file yet, the first output becomes it,
            if it is of float32.
        dtype: what the settings compute in.
    """
    best: tuple[float, Chosen] | None = None
    errors = []
    for setting, prepare in runs.items():
        try:
            run = prepare()
            # The second call's output counts, so that a setting that overwrites its input is found.
            run()
            y = as_array(run())
            if dtype != "float32" and not expected.exists():
                raise ValueError("there is no output of float32 to compare with")
            signal = held_against(np.load(expected), y, dtype) if expected.exists() else None
            seconds = min(timed(run, 15))
        except Exception as error:  # a setting that does not work is not measured
            errors.append(f"{setting}: {type(error).__name__}: {error}"[:300])
            continue
        if not expected.exists():
            np.save(expected, y)
        if best is None or seconds < best[0]:
            best = seconds, Chosen(setting, run, signal)
    return best[1] if best else "; ".join(errors) or "there is no file that it reads"


def held_against(expected: np.ndarray, y: np.ndarray, dtype: str) -> float | None:
    """The signal-to-noise ratio of an output of int8.

    Raises:
        ValueError: an output is too far from the right one.
    """
    if y.shape != expected.shape:
        raise ValueError(f"the output has the shape {y.shape}, expected {expected.shape}")
    if dtype != "int8":
        apart = difference(y, expected)
        if not apart <= TOLERANCES[dtype]:
            raise ValueError(f"the output is off by {apart:.1e}")
        return None
    signal = networks.signal(y, expected)
    if not signal >= LEAST_SIGNAL:
        raise ValueError(f"the output's signal-to-noise ratio is {signal:.1f} dB")
    return signal
