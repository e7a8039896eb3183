"""What must hold for what sepconv makes of a model in a half type: `check`."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import ops

import sepconv
from generated_models.checks import Outcome, Snapshot, check_file, drive, outputs_of, same_bits


def check(case, folder):
    """Drives `compile` and `optimize` with a dtype, each of which compares what it made itself.

    Args:
        case: the model.
        folder: where files may be written.

    Returns:
        An `Outcome`.
    """
    outcome = Outcome()
    before = Snapshot(case)
    program = drive(outcome, case, "compile", lambda: sepconv.compile(case.model, dtype="bfloat16"))
    if program is not None:
        _check_program(outcome, case, program, Path(folder))
    half = ("bfloat16", "float16")[case.seed % 2]
    served = drive(
        outcome, case, "optimize", lambda: sepconv.optimize(case.model, dtype=half).model
    )
    if served is not None:
        check_file(outcome, case, "optimize", served, Path(folder))
    before.check_unchanged(outcome, case)
    return outcome


def _check_program(outcome, case, program, folder):
    """It gives the same bits on any number of threads and from a file, and an image's own."""
    flat = [np.asarray(ops.convert_to_numpy(x)) for x in keras.tree.flatten(case.inputs)]
    threads = sepconv.num_threads()
    path = folder / "half.sepconv"
    try:
        found = outputs_of(program, flat)
        sepconv.set_num_threads(1 + case.seed % 5)
        program.save(path)
        for other in (program, sepconv.load(path)):
            outcome.expect("compile", "bits", same_bits(outputs_of(other, flat), found))
        if all(one.shape[0] is None for one in program.inputs):
            shapes = [y.shape for y in outputs_of(program, [x[:0] for x in flat])]
            none = [(0, *y.shape[1:]) for y in found]
            outcome.expect("compile", "an empty batch", shapes == none, shapes)
    except Exception as error:
        outcome.expect("compile", "raises when called", False, f"{type(error).__name__}: {error}")
    finally:
        sepconv.set_num_threads(threads)
        path.unlink(missing_ok=True)
