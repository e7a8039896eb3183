"""The networks of geffnet, accelerated and compared with stock: a line each.

python tests/stress/torch_networks.py              all
python tests/stress/torch_networks.py mixnet_s     some

Gradients are compared in float64: in float32 a number near 0 may fall on the other side of a ReLU,
by which stock's own gradients differ from one memory format to the other.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch

import sepconv

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import scripts
from helpers.torch_networks import assert_close, geffnet_network, step

with scripts.importable(scripts.BENCHMARKS):
    from networks import GEFFNET


def check(name: str, memory_format: torch.memory_format) -> None:
    """Raises where an accelerated network's results, gradients or buffers are not stock's."""
    stock = geffnet_network(name).double().to(memory_format=memory_format)
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64).to(memory_format=memory_format)
    assert_close(step(ours, x), step(stock, x))
    buffers = ([b.double() for b in module.buffers()] for module in (ours, stock))
    assert_close(*buffers)
    assert_close(step(ours.eval(), x), step(stock.eval(), x))
    ours, stock, x = ours.float(), stock.float(), x.float()
    with torch.no_grad():
        assert_close([ours(x)], [stock(x)])
        # The last normalizations are over eight numbers: stock itself is up to 1.2e-4 from float64.
        assert_close([ours.train()(x)], [stock.train()(x)], 5e-4)
    print(f"{name:22} {memory_format}: {record.changed} of {len(record)} layers, as stock")


if __name__ == "__main__":
    for network in sys.argv[1:] or GEFFNET:
        for each in (torch.contiguous_format, torch.channels_last):
            check(network, each)
