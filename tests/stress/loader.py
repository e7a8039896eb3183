"""A PyTorch DataLoader whose workers compute by our operation, after the parent has used it.

python tests/stress/loader.py --rounds 20
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader, Dataset

import sepconv.torch


def _compute(index: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(index)
    x = torch.randn(2, 12, 12, 16, generator=random)
    kernel = torch.randn(3, 3, 16, 1, generator=random, requires_grad=True)
    pointwise = torch.randn(1, 1, 16, 24, generator=random)
    y = sepconv.torch.separable_conv2d(x, kernel, pointwise, padding="same")
    (gradient,) = torch.autograd.grad(y.square().sum(), kernel)
    return torch.cat([y.detach().flatten(), gradient.flatten()])


class Computed(Dataset):
    """Each item is computed when it is asked for, in the process that asks."""

    def __len__(self) -> int:
        """How many there are."""
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        """Item `index`."""
        return _compute(index)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    sepconv.set_num_threads(3)
    expected = torch.stack([_compute(i) for i in range(16)])
    for _ in range(rounds):
        loader = DataLoader(
            Computed(), batch_size=4, num_workers=3, multiprocessing_context="fork", timeout=120
        )
        assert torch.equal(torch.cat(list(loader)), expected)
        assert torch.equal(_compute(3), expected[3])
    print(f"loader: {rounds} rounds of 3 workers, every result the same")


if __name__ == "__main__":
    main()
