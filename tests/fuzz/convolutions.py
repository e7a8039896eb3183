"""Random `lax.conv_general_dilated` and their gradients under `patch_jax`, against stock JAX.

python tests/fuzz/convolutions.py --calls 300
python tests/fuzz/convolutions.py --dtype bfloat16
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
from helpers import convolutions

ROUND = 100  # calls between two lines of what was found


def main() -> int:
    """Parses the command line, and tries the calls; an error names the first that differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="the first; by default the clock's")
    parser.add_argument("--dtype", choices=sorted(convolutions.TOLERANCE), default="float32")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time()) % 10**6 * 1000
    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes nearly all the time
    for done in range(0, options.calls, ROUND):
        count = min(ROUND, options.calls - done)
        record = convolutions.check(first + done, count, options.dtype)
        print(f"seeds {first + done} to {first + done + count - 1}: equal to stock")
        print(record, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
