"""From which sizes on our kernels are faster than an engine's own convolution."""

from __future__ import annotations

__all__ = [
    "LEAST_ACTIVATED",
    "LEAST_CHANNELS",
    "LEAST_JOINT",
    "LEAST_NORMALIZED",
    "MOST_FILTERS",
    "MOST_NORMALIZED",
    "ORDINARY",
    "few_channels",
]

#: The most filters for which our kernels are faster than the engine's own convolution on an image
#: of one channel, even where the image needs no gradient.
MOST_FILTERS = {"jax": 16, "torch": 8, "tensorflow": 16, "numpy": 16}

#: The fewest channels, and the fewest filters, for which our 1x1 convolution is faster, whatever
#: the image's size.
LEAST_CHANNELS = 8

#: The fewest elements of a tensor for which our batch normalization is faster in training than
#: PyTorch's own. And the most channels, where they lie last in memory: with more, PyTorch's is as
#: fast or up to 1.4 times faster, on an AMD EPYC of Zen 4; with the channels second ours is 1.1 to
#: 1.8 times as fast.
LEAST_NORMALIZED = 1 << 17
MOST_NORMALIZED = 40

#: The fewest elements for which it is as fast where it computes the activation after it, too, in
#: any memory: on an AMD EPYC of Zen 4, a call takes 20 to 50 us more than PyTorch's two. On one of
#: Zen 3, with AVX2 and memory as cold as in a network, SiLU breaks even from 70,000 elements on,
#: and ReLU does not with 96 channels or more that lie last: it takes 1.1 times as long.
LEAST_ACTIVATED = 1 << 15

#: The fewest elements of a convolution's result for which its gradients are computed together with
#: those of the normalization after it: 2 MiB of float32. Smaller ones stay in a cache anyway.
LEAST_JOINT = 1 << 19

#: Why most convolutions are not ours.
ORDINARY = "an ordinary convolution, neither a depthwise nor a 1x1 one"


def few_channels(channels: int, filters: int) -> str | None:
    """Why a 1x1 convolution is too small for our kernels; None where it is not.

    Example:
        >>> few_channels(16, 8)
        >>> few_channels(16, 4)
        'a 1x1 convolution with fewer than 8 channels or filters'
    """
    if min(channels, filters) < LEAST_CHANNELS:
        return f"a 1x1 convolution with fewer than {LEAST_CHANNELS} channels or filters"
    return None
