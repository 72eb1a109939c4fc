"""What RoadNet learns from: SimOTA assignment and the three losses of YOLOX (arXiv:2107.08430, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 1.5  # a cell may answer for a box whose centre is within so many strides
CANDIDATES = 10  # SimOTA: the k of a box is the sum of its ten best IoUs


@dataclass(frozen=True)
class Target:
    """Truth of one picture, net px."""

    xyxy: Tensor  # (G, 4)
    label: Tensor  # (G,) int64
    ignore: Tensor  # (K, 4) regions where a detection is neither right nor wrong


@dataclass(frozen=True)
class Grid:
    """Cells of all levels, in the order of the network's outputs."""

    corner: Tensor  # (A, 2) net px
    stride: Tensor  # (A, 1) px

    @property
    def centre(self) -> Tensor:
        return self.corner + self.stride / 2

    @classmethod
    def of(cls, height: int, width: int, strides: tuple[int, ...]) -> Grid:
        corners, steps = [], []
        for stride in strides:
            y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
            corners.append(torch.stack([x.flatten(), y.flatten()], 1) * stride)
            steps.append(torch.full((x.numel(), 1), stride))
        return cls(torch.cat(corners).float(), torch.cat(steps).float())

    def boxes(self, raw: Tensor) -> Tensor:
        """(..., A, 4) raw (dx, dy, ln w, ln h) → xyxy in net px."""
        centre = self.corner + raw[..., :2] * self.stride
        half = raw[..., 2:].clamp(-8, 8).exp() * self.stride / 2
        return torch.cat([centre - half, centre + half], -1)


def detection_loss(raw: Tensor, obj: Tensor, cls: Tensor, targets: list[Target], grid: Grid) -> dict[str, Tensor]:
    """raw (B, A, 4), obj (B, A, 1), cls (B, A, C) logits → the losses by name, each a mean over assigned cells."""
    boxes = grid.boxes(raw)
    obj_target = torch.zeros_like(obj)
    obj_weight = torch.ones_like(obj)
    found, wanted, cls_found, cls_target = [], [], [], []
    for i, target in enumerate(targets):
        if len(target.ignore):
            obj_weight[i, inside(grid.centre, target.ignore).any(1)] = 0
        if not len(target.label):
            continue
        with torch.no_grad():
            cell, truth, overlap = simota(boxes[i], obj[i], cls[i], target, grid)
        obj_target[i, cell] = 1
        obj_weight[i, cell] = 1
        found.append(boxes[i, cell])
        wanted.append(target.xyxy[truth])
        cls_found.append(cls[i, cell])
        cls_target.append(F.one_hot(target.label[truth], cls.shape[2]) * overlap[:, None])
    count = max(1, sum(len(f) for f in found))
    losses = {"obj": (F.binary_cross_entropy_with_logits(obj, obj_target, reduction="none") * obj_weight).sum() / count}
    if found:
        losses["box"] = 5 * (1 - giou(torch.cat(found), torch.cat(wanted))).sum() / count
        losses["cls"] = (
            F.binary_cross_entropy_with_logits(torch.cat(cls_found), torch.cat(cls_target), reduction="sum") / count
        )
    return losses


def simota(boxes: Tensor, obj: Tensor, cls: Tensor, target: Target, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Which cell answers for which truth: (P,) cells, (P,) rows of the truth, (P,) IoU. Cost = class + 3·(-ln IoU)."""
    truth = target.xyxy
    in_box = inside(grid.centre, truth)
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    near = ((grid.centre[:, None] - middle).abs() < NEAR * grid.stride[:, None]).all(2)
    candidate = (in_box | near).any(1).nonzero()[:, 0]
    if not len(candidate):
        empty = candidate.new_zeros(0)
        return empty, empty, boxes.new_zeros(0)
    overlap = iou(boxes[candidate], truth)
    score = (obj[candidate].sigmoid() * cls[candidate].sigmoid()).sqrt().clamp(1e-6, 1 - 1e-6)
    background = -(1 - score).log()  # (N, C)
    label_cost = -score.log()[:, target.label] + background.sum(1, keepdim=True) - background[:, target.label]
    cost = label_cost - 3 * (overlap + 1e-8).log()
    cost += 1e5 * ~(in_box & near)[candidate]
    k = overlap.topk(min(CANDIDATES, len(candidate)), 0).values.sum(0).int().clamp(min=1)
    match = torch.zeros_like(cost, dtype=torch.bool)
    for column in range(len(truth)):
        match[cost[:, column].topk(int(k[column]), largest=False).indices, column] = True
    twice = match.sum(1) > 1
    if twice.any():
        match[twice] = F.one_hot(cost[twice].argmin(1), len(truth)).bool()
    cell, row = match.nonzero(as_tuple=True)
    return candidate[cell], row, overlap[cell, row]


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(A, 2) points, (G, 4) boxes → (A, G)."""
    return ((points[:, None] > boxes[:, :2]) & (points[:, None] < boxes[:, 2:])).all(2)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (G, 4) xyxy → (N, G)."""
    size = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp(min=0)
    overlap = size.prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return overlap / (area_a[:, None] + area_b - overlap + 1e-9)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (N, 4) xyxy → (N,) generalised IoU (Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1)."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
    return overlap / (union + 1e-9) - (hull - union) / (hull + 1e-9)
