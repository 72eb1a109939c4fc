"""Two of torch's layers that its tracing exporter can't write: their ONNX form is given here, torch computes the rest.

Local response normalisation would become a padded 5-D average pool of squares, which nothing fuses and INT8 ruins;
adaptive pooling is refused unless the map is a multiple of what it becomes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Lrn(nn.LocalResponseNorm):
    """Krizhevsky et al. 2012, section 3.3: x / (k + alpha * sum of squares over `size` neighbouring channels) ** beta.

    torch and ONNX divide alpha by `size`; the paper doesn't, and neither does the argument here.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__(size, alpha * size, beta, k)

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            y: Tensor = _OnnxLrn.apply(x, self.size, self.alpha, self.beta, self.k)  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class _OnnxLrn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        return F.local_response_norm(x, size, alpha, beta, k)

    @staticmethod
    def symbolic(g: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        y = g.op("LRN", x, size_i=size, alpha_f=alpha, beta_f=beta, bias_f=k)
        y.setType(x.type())
        return y


class GridPool(nn.AdaptiveAvgPool2d):
    """(B, C, H, W) → (B, C, side, side), each place the average of its share of the map, whatever H and W are."""

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            height, width = (int(n) for n in x.shape[2:])
            y: Tensor = _OnnxPool.apply(x, height, width, self.side)  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class _OnnxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int, side: int) -> Tensor:
        return F.adaptive_avg_pool2d(x, side)

    @staticmethod
    def symbolic(g: Any, x: Any, height: int, width: int, side: int) -> Any:
        if height == width == side:
            return x
        if height % side == 0 and width % side == 0:
            step = [height // side, width // side]
            y = g.op("AveragePool", x, kernel_shape_i=step, strides_i=step)
        else:
            rows, columns = (g.op("Constant", value_t=share(n, side)) for n in (height, width))
            y = g.op("MatMul", g.op("Transpose", rows, perm_i=[1, 0]), g.op("MatMul", x, columns))
        batch, channels = x.type().sizes()[:2]
        y.setType(x.type().with_sizes([batch, channels, side, side]))
        return y


def share(length: int, places: int) -> Tensor:
    """(length, places): how much of each position goes into each place; adaptive pooling is two products with it."""
    return F.adaptive_avg_pool1d(torch.eye(length), places)
