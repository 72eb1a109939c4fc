"""The training loop, and how good a network is: one loop for classifiers and detectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.progress import bar, note
from edgecnn.recipe import DataSection, TrainSection
from edgecnn.scene import Detections, Letterbox, Truth
from edgecnn.vision import DecodeDetections, Preprocess
from edgecnn.zoo.loss import Grid, Target, detection_loss
from edgecnn.zoo.roadnet import RoadNet

if TYPE_CHECKING:
    from edgecnn.data import Dataset

WARMUP = 20  # steps
CLIP = 5.0  # largest norm of the gradient: a box that is far off must not undo an epoch


@dataclass(frozen=True)
class Batchable:
    """A data set laid into the network's input once, in memory."""

    x: Tensor  # (N, C, H, W)
    truth: list[Truth]  # frame px
    boxes: list[Letterbox]

    @classmethod
    def of(cls, spec: ModelSpec, data: Dataset, limit: int, label: str) -> Batchable:
        preprocess = Preprocess(spec)
        x = torch.empty(min(len(data), limit), *spec.input.shape[1:])
        truth, boxes = [], []
        with bar(label, len(x)) as advance:
            for i in range(len(x)):
                sample = data[i]
                tensor, box = preprocess(sample.bgr)
                x[i] = torch.from_numpy(tensor[0])
                truth.append(sample.truth)
                boxes.append(box)
                advance(1)
        return cls(x, truth, boxes)

    @classmethod
    def read(cls, spec: ModelSpec, section: DataSection, label: str) -> Batchable:
        """Raises ModelError where the data set's classes are not the network's."""
        from edgecnn.data import open_dataset

        data = open_dataset(section)
        if tuple(data.classes) != tuple(spec.classes):
            raise ModelError(
                f"data of kind '{section.kind}' has the classes {', '.join(data.classes)}",
                wanted=f"the model's: {', '.join(spec.classes)}",
                do="Set model.classes in the recipe to the data's",
            )
        return cls.of(spec, data, section.pictures, label)


def fit(net: nn.Module, spec: ModelSpec, section: TrainSection, guide: nn.Module | None = None) -> list[float]:
    """Train in place: SGD, momentum .9, weight decay, warm-up and cosine. Returns the mean loss of each epoch.

    With a `guide` (the network before slimming), its outputs are targets as well (Hinton et al. 2015,
    arXiv:1503.02531), and batch normalisation keeps its statistics: the pictures at hand for fine-tuning are seldom
    those that they were measured on. The same seed gives the same weights.
    """
    if not section.epochs:
        return []
    data = Batchable.read(spec, section.data, "pictures to train on")
    torch.manual_seed(section.seed)
    net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch types no such call
    if guide is not None:
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": section.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, section.lr, momentum=0.9, nesterov=True)
    batch = len(data.x) if section.batch == "all" else section.batch
    steps = math.ceil(len(data.x) / batch) * section.epochs
    losses, step = [], 0
    with bar("train", steps) as advance:
        for _ in range(section.epochs):
            total, count = 0.0, 0
            for rows in torch.split(torch.randperm(len(data.x)), batch):
                rate = section.lr * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = _loss(net, spec, data, rows, guide)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                optimizer.step()
                total, count, step = total + float(loss.detach()) * len(rows), count + len(rows), step + 1
                advance(1)
            losses.append(total / count)
            if not math.isfinite(losses[-1]):
                raise ModelError(f"training diverged in epoch {len(losses)}", do="Lower train.lr in the recipe")
            note(f"epoch {len(losses)} of {section.epochs}: loss {losses[-1]:.4f}")
    net.eval()
    return losses


def add_gradients(net: nn.Module, spec: ModelSpec, section: TrainSection) -> None:
    """Leave the gradient of the loss over the section's first pictures in the parameters."""
    batch = 16 if section.batch == "all" else section.batch
    some = section.data.model_copy(update={"pictures": min(section.data.pictures, 4 * batch)})
    data = Batchable.read(spec, some, "pictures to weigh channels on")
    torch.manual_seed(section.seed)
    net.eval().zero_grad()
    for rows in torch.split(torch.arange(len(data.x)), batch):
        _loss(net, spec, data, rows, None).backward()  # type: ignore[no-untyped-call]


def _loss(net: nn.Module, spec: ModelSpec, data: Batchable, rows: Tensor, guide: nn.Module | None) -> Tensor:
    x = data.x[rows].contiguous(memory_format=torch.channels_last)
    if spec.task == "classify":
        logits = net(x)
        loss = F.cross_entropy(logits, torch.tensor([int(data.truth[int(i)].label[0]) for i in rows]))
        if guide is not None:
            with torch.no_grad():
                wanted = guide(x).softmax(1)
            loss = loss + F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean")
        return loss
    assert isinstance(net, RoadNet)
    mirrored = bool(torch.rand(()) < 0.5)
    if mirrored:
        x = x.flip(3)
    targets = [_target(data.truth[int(i)], data.boxes[int(i)], spec.width if mirrored else None) for i in rows]
    outputs = net.logits(net.features(x))
    loss = torch.stack(list(detection_loss(*outputs, targets, Grid.of(spec.height, spec.width, spec.strides)).values()))
    total = loss.sum()
    if guide is not None:
        assert isinstance(guide, RoadNet)
        with torch.no_grad():
            box, obj, cls = guide.logits(guide.features(x))
            weight = obj.sigmoid() * cls.sigmoid().amax(2, keepdim=True)  # what the guide is sure of counts
        soft = F.binary_cross_entropy_with_logits(outputs[1], obj.sigmoid(), reduction="sum")
        total = total + soft / (40 * len(rows))
        total = total + (weight * (outputs[0] - box).abs()).sum() / (weight.sum() * 4 + 1)
        total = total + (weight * (outputs[2].sigmoid() - cls.sigmoid()).square()).sum() / (weight.sum() + 1)
    return total


def _target(truth: Truth, box: Letterbox, mirror: int | None) -> Target:
    """Truth in net px; mirrored in a picture of so many px if given."""
    xyxy = torch.from_numpy(box.to_net(truth.xyxy))
    if mirror is not None:
        xyxy = torch.stack([mirror - xyxy[:, 2], xyxy[:, 1], mirror - xyxy[:, 0], xyxy[:, 3]], 1)
    ignore = torch.from_numpy(truth.ignore)
    return Target(xyxy[~ignore], torch.from_numpy(truth.label)[~ignore], xyxy[ignore])


@torch.no_grad()
def accuracy(net: nn.Module, spec: ModelSpec, data: Batchable) -> float:
    """Top-1 of a classifier, AP50 (COCO's rules) of a detector, in [0, 1]."""
    from edgecnn.metrics.detection import evaluate_detections

    net.eval()
    outputs = [net(x[None]) for x in data.x]
    if spec.task == "classify":
        right = [int(logits.argmax()) == int(t.label[0]) for logits, t in zip(outputs, data.truth, strict=True)]
        return sum(right) / len(right)
    decode = DecodeDetections(spec, score=0.01)
    found: list[Detections] = [
        decode({"boxes": boxes.numpy(), "scores": scores.numpy()}, box)
        for (boxes, scores), box in zip(outputs, data.boxes, strict=True)
    ]
    return evaluate_detections(zip(found, data.truth, strict=True), spec.classes)["AP50"]
