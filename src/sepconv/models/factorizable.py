"""An ordinary convolution that may become separable, of whichever framework: its cost, its fits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.models.lowrank import Factors, Moments, fit, full_rank
from sepconv.models.ranks import cheaper_ranks

__all__ = ["Factorizable"]

#: Patches that a layer's moments are taken from: at least the first number, and the second times
#: the number of columns of the moments.
_PATCHES, _PATCHES_A_COLUMN = 20_000, 8


@dataclass
class Factorizable:
    """An ordinary convolution.

    Attributes:
        path: its name in reports.
        kernel: (kh, kw, C, F), float64.
        spec: strides, padding, dilation and layout.
        has_bias: whether it has a bias.
        free_bias: whether that may take up a part of the error.
        pixels: of its output, for one picture.
        fits: by rank, what `fit` has computed so far.
    """

    path: str
    kernel: np.ndarray
    spec: ConvSpec
    has_bias: bool
    free_bias: bool
    pixels: int = 1
    fits: dict[int, Factors] = field(default_factory=dict)

    @property
    def full_rank(self) -> int:
        """The rank at which the separable convolution is exact."""
        return full_rank(self.kernel.shape)

    @property
    def cheaper(self) -> int:
        """The greatest rank at which a separable layer takes fewer multiply-adds, or 0."""
        kh, kw, _, filters = self.kernel.shape
        return min(cheaper_ranks(kh * kw, filters), self.full_rank)

    def multiply_adds(self, rank: int | None) -> int:
        """Multiply-adds for one picture, at a rank or (None) of the ordinary convolution."""
        return self.pixels * self._weights(rank)

    def parameters(self, rank: int | None) -> int:
        """The number of weights, at a rank or (None) of the ordinary convolution."""
        return self._weights(rank) + (self.kernel.shape[3] if self.has_bias else 0)

    def _weights(self, rank: int | None) -> int:
        kh, kw, channels, filters = self.kernel.shape
        if rank is None:
            return self.kernel.size
        return channels * rank * (kh * kw + filters)

    def fit(self, rank: int, moments: Moments | None) -> Factors:
        """The factors of a rank, kept in `fits`."""
        rank = min(rank, self.full_rank)
        if rank not in self.fits:
            self.fits[rank] = fit(self.kernel, rank, moments, fit_bias=self.free_bias)
        return self.fits[rank]

    def moments(self, pictures: int) -> Moments:
        """Empty moments for its inputs, of a number of pictures."""
        columns = self.kernel[..., 0].size
        patches = max(_PATCHES, _PATCHES_A_COLUMN * columns)
        return Moments(self.kernel.shape, self.spec, -(-patches // pictures))
