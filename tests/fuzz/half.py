"""Random 1x1 convolutions and batch normalization of the half types: see `tests/helpers/half.py`.

python tests/fuzz/half.py --seconds 60 --engine jax
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers import half


def main() -> int:
    """Parses the command line, and draws until the time is over; an error names the first fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--engine", choices=sorted(half.MAKERS), default="numpy")
    parser.add_argument("--seed", type=int, default=None, help="the first; by default the clock's")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time()) % 10**6 * 1000
    engine = half.MAKERS[options.engine]()
    end, seed = time.monotonic() + options.seconds, first
    while time.monotonic() < end:
        half.check(engine, seed)
        seed += 1
    print(f"{options.engine}: seeds {first} to {seed - 1}, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
