"""Approximates a convolution's kernel by a depthwise and a pointwise kernel, in NumPy.

A kernel (kh, kw, C, F) has C slices, one for each input channel: matrices of kh*kw taps by F
filters. A slice of rank r is a product of r depthwise taps and r rows of a pointwise kernel. So the
convolutions whose slices have rank r are just those that a separable convolution with
``depth_multiplier=r`` computes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sepconv.geometry import ConvSpec, resolve

__all__ = ["Factors", "Moments", "fit", "full_rank"]

#: Bytes of patches that are copied out of the pictures at a time.
_CHUNK_BYTES = 32 << 20
#: Sweeps end when one lowers the error by less than this fraction.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Factors:
    """A separable convolution in place of an ordinary one.

    Attributes:
        depthwise_kernel: (kh, kw, C, rank), float64.
        pointwise_kernel: (1, 1, C * rank, F), float64.
        bias: the change of the bias, (F,).
        error: the relative error, in the norm: of the kernel or, with moments, of the layer's
            output before bias and activation.
        svd_error: the same of the plain SVD.
    """

    depthwise_kernel: np.ndarray
    pointwise_kernel: np.ndarray
    bias: np.ndarray
    error: float
    svd_error: float

    @property
    def rank(self) -> int:
        """The depth multiplier."""
        return self.depthwise_kernel.shape[3]

    def kernel(self) -> np.ndarray:
        """The ordinary convolution's kernel that this one computes, (kh, kw, C, F).

        Example:
            >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 16))
            >>> np.allclose(fit(kernel, 9).kernel(), kernel)
            True
        """
        channels, rank = self.depthwise_kernel.shape[2:]
        pointwise = self.pointwise_kernel.reshape(channels, rank, -1)
        return np.einsum("ijcr,crf->ijcf", self.depthwise_kernel, pointwise)


class Moments:
    """The first and second moments of a convolution's patches, gathered batch by batch.

    They determine the error of the layer's output: for the patches P (one a row) and a kernel that
    differs by D it is ``|P D|^2 = sum(D * (P^T P D))``. Memory does not grow with the data: the
    moments take ``(kh * kw * C)^2`` numbers of float64.

    Args:
        kernel_shape: (kh, kw, C, F).
        spec: strides, padding, dilation and layout, as from `sepconv.geometry.conv_spec`.
        sample: the most patches of a picture to use, drawn at random; None for all.

    Example:
        >>> from sepconv.geometry import conv_spec
        >>> moments = Moments((1, 1, 1, 4), conv_spec())
        >>> moments.add(np.array([1.0, 3.0]).reshape(1, 1, 2, 1))
        >>> moments.count, moments.mean, moments.gram
        (2, array([2.]), array([[5.]]))
    """

    def __init__(
        self, kernel_shape: tuple[int, ...], spec: ConvSpec, sample: int | None = None
    ) -> None:
        self._kernel_shape, self._spec, self._sample = tuple(kernel_shape), spec, sample
        kh, kw, channels, _ = kernel_shape
        size = kh * kw * channels
        self._rng = np.random.default_rng(0)
        self._sum, self._products = np.zeros(size), np.zeros((size, size))
        self.count = 0

    @property
    def mean(self) -> np.ndarray:
        """The mean patch, (C * kh * kw,), channel by channel."""
        return self._sum / max(self.count, 1)

    @property
    def gram(self) -> np.ndarray:
        """``P^T P / count``, (C * kh * kw, C * kh * kw), not centred."""
        return self._products / max(self.count, 1)

    def add(self, x: np.ndarray) -> None:
        """Adds a batch of the layer's inputs.

        Args:
            x: (batch, height, width, C), or its channels_first form, as the spec says.

        Raises:
            ValueError: the shape does not fit the kernel, or a number is not finite.
        """
        windows = self._windows(np.asarray(x))
        images, height, width = windows.shape[:3]
        pixels = height * width
        chosen = None
        if self._sample is not None and pixels > self._sample:
            chosen = self._rng.random((images, pixels)).argpartition(self._sample, axis=1)
            chosen = (chosen[:, : self._sample] + pixels * np.arange(images)[:, None]).ravel()
        rows = images * pixels if chosen is None else len(chosen)
        step = max(64, _CHUNK_BYTES // (8 * len(self._sum)))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            picked = np.arange(start, stop) if chosen is None else chosen[start:stop]
            image, pixel = np.divmod(picked, pixels)
            patches = windows[image, pixel // width, pixel % width]
            patches = patches.reshape(len(picked), -1).astype(np.float64)
            self._sum += patches.sum(0)
            self._products += patches.T @ patches
            self.count += len(picked)
        if not np.isfinite(self._sum).all():
            raise ValueError("data must be finite: some input of the convolution is not.")

    def _windows(self, x: np.ndarray) -> np.ndarray:
        """A view of the padded input as patches, (batch, out_h, out_w, C, kh, kw)."""
        kh, kw, channels, _ = self._kernel_shape
        spec = self._spec
        geometry = resolve(spec, x.shape, (kh, kw, channels, 1))
        if spec.channels_first:
            x = x.transpose(0, 2, 3, 1)
        # Where strides leave the last rows out, the padding after them is negative.
        pads = [(max(before, 0), max(after, 0)) for before, after in geometry.pads]
        padded = np.pad(x, [(0, 0), *pads, (0, 0)])
        reach = (kh - 1) * spec.dilation_h + 1, (kw - 1) * spec.dilation_w + 1
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (1, 2))
        windows = windows[:, :: spec.stride_h, :: spec.stride_w]
        return windows[..., :: spec.dilation_h, :: spec.dilation_w]


def full_rank(kernel_shape: tuple[int, ...]) -> int:
    """The rank at which any kernel of that shape is factorized exactly.

    Example:
        >>> full_rank((3, 3, 16, 32)), full_rank((3, 3, 16, 4))
        (9, 4)
    """
    kh, kw, _, filters = kernel_shape
    return min(kh * kw, filters)


def fit(
    kernel: np.ndarray,
    rank: int,
    moments: Moments | None = None,
    *,
    fit_bias: bool = False,
    sweeps: int = 8,
) -> Factors:
    """The separable convolution of a rank that is nearest to an ordinary one.

    Without moments, nearest means the least difference of kernels: the truncated SVD of each
    channel's slice, which is the optimum. With moments, it means the least difference of the
    layer's outputs, in which channels compensate for each other. Starting from the SVD, each
    channel in turn gets the best slice of that rank while the others stay (the SVD of the slice
    whitened by its patches' moments); finally all pointwise kernels are fitted by least squares.
    Each step lowers the error. A small ridge keeps the kernel in directions that the data does not
    determine.

    Args:
        kernel: (kh, kw, C, F).
        rank: the depth multiplier, from 1; at `full_rank` and above the result is exact.
        moments: of the patches that the layer sees, or None.
        fit_bias: whether the bias may take up the mean of the error; only with moments.
        sweeps: the most turns of each channel.

    Returns:
        The factors. If their error were above that of the plain SVD on the same moments, the plain
        SVD is returned.

    Raises:
        ValueError: the rank is below 1; the kernel has not four axes or is not finite.

    Example:
        >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 16))
        >>> [round(fit(kernel, rank).error, 3) for rank in (1, 4, 8)]
        [0.864, 0.525, 0.093]

    Source: Guo et al., Network Decoupling, 2018, https://arxiv.org/abs/1808.05517
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 4:
        raise ValueError(
            "kernel must have 4 axes: (kernel_height, kernel_width, channels, filters). "
            f"Received: kernel.shape={kernel.shape}"
        )
    if not np.isfinite(kernel).all():
        raise ValueError("kernel must be finite: some of its weights are not.")
    if rank < 1:
        raise ValueError(f"rank must be at least 1. Received: rank={rank}")
    kh, kw, channels, filters = kernel.shape
    rank = min(rank, full_rank(kernel.shape))
    slices = kernel.transpose(2, 0, 1, 3).reshape(channels, kh * kw, filters)
    left, values, right = np.linalg.svd(slices, full_matrices=False)
    taps, mixes = _balance(left[..., :rank], values[:, :rank, None] * right[:, :rank])
    shift = np.zeros(filters)
    if moments is None or not moments.count:
        error = svd_error = _relative(slices - taps @ mixes, slices, None)
    else:
        gram = moments.gram
        error = svd_error = _relative(slices - taps @ mixes, slices, gram)
        if rank < full_rank(kernel.shape) and gram.any():
            other = _fit_outputs(slices, rank, moments, gram, fit_bias, sweeps)
            if other[3] < error:
                taps, mixes, shift, error = other
    depthwise = taps.reshape(channels, kh, kw, rank).transpose(1, 2, 0, 3)
    pointwise = mixes.reshape(1, 1, channels * rank, filters)
    return Factors(np.ascontiguousarray(depthwise), pointwise, shift, error, svd_error)


def _relative(
    lost: np.ndarray, slices: np.ndarray, gram: np.ndarray | None, bias: np.ndarray | None = None
) -> float:
    """|lost| / |slices| in the metric of `gram`, less what the bias compensates."""
    whole, part = _energy(slices, gram), _energy(lost, gram)
    if bias is not None:
        part -= float(bias @ bias)
    return float(np.sqrt(max(part, 0.0) / whole)) if whole > 0 else 0.0


def _energy(slices: np.ndarray, gram: np.ndarray | None) -> float:
    flat = slices.reshape(-1, slices.shape[2])
    return float(np.vdot(flat, flat if gram is None else gram @ flat))


def _fit_outputs(
    slices: np.ndarray,
    rank: int,
    moments: Moments,
    gram: np.ndarray,
    fit_bias: bool,
    sweeps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(taps, mixes, bias, error) that are best on the moments' patches."""
    channels, size, filters = slices.shape
    mean = moments.mean
    # With a free bias only the error's variance counts: the bias takes up the mean.
    metric = gram - np.outer(mean, mean) if fit_bias else gram.copy()
    # The fewer the patches, the less reliable the moments off the diagonal.
    ridge = 1e-6 + 1e-2 * len(mean) / moments.count
    metric.flat[:: len(mean) + 1] += (
        ridge * max(np.trace(metric), np.trace(gram) * 1e-6) / len(mean)
    )
    blocks = metric.reshape(channels, size, channels, size)
    own = np.ascontiguousarray(blocks[range(channels), :, range(channels)])
    factor = np.linalg.cholesky(own)

    taps = np.zeros((channels, size, rank))
    mixes = np.zeros((channels, rank, filters))
    # With the slices as the start, a channel's first turn is its whitened SVD.
    lost, before = np.zeros_like(slices), np.inf
    for _ in range(sweeps):
        for c in range(channels):
            pull = metric[c * size : (c + 1) * size] @ lost.reshape(-1, filters)
            now = slices[c] - lost[c]
            target = factor[c].T @ now + np.linalg.solve(factor[c], pull)
            main = np.linalg.eigh(target @ target.T)[1][:, -rank:]
            taps[c] = np.linalg.solve(factor[c].T, main)
            mixes[c] = main.T @ target
            lost[c] = slices[c] - taps[c] @ mixes[c]
        after = _energy(lost, metric)
        if after >= (1 - _TOLERANCE) * before:
            break
        before = after

    mixes = _least_squares(metric, taps, slices)
    taps, mixes = _balance(taps, mixes)
    lost = slices - taps @ mixes
    bias = mean @ lost.reshape(-1, filters) if fit_bias else np.zeros(filters)
    return taps, mixes, bias, _relative(lost, slices, gram, bias)


def _balance(taps: np.ndarray, mixes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same products, of factors of equal norm, so that both train at the same pace."""
    long, wide = np.linalg.norm(taps, axis=1), np.linalg.norm(mixes, axis=2)
    scale = np.sqrt(np.maximum(wide, 1e-6 * long) / long)
    return taps * scale[:, None], mixes / scale[..., None]


def _least_squares(metric: np.ndarray, taps: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """The pointwise kernel that is best for these depthwise taps, over all channels at once."""
    channels, size, rank = taps.shape
    columns = len(metric)
    # The taps are a block-diagonal matrix; its zeros are not multiplied.
    seen = metric.reshape(columns, channels, size).transpose(1, 0, 2) @ taps
    seen = seen.transpose(1, 0, 2).reshape(channels, size, channels * rank)
    normal = (taps.transpose(0, 2, 1) @ seen).reshape(channels * rank, channels * rank)
    right = seen.reshape(columns, channels * rank).T @ slices.reshape(columns, -1)
    return np.linalg.solve(normal, right).reshape(channels, rank, -1)
