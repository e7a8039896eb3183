"""What must hold for what sepconv makes of a model in a half type: `check`."""

from __future__ import annotations

from pathlib import Path

import sepconv
from generated_models.checks import Outcome, Snapshot, check_file, check_runs, drive


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
        check_runs(outcome, case, program, Path(folder))
    half = ("bfloat16", "float16")[case.seed % 2]
    served = drive(
        outcome, case, "optimize", lambda: sepconv.optimize(case.model, dtype=half).model
    )
    if served is not None:
        check_file(outcome, case, "optimize", served, Path(folder))
    before.check_unchanged(outcome, case)
    return outcome
