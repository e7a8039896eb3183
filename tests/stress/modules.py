"""The networks of geffnet, compiled and compared with PyTorch: a line each.

python tests/stress/modules.py                   all
python tests/stress/modules.py mixnet_s          some
"""

from __future__ import annotations

import sys
from pathlib import Path

import geffnet
import numpy as np
import torch
from torch import nn

import sepconv

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import scripts

with scripts.importable(scripts.BENCHMARKS):
    from networks import GEFFNET

#: What rounding may change, of the largest output.
MOST = 1e-4


def check(name: str) -> None:
    """Prints how far a program is from its module."""
    torch.manual_seed(0)
    module = getattr(geffnet, name)(pretrained=False).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after training, near those before
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    program = sepconv.compile(module, torch.randn(1, 3, 64, 64), verify=False)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            expected = module(x).numpy()
        apart = np.abs(program(x.numpy()) - expected).max() / np.abs(expected).max()
        print(f"{name:22} batch {batch}, {apart:.1e} apart", flush=True)
        if not apart <= MOST:
            raise SystemExit(f"{name} is too far from PyTorch.")


if __name__ == "__main__":
    for name in sys.argv[1:] or GEFFNET:
        check(name)
