"""The benchmark's workloads: layers of published networks, and the modes to run them in.

Networks have the sizes that they were published with. Padding "same" is TensorFlow's, in which all
of them but ConvNeXt, RepLKNet and Conv-TasNet were written; these have strides of 1, where all
libraries agree. Operations between the depthwise and the 1x1 convolution (normalization,
activation, squeeze-and-excitation) are left out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sepconv.geometry import conv_spec, resolve

__all__ = ["MODES", "QUICK", "WORKLOADS", "Case", "Mode", "Workload", "select"]


@dataclass(frozen=True)
class Workload:
    """A depthwise layer, and the 1x1 convolution that follows it.

    Attributes:
        name: of the network and the block.
        source: the publication.
        height: of the input, in pixels.
        width: of the input.
        channels: of the input.
        kernel: (height, width).
        strides: (height, width).
        padding: "same" or "valid".
        dilation: (height, width).
        depth_multiplier: output channels of the depthwise step for each input channel.
        filters: output channels of the 1x1 convolution; None where there is none.
        batches: the batch sizes to measure.
    """

    name: str
    source: str
    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str = "same"
    dilation: tuple[int, int] = (1, 1)
    depth_multiplier: int = 1
    filters: int | None = None
    batches: tuple[int, ...] = (1, 8)

    @property
    def middle(self) -> int:
        """Channels between the two convolutions."""
        return self.channels * self.depth_multiplier

    def x_shape(self, batch: int) -> tuple[int, int, int, int]:
        """The shape of the input: (batch, height, width, channels)."""
        return (batch, self.height, self.width, self.channels)

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """The shape of the depthwise kernel: (height, width, channels, depth_multiplier)."""
        return (*self.kernel, self.channels, self.depth_multiplier)

    def _geometry(self) -> Any:
        spec = conv_spec(self.strides, self.padding, self.dilation, "channels_last")
        return resolve(spec, self.x_shape(1), self.kernel_shape)

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        return self._geometry().output_shape(self.middle)[1:3]

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((top, bottom), (left, right)): rows and columns of zeros around the input."""
        if self.padding == "valid":
            return ((0, 0), (0, 0))
        (top, bottom), (left, right) = self._geometry().pads
        return ((max(0, top), max(0, bottom)), (max(0, left), max(0, right)))

    def describe(self) -> str:
        """The shape in a few words, such as ``112x112x32 -> 64, 3x3``."""
        text = f"{self.height}x{self.width}x{self.channels}"
        if self.depth_multiplier > 1:
            text += f"x{self.depth_multiplier}"
        if self.filters is not None:
            text += f" -> {self.filters}"
        text += f", {self.kernel[0]}x{self.kernel[1]}"
        if self.strides != (1, 1):
            text += f" stride {self.strides[0]}"
        if self.dilation != (1, 1):
            text += f" dilation {max(self.dilation)}"
        return text + ("" if self.padding == "same" else f" {self.padding}")


class Mode(NamedTuple):
    """A way to run a workload.

    Attributes:
        operation: "depthwise" (alone), "separable" or "pointwise" (the 1x1 convolution alone).
        training: whether all gradients are computed, too.
        epilogue: whether bias and relu6 follow.
    """

    operation: str
    training: bool
    epilogue: bool


#: Name on the command line -> what it is.
MODES = {
    f"{operation}{'-training' if training else ''}{'+relu6' if epilogue else ''}": Mode(
        operation, training, epilogue
    )
    for operation, epilogues in (
        ("separable", (False, True)),
        ("depthwise", (False, True)),
        ("pointwise", (False,)),
    )
    for training in (False, True)
    for epilogue in epilogues
}


class Case(NamedTuple):
    """One thing to measure: a workload at a batch size in a mode (a key of `MODES`).

    All arrays, inputs and results, are of the dtype; in int8, which is what is between them, they
    are float32.
    """

    workload: Workload
    batch: int
    mode: str
    dtype: str = "float32"

    @property
    def operation(self) -> str:
        """The attribute of the mode."""
        return MODES[self.mode].operation

    @property
    def training(self) -> bool:
        """The attribute of the mode."""
        return MODES[self.mode].training

    @property
    def epilogue(self) -> bool:
        """The attribute of the mode."""
        return MODES[self.mode].epilogue

    @property
    def output_channels(self) -> int:
        """The channels of the mode's output."""
        if self.operation == "depthwise":
            return self.workload.middle
        filters = self.workload.filters
        assert filters is not None, f"{self.workload.name} has no 1x1 convolution"
        return filters

    def describe(self) -> str:
        """The shape in this mode, in a few words."""
        w = self.workload
        if self.operation == "pointwise":
            return f"{'x'.join(map(str, w.output_size))}x{w.middle} -> {w.filters}"
        return w.describe() if self.operation == "separable" else _alone(w).describe()


def _alone(workload: Workload) -> Workload:
    values = vars(workload) | {"filters": None}
    return Workload(**values)


def _square(
    network: str, source: str, *rows: tuple[str, int, int, int, int, int | None]
) -> list[Workload]:
    """Rows (block, size, channels, kernel, stride, filters) of a network of square pictures."""
    return [
        Workload(f"{network}/{block}", source, size, size, channels, (k, k), (s, s), filters=f)
        for block, size, channels, k, s, f in rows
    ]


_ATROUS = "Chen et al. 2018, arXiv:1802.02611"

WORKLOADS: tuple[Workload, ...] = (
    *_square(
        "mobilenet_v1",
        "Howard et al. 2017, arXiv:1704.04861, table 1",
        ("1", 112, 32, 3, 1, 64),
        ("2", 112, 64, 3, 2, 128),
        ("3", 56, 128, 3, 1, 128),
        ("4", 56, 128, 3, 2, 256),
        ("5", 28, 256, 3, 1, 256),
        ("6", 28, 256, 3, 2, 512),
        ("7", 14, 512, 3, 1, 512),
        ("8", 14, 512, 3, 1, 512),
        ("9", 14, 512, 3, 1, 512),
        ("10", 14, 512, 3, 1, 512),
        ("11", 14, 512, 3, 1, 512),
        ("12", 14, 512, 3, 2, 1024),
        ("13", 7, 1024, 3, 1, 1024),
    ),
    *_square(
        "xception",
        "Chollet 2017, arXiv:1610.02357, figure 5, pictures of 299x299",
        ("entry-2a", 147, 64, 3, 1, 128),
        ("entry-2b", 147, 128, 3, 1, 128),
        ("entry-3a", 74, 128, 3, 1, 256),
        ("entry-3b", 74, 256, 3, 1, 256),
        ("entry-4a", 37, 256, 3, 1, 728),
        ("entry-4b", 37, 728, 3, 1, 728),
        ("middle", 19, 728, 3, 1, 728),
        ("exit-13b", 19, 728, 3, 1, 1024),
        ("exit-14a", 10, 1024, 3, 1, 1536),
        ("exit-14b", 10, 1536, 3, 1, 2048),
    ),
    *_square(
        "efficientnet_b0",
        "Tan and Le 2019, arXiv:1905.11946, table 1",
        ("1a", 112, 32, 3, 1, 16),
        ("2a", 112, 96, 3, 2, 24),
        ("2b", 56, 144, 3, 1, 24),
        ("3a", 56, 144, 5, 2, 40),
        ("3b", 28, 240, 5, 1, 40),
        ("4a", 28, 240, 3, 2, 80),
        ("4b", 14, 480, 3, 1, 80),
        ("5a", 14, 480, 5, 1, 112),
        ("5b", 14, 672, 5, 1, 112),
        ("6a", 14, 672, 5, 2, 192),
        ("6b", 7, 1152, 5, 1, 192),
        ("7a", 7, 1152, 3, 1, 320),
    ),
    *_square(
        "mobilenet_v2",
        "Sandler et al. 2018, arXiv:1801.04381, table 2",
        ("1", 112, 32, 3, 1, 16),
        ("2", 112, 96, 3, 2, 24),
        ("3", 56, 144, 3, 1, 24),
        ("4", 56, 144, 3, 2, 32),
        ("5", 28, 192, 3, 1, 32),
        ("7", 28, 192, 3, 2, 64),
        ("8", 14, 384, 3, 1, 64),
        ("11", 14, 384, 3, 1, 96),
        ("12", 14, 576, 3, 1, 96),
        ("14", 14, 576, 3, 2, 160),
        ("15", 7, 960, 3, 1, 160),
        ("17", 7, 960, 3, 1, 320),
    ),
    *_square(
        "mobilenet_v3_large",
        "Howard et al. 2019, arXiv:1905.02244, table 1",
        ("1", 112, 16, 3, 1, 16),
        ("2", 112, 64, 3, 2, 24),
        ("3", 56, 72, 3, 1, 24),
        ("4", 56, 72, 5, 2, 40),
        ("5", 28, 120, 5, 1, 40),
        ("7", 28, 240, 3, 2, 80),
        ("8", 14, 200, 3, 1, 80),
        ("9", 14, 184, 3, 1, 80),
        ("11", 14, 480, 3, 1, 112),
        ("12", 14, 672, 3, 1, 112),
        ("13", 14, 672, 5, 2, 160),
        ("14", 7, 960, 5, 1, 160),
    ),
    *_square(
        "mobilenet_v3_small",
        "Howard et al. 2019, arXiv:1905.02244, table 2",
        ("1", 112, 16, 3, 2, 16),
        ("2", 56, 72, 3, 2, 24),
        ("3", 28, 88, 3, 1, 24),
        ("4", 28, 96, 5, 2, 40),
        ("5", 14, 240, 5, 1, 40),
        ("7", 14, 120, 5, 1, 48),
        ("8", 14, 144, 5, 1, 48),
        ("9", 14, 288, 5, 2, 96),
        ("10", 7, 576, 5, 1, 96),
    ),
    Workload(
        "eegnet/spatial",
        "Lawhern et al. 2018, arXiv:1611.08024, table 2",
        64,
        256,
        8,
        (64, 1),
        padding="valid",
        depth_multiplier=2,
        batches=(1, 32),
    ),
    Workload(
        "eegnet/separable",
        "Lawhern et al. 2018, arXiv:1611.08024, table 2",
        1,
        64,
        16,
        (1, 16),
        filters=16,
        batches=(1, 32),
    ),
    *_square(
        "convnext_tiny",
        "Liu et al. 2022, arXiv:2201.03545, figure 4",
        ("1", 56, 96, 7, 1, 384),
        ("2", 28, 192, 7, 1, 768),
        ("3", 14, 384, 7, 1, 1536),
        ("4", 7, 768, 7, 1, 3072),
    ),
    *_square(
        "replknet_31b",
        "Ding et al. 2022, arXiv:2203.06717, section 4",
        ("1", 56, 128, 31, 1, 128),
        ("2", 28, 256, 29, 1, 256),
        ("3", 14, 512, 27, 1, 512),
        ("4", 7, 1024, 13, 1, 1024),
    ),
    # On MobileNetV2 with output stride 8, blocks 12 and 15; and the pyramid at output stride 16.
    *(
        Workload(
            f"deeplab_v3+/rate-{rate}",
            f"{_ATROUS}, pictures of 513x513",
            size,
            size,
            channels,
            (3, 3),
            dilation=(rate, rate),
            filters=filters,
        )
        for rate, size, channels, filters in (
            (2, 65, 576, 96),
            (4, 65, 960, 160),
            (6, 33, 2048, 256),
            (12, 33, 2048, 256),
            (18, 33, 2048, 256),
        )
    ),
    # Four seconds at 8 kHz in steps of 8 samples, as pictures of one row.
    *(
        Workload(
            f"conv_tasnet/dilation-{2**block}",
            "Luo and Mesgarani 2019, arXiv:1809.07454, table 1",
            1,
            3999,
            512,
            (1, 3),
            dilation=(1, 2**block),
            filters=128,
        )
        for block in range(8)
    ),
)

#: The workloads of `--quick`: one of each kind, by importance.
QUICK = (
    "mobilenet_v1/3",
    "efficientnet_b0/3b",
    "xception/middle",
    "eegnet/separable",
    "convnext_tiny/2",
    "deeplab_v3+/rate-2",
    "mobilenet_v1/2",
    "eegnet/spatial",
)


def _shape(case: Case) -> tuple[Any, ...]:
    """The properties of a case except its name: cases that share them are the same."""
    w = case.workload
    if case.operation == "pointwise":
        return (case.mode, case.batch, w.output_size, w.middle, w.filters)
    w = w if case.operation == "separable" else _alone(w)
    values = vars(w) | {"name": "", "source": "", "batches": ()}
    return (case.mode, case.batch, *values.values())


def _matches(name: str, patterns: str | None) -> bool:
    """Whether a name fits one of the patterns, or begins with it; None fits all."""
    if patterns is None:
        return True
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    return any(fnmatch.fnmatchcase(name, p) or name.startswith(p + "/") for p in wanted)


def select(
    workloads: str | None = None,
    modes: str | None = None,
    batches: tuple[int, ...] | None = None,
    quick: bool = False,
    dtype: str = "float32",
) -> list[Case]:
    """The cases to measure; of those with the same shape, the first alone.

    Args:
        workloads: patterns of names, separated by commas; None for all.
        modes: patterns of `MODES`' keys; None for all, or the four main ones if `quick`.
        batches: batch sizes; None for each workload's own, or the smallest of them if `quick`.
        quick: takes `QUICK` where `workloads` is None.
        dtype: of every case, a key of `sepconv.arrays.DTYPES`; or "int8", for inference alone.

    Example:
        >>> [case.batch for case in select("mobilenet_v1/7", "separable")]
        [1, 8]
        >>> len(select("mobilenet_v1", "separable", (1,)))  # blocks 7 to 11 are one
        9
    """
    chosen = [w for w in WORKLOADS if _matches(w.name, workloads)]
    if quick and workloads is None:
        chosen = sorted((w for w in chosen if w.name in QUICK), key=lambda w: QUICK.index(w.name))
    if quick and modes is None:
        modes = "separable,separable-training,depthwise,pointwise"
    found: dict[tuple[Any, ...], Case] = {}
    for case in _cases(chosen, modes, batches, quick):
        if dtype == "int8" and case.training:
            continue
        found.setdefault(_shape(case), case._replace(dtype=dtype))
    return list(found.values())


def _cases(
    workloads: list[Workload], modes: str | None, batches: tuple[int, ...] | None, quick: bool
) -> Iterator[Case]:
    for workload in workloads:
        for mode in MODES:
            if not _matches(mode, modes):
                continue
            if MODES[mode].operation != "depthwise" and workload.filters is None:
                continue
            for batch in batches or workload.batches[: 1 if quick else None]:
                yield Case(workload, batch, mode)
