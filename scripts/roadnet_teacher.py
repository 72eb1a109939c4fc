"""YOLOX-Nano (Apache-2.0) in torch: RoadNet's first weights, and the teacher that labels unlabelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edgecnn.zoo.roadnet import RoadNet

# COCO-80 rows that become car, truck/bus, two-wheeler, person
COCO_ROWS = ((2,), (5, 7), (1, 3), (0,))


def teacher(path: Path) -> RoadNet:
    """The network of an ONNX file of YOLOX-Nano, convolution by convolution in the order of the graph."""
    model = onnx.load(path)
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    source = [(tensors[n.input[1]], tensors[n.input[2]]) for n in model.graph.node if n.op_type == "Conv"]
    net = RoadNet(80).eval()
    swap(net, nn.ReLU, nn.SiLU)
    for i, (layer, (weight, bias)) in enumerate(zip(in_order(net), source, strict=True)):
        if i == 0:
            # Focus lays the picture out as top-left, bottom-left, top-right, bottom-right: a 6x6 kernel in slices
            whole = torch.zeros(weight.shape[0], 3, 6, 6)
            for part, (dy, dx) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
                whole[:, :, dy::2, dx::2] = weight[:, part * 3 : part * 3 + 3]
            weight = whole
        layer.weight.data = weight
        layer.bias = nn.Parameter(bias)
    for block in list(net.modules()):
        if isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], nn.BatchNorm2d):
            block[1] = nn.Identity()
    return net


def student(source: RoadNet) -> RoadNet:
    """RoadNet of four classes that starts where the teacher stands; less 128, so the bias of its stem moves."""
    net = RoadNet(4)
    swap(net, nn.ReLU, nn.SiLU)
    for a, b in zip(in_order(net), in_order(source), strict=True):
        weight, bias = b.weight.data, b.bias.data
        if a.weight.shape != weight.shape:  # class layers: the best of the rows that merge, here their mean
            weight = torch.stack([weight[list(rows)].mean(0) for rows in COCO_ROWS])
            bias = torch.stack([bias[list(rows)].mean(0) for rows in COCO_ROWS])
        a.weight.data, a.bias = weight.clone(), nn.Parameter(bias.clone())
    stem = in_order(net)[0]
    stem.bias.data += 128 * stem.weight.data.sum((1, 2, 3))
    for block in list(net.modules()):
        if isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], nn.BatchNorm2d):
            block[1] = nn.Identity()
    return net


@torch.no_grad()
def reconstruct(net: RoadNet, source: RoadNet, x: Tensor) -> None:
    """Make up for ReLU in place of SiLU, layer by layer, by least squares.

    Each convolution of `net` is solved for what the same layer of `source` answers, given what the solved layers before
    it hand on (He et al. 2017, arXiv:1707.06168, section 3.1, prunes so). One pass over `x` (B, 3, H, W).
    """
    wanted: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, y, k=k: wanted.__setitem__(k, y))
        for k, layer in enumerate(in_order(source))
    ]
    source.eval()(x)
    for hook in hooks:
        hook.remove()

    def solve(k: int) -> Callable[[nn.Conv2d, tuple[Tensor], Tensor], Tensor]:
        def hook(layer: nn.Conv2d, inputs: tuple[Tensor], _y: Tensor) -> Tensor:
            if k:  # the first layer sees the picture itself, which is the same for both
                least_squares(layer, inputs[0], wanted.pop(k))
            return functional.conv2d(
                inputs[0], layer.weight, layer.bias, layer.stride, layer.padding, groups=layer.groups
            )

        return hook

    hooks = [layer.register_forward_hook(solve(k)) for k, layer in enumerate(in_order(net))]
    net.eval()(x)
    for hook in hooks:
        hook.remove()


ROWS = 40_000  # equations of a layer, at most
RIDGE = 1e-3  # pull towards the old weights, relative to the inputs' mean power


def least_squares(layer: nn.Conv2d, x: Tensor, y: Tensor) -> None:
    """Weights and bias of a pointwise or depthwise layer that take `x` nearest to `y`."""
    if layer.groups == 1:
        inputs, answers = (
            x.permute(0, 2, 3, 1).reshape(1, -1, x.shape[1]),
            y.permute(0, 2, 3, 1).reshape(1, -1, y.shape[1]),
        )
        old = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1).T[None]
    else:
        channels = x.shape[1]
        taps = functional.unfold(x.reshape(-1, 1, *x.shape[2:]), 3, padding=1, stride=layer.stride)
        inputs = taps.reshape(len(x), channels, 9, -1).permute(1, 0, 3, 2).reshape(channels, -1, 9)
        answers = y.permute(1, 0, 2, 3).reshape(channels, -1, 1)
        old = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1)[:, :, None]
    some = torch.randperm(inputs.shape[1])[:ROWS]
    inputs, answers = inputs[:, some], answers[:, some].double()
    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :, :1])], 2).double()
    gram = inputs.transpose(1, 2) @ inputs
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(gram.shape[1])
    ridge[:, -1, -1] = 0
    ridge = ridge + 1e-6 * torch.eye(gram.shape[1])
    best = torch.linalg.solve(gram + ridge, inputs.transpose(1, 2) @ answers + ridge @ old.double()).float()
    rows = best[0].T if layer.groups == 1 else best[:, :, 0]
    layer.weight.copy_(rows[:, :-1].reshape(layer.weight.shape))
    layer.bias.copy_(rows[:, -1])


@torch.no_grad()
def with_batchnorm(folded: RoadNet, x: Tensor) -> RoadNet:
    """The shipped form: batch normalisation with the statistics of `x` (B, 3, H, W) that, at rest, does nothing but add
    the folded bias. So fine-tuning in training mode starts from the same function."""
    blocks = [b for b in folded.modules() if isinstance(b, nn.Sequential) and isinstance(b[0], nn.Conv2d)]
    stats: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def listen(layer: nn.Module, _inputs: object, y: Tensor) -> None:
        stats[layer] = y.mean((0, 2, 3)), y.var((0, 2, 3))

    hooks = [block[0].register_forward_hook(listen) for block in blocks]
    folded.eval()(x)
    for hook in hooks:
        hook.remove()

    net = RoadNet(4).eval()
    twins = [b for b in net.modules() if isinstance(b, nn.Sequential) and isinstance(b[0], nn.Conv2d)]
    for block, twin in zip(blocks, twins, strict=True):
        layer, norm = block[0], twin[1]
        mean, variance = stats[layer]
        twin[0].weight.copy_(layer.weight)
        norm.running_mean.copy_(mean - layer.bias)  # the twin's convolution has no bias
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
    for a, b in zip(net.heads, folded.heads, strict=True):
        for name in ("cls", "box", "obj"):
            getattr(a, name).load_state_dict(getattr(b, name).state_dict())
    return net


def swap(net: nn.Module, old: type, new: type, **kwargs: object) -> None:
    for name, child in net.named_children():
        if isinstance(child, old):
            setattr(net, name, new(**kwargs))
        else:
            swap(child, old, new, **kwargs)


def in_order(net: RoadNet) -> list[nn.Conv2d]:
    """Convolutions in the order in which a picture meets them."""
    order: list[nn.Conv2d] = []
    hooks = [m.register_forward_hook(lambda m, *_: order.append(m)) for m in net.modules() if isinstance(m, nn.Conv2d)]
    training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 64, 64))
    net.train(training)
    for hook in hooks:
        hook.remove()
    return order
