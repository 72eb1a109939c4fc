"""How good a network is on a data set: one figure."""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.bundle import ModelSpec
from edgecnn.scene import Detections
from edgecnn.vision import DecodeDetections
from edgecnn.zoo.batches import Batchable

TOGETHER = 64  # pictures that a classifier sees at once


def figure_name(spec: ModelSpec) -> str:
    return "top-1" if spec.task == "classify" else "AP50"


@torch.no_grad()
def accuracy(net: nn.Module, spec: ModelSpec, data: Batchable) -> float:
    """Top-1 of a classifier, AP50 (COCO's rules) of a detector, in [0, 1]. Leaves the network in evaluation mode."""
    from edgecnn.metrics.detection import evaluate_detections

    net.eval()
    if spec.task == "classify":
        parts = [net(data.normalised(pictures)).argmax(1) for pictures in torch.split(data.pictures, TOGETHER)]
        return float((torch.cat(parts) == data.labels).double().mean())
    decode = DecodeDetections(spec, score=0.01)
    found: list[Detections] = []
    for picture, box in zip(data.pictures, data.boxes, strict=True):
        boxes, scores = net(data.normalised(picture[None]))
        found.append(decode({"boxes": boxes.numpy(), "scores": scores.numpy()}, box))
    return evaluate_detections(zip(found, data.truth, strict=True), spec.classes)["AP50"]
