"""Random Keras models through every function on models: see `tests/generated_models`.

KERAS_BACKEND=jax python tests/fuzz/models.py --models 1000
KERAS_BACKEND=jax python tests/fuzz/models.py --narrow    # compiled and optimized in half types

What was found is in build/fuzz-models/<engine>.json after each model, and a run goes on from there.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from generated_models import cases, checks, narrow
from helpers import quick

#: The first seed: those before it are in the suite.
FIRST = 60
#: One of so many models is trained; one of so many compiles its functions as it was told. Either
#: takes seconds to a minute, where an engine compiles operations or functions of each shape.
TRAINED, COMPILED = {"jax": (10, 40), "tensorflow": (5, 20)}.get(
    cases.keras.backend.backend(), (1, 4)
)

_NUMBERS = re.compile(r"\d[\d.e+-]*")


def fuzz_one(seed: int, half: bool = False) -> dict[str, object]:
    """What came of a model, as something to write into a file; `half`: of half types alone."""
    started = time.monotonic()
    train, compiled = seed % TRAINED == 0 and not half, seed % COMPILED == 0
    eager = contextlib.nullcontext() if compiled else quick.eager()
    with warnings.catch_warnings(), eager, tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            case = cases.make(seed, train)
        except RuntimeError as error:
            return {"failures": [("generator", "no model", str(error)[:1000])], "driven": []}
        outcome = narrow.check(case, folder) if half else checks.check(case, folder, train)
    return {
        "failures": outcome.failures,
        "refusals": outcome.refusals,
        "driven": outcome.driven,
        "model": case.made if outcome.failures else [],
        "rejected": len(case.rejected),
        "seconds": round(time.monotonic() - started, 1),
    }


def summary(results: dict[str, dict]) -> str:
    """The functions driven, refusals and failures of all seeds."""
    driven = collections.Counter(name for r in results.values() for name in r["driven"])
    refusals = collections.Counter(
        f"{name}: {_NUMBERS.sub('#', reason[:90])}"
        for r in results.values()
        for name, reason in r.get("refusals", [])
    )
    failures = collections.defaultdict(set)
    for seed, result in results.items():
        for function, check, _ in result["failures"]:
            failures[f"{function}: {check}"].add(int(seed))
    lines = [f"{len(results)} models"]
    lines += [f"  {count:5} {name}" for name, count in sorted(driven.items())]
    lines += ["refusals that are promised, or Keras' own"]
    lines += [f"  {count:5} {name}" for name, count in refusals.most_common()]
    bad = sum(bool(r["failures"]) for r in results.values())
    lines += [f"failures: {bad} models"]
    lines += [f"  {len(s):5} {name}: seeds {sorted(s)[:12]}" for name, s in failures.items()]
    return "\n".join(lines)


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz-models"))
    parser.add_argument("--seed", type=int, help="this one alone, said in full")
    parser.add_argument("--narrow", action="store_true", help="compile and optimize in half types")
    options = parser.parse_args()
    with quick.short_compilations(), quick.one_thread():
        if options.seed is not None:
            result = fuzz_one(options.seed, options.narrow)
            print(json.dumps(result, indent=1))
            return bool(result["failures"])
        name = f"{cases.keras.backend.backend()}{'-narrow' * options.narrow}.json"
        return _all(options.folder / name, options.models, options.narrow)


def _all(path: Path, models: int, half: bool) -> int:
    results = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST, FIRST + models):
        if str(seed) in results:
            continue
        result = results[str(seed)] = fuzz_one(seed, half)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(results))
        new.replace(path)
        for function, check, message in result["failures"][:3]:
            print(f"seed {seed}: {function}: {check}: {message[:300]}", flush=True)
    wanted = {s: r for s, r in results.items() if int(s) < FIRST + models}
    print(f"{path}: {summary(wanted)}")
    return any(r["failures"] for r in wanted.values())


if __name__ == "__main__":
    sys.exit(main())
