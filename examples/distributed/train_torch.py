"""A worker on PyTorch: `DistributedDataParallel` over gloo."""

from __future__ import annotations

import os
import time

os.environ["KERAS_BACKEND"] = "torch"

from datetime import timedelta

import torch
import torch.distributed as dist
from problem import LEARNING_RATE, MOMENTUM, build, options, pictures, report
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Trains, telling each step's loss."""
    given = options()
    model = build()
    if given.world > 1:
        # Rank 0 keeps the addresses, at the first port; a collective waits up to the patience.
        dist.init_process_group(
            "gloo",
            f"tcp://127.0.0.1:{given.port[0]}",
            rank=given.rank,
            world_size=given.world,
            timeout=timedelta(seconds=max(given.patience, 1)),
        )
        model = DistributedDataParallel(model)
    # Keras' SGD adds the momentum to the weights, PyTorch's the rate times it: the same numbers.
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    for number in range(given.steps):
        x, y = (torch.from_numpy(part) for part in pictures(given.rank, given.world, number))
        loss = torch.nn.functional.cross_entropy(model(x), y.long())
        optimizer.zero_grad()
        loss.backward()  # in which DistributedDataParallel averages the gradients
        optimizer.step()
        mean = loss.detach()
        if given.world > 1:
            dist.all_reduce(mean)
            mean /= given.world
        report(number, mean)
    if given.world > 1:
        # PyTorch waits for gloo's threads to end while it holds the interpreter's lock, which they
        # may need once more to let go of the last sum: they get it now.
        time.sleep(0.1)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
