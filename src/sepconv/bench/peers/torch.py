"""PyTorch: eager in both memory formats, and compiled with frozen weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sepconv.bench.cases import Arrays
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.workloads import Case, Workload

__all__ = ["Torch", "as_numpy"]


def _cropping_pads(workload: Workload) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Equal padding on both sides that contains the workload's, and where its output lies then.

    PyTorch's convolution pads both sides alike. Elsewhere one may pad by hand before it, or pad
    more and take a view of the output, which writes less.
    """
    pads: list[int] = []
    slices: list[slice] = []
    for (before, after), stride, size in zip(
        workload.pads, workload.strides, workload.output_size, strict=True
    ):
        pad = max(before, after)
        pad += (before - pad) % stride
        start = (pad - before) // stride
        pads.append(pad)
        slices.append(slice(start, start + size))
    return tuple(pads), tuple(slices)


class Torch(Peer):
    """PyTorch on oneDNN and its own kernels."""

    title = "PyTorch"
    modules = ("torch",)
    distribution = "torch"
    install = "torch"

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """Memory formats times ways to pad; and the compiler, for inference, if `thorough`."""
        if thorough:
            import torch

            torch.compiler.reset()  # it gives up on a function compiled for many shapes
        if case.operation == "pointwise":
            return {
                "matrix product": lambda: _matrix_product(case, inputs),
                "1x1 convolution, channels_last": lambda: _prepare(case, inputs, True, "equal"),
                "1x1 convolution, contiguous": lambda: _prepare(case, inputs, False, "equal"),
            }
        equal = all(before == after for before, after in case.workload.pads)
        found: dict[str, Build] = {}
        for last in (True, False):
            for way in ("equal",) if equal else ("crop", "pad"):
                name = "channels_last" if last else "contiguous"
                name += {"equal": "", "crop": ", cropped", "pad": ", padded by hand"}[way]
                found[name] = partial(_prepare, case, inputs, last, way)
                if thorough and last and not case.training:
                    found[f"{name}, compiled"] = partial(
                        _prepare, case, inputs, True, way, compiled=True
                    )
        return found


def _module(case: Case, inputs: Arrays, channels_last: bool, way: str) -> Any:
    """The convolution as a module whose parameters are the weights."""
    import torch
    from torch.nn import functional

    w = case.workload
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    pads, crop = _cropping_pads(w)
    (top, bottom), (left, right) = w.pads

    def parameter(array: np.ndarray) -> Any:
        tensor = _tensor(case, np.ascontiguousarray(array))
        return torch.nn.Parameter(tensor.contiguous(memory_format=memory_format))

    class Convolution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = self.pointwise = self.bias = None
            if "depthwise_kernel" in inputs:
                kernel = inputs["depthwise_kernel"]
                flat = kernel.reshape(*w.kernel, 1, w.middle).transpose(3, 2, 0, 1)
                self.depthwise = parameter(flat)
            if "pointwise_kernel" in inputs:
                self.pointwise = parameter(inputs["pointwise_kernel"].T[:, :, None, None])
            if "bias" in inputs:
                self.bias = torch.nn.Parameter(_tensor(case, inputs["bias"]))

        def forward(self, x: Any) -> Any:
            if self.depthwise is not None:
                if way == "pad":
                    x = functional.pad(x, (left, right, top, bottom))
                x = functional.conv2d(
                    x,
                    self.depthwise,
                    self.bias if self.pointwise is None else None,
                    stride=w.strides,
                    padding=0 if way == "pad" else pads,
                    dilation=w.dilation,
                    groups=w.channels,
                )
            if self.pointwise is not None:
                x = functional.conv2d(x, self.pointwise, self.bias)
            if way == "crop":
                x = x[:, :, crop[0], crop[1]]
            return functional.relu6(x) if case.epilogue else x

    return Convolution().eval()


def _tensor(case: Case, array: np.ndarray) -> Any:
    """An array as a tensor of the case's dtype."""
    import torch

    return torch.from_numpy(array).to(getattr(torch, case.dtype))


def _image(case: Case, array: np.ndarray, channels_last: bool) -> Any:
    """(N, H, W, C) as PyTorch's (N, C, H, W) in the memory format wanted."""
    tensor = _tensor(case, array).permute(0, 3, 1, 2)
    return tensor if channels_last else tensor.contiguous()


def as_numpy(tensor: Any) -> np.ndarray:
    """A tensor's numbers; NumPy has no bfloat16 of its own, so these become float32."""
    import torch

    found = tensor.detach()
    return (found.float() if found.dtype == torch.bfloat16 else found).numpy()


def _numpy(tensor: Any) -> np.ndarray:
    return as_numpy(tensor).transpose(0, 2, 3, 1)


def _prepare(
    case: Case, inputs: Arrays, channels_last: bool, way: str, compiled: bool = False
) -> BuiltCase:
    import torch

    module = _module(case, inputs, channels_last, way)
    x = _image(case, inputs["x"], channels_last)
    if case.training:
        return _training(module, x, _image(case, inputs["dy"], channels_last))
    if compiled:
        from torch._inductor import config

        config.freezing = True  # weights become constants, packed and fused with oneDNN's help
        module = torch.compile(module)

    def run() -> Any:
        with torch.inference_mode():
            return module(x)

    return BuiltCase(run, lambda y: {"y": _numpy(y)})


def _training(module: Any, x: Any, dy: Any) -> BuiltCase:
    import torch

    x.requires_grad_()
    parameters = dict(module.named_parameters())
    wanted = [x, *parameters.values()]

    def run() -> Any:
        y = module(x)
        return y, torch.autograd.grad(y, wanted, dy)

    def outputs(result: Any) -> Arrays:
        y, (dx, *grads) = result
        found = {"y": _numpy(y), "dx": _numpy(dx)}
        for name, grad in zip(parameters, grads, strict=True):
            if name == "depthwise":
                kernel = as_numpy(grad).transpose(2, 3, 1, 0)
                found["ddepthwise_kernel"] = kernel.reshape(*kernel.shape[:2], x.shape[1], -1)
            elif name == "pointwise":
                found["dpointwise_kernel"] = as_numpy(grad)[:, :, 0, 0].T
            else:
                found["dbias"] = as_numpy(grad)
        return found

    return BuiltCase(run, outputs)


def _matrix_product(case: Case, inputs: Arrays) -> BuiltCase:
    import torch

    shape = (*inputs["x"].shape[:3], case.workload.filters)
    x = _tensor(case, inputs["x"]).reshape(-1, case.workload.middle)
    weights = _tensor(case, inputs["pointwise_kernel"])
    dy = _tensor(case, inputs["dy"]).reshape(-1, shape[3]) if case.training else None

    def run() -> Any:
        if dy is None:
            return (torch.mm(x, weights),)
        return torch.mm(x, weights), torch.mm(dy, weights.t()), torch.mm(x.t(), dy)

    def outputs(result: Any) -> Arrays:
        y, *grads = map(as_numpy, result)
        found = {"y": y.reshape(shape)}
        if grads:
            found |= {"dx": grads[0].reshape(inputs["x"].shape), "dpointwise_kernel": grads[1]}
        return found

    return BuiltCase(run, outputs)
