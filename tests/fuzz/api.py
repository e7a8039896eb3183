"""A property-based fuzzer of the public functions, for a time: see `tests/helpers/hostile.py`.

python tests/fuzz/api.py --seconds 60 --engine numpy
python tests/fuzz/api.py --engine torch --dtype bfloat16 float16
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers import hostile, hostile_engines

ROUND = 100  # examples between two looks at the clock


def fuzz(name: str, seconds: float, first: int, dtypes: list[str] | None = None) -> int:
    """Draws calls until the time is over; an error ends it with the call that hypothesis found."""
    engine = hostile_engines.MAKERS[name]()
    valid = hostile.valid_calls(tuple(dtypes or engine.dtypes))
    counts = {"valid": 0, "arbitrary": 0}

    def run(kind: str, strategy: object, check: object, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def one(call: object) -> None:
            counts[kind] += 1
            check(engine, call)

        one()

    end = time.monotonic() + seconds
    number = first
    while time.monotonic() < end:
        run("valid", valid, hostile.check_valid, number)
        run("arbitrary", hostile.arbitrary_calls(), hostile.check_arbitrary, number)
        number += 1
    print(
        f"{name}: {sum(counts.values())} executions ({counts['valid']} held against the reference, "
        f"{counts['arbitrary']} arbitrary), seeds {first} to {number - 1}, no finding"
    )
    return 0


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--engine", choices=sorted(hostile_engines.MAKERS), default="numpy")
    parser.add_argument("--seed", type=int, default=None, help="the first; by default the clock's")
    parser.add_argument("--dtype", nargs="+", help="of valid calls; by default all of the engine's")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time()) % 10**6 * 1000
    return fuzz(options.engine, options.seconds, first, options.dtype)


if __name__ == "__main__":
    sys.exit(main())
