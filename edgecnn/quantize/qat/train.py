"""The training itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from edgecnn.bundle import ModelSpec
from edgecnn.data import Dataset
from edgecnn.errors import InputError, ModelError
from edgecnn.progress import bar, note, tracked
from edgecnn.quantize.correct import decibel
from edgecnn.quantize.insert import Plan
from edgecnn.quantize.qat import Tuned
from edgecnn.quantize.qat.loss import TINY, distance
from edgecnn.quantize.qat.network import Form, Network
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import QatSection
from edgecnn.vision import Preprocess

HELD = 4  # at most every so many-th picture is held out to judge epochs on,
MOST_HELD = 64  # and about so many at most
WARMUP = 20  # steps in which the rate rises to the recipe's
AGREE = 1e-3  # largest difference of torch from onnxruntime, relative to the output's range
LEAST = 8  # pictures to train on


@dataclass(frozen=True)
class Trainer:
    """Tunes the network of one spec on pictures, as the recipe's section says."""

    spec: ModelSpec
    section: QatSection
    data: Dataset

    def __call__(self, model: ModelProto, start: ModelProto, plan: Plan, scale: Mapping[str, float]) -> Tuned:
        """On one machine the same seed gives the same weights to the bit.

        Raises InputError for too few pictures, ModelError where an operator is unknown, torch and onnxruntime disagree,
        or training diverges.
        """
        teacher, student = Network(model), Network(start)
        pictures = self.pictures()
        agree(teacher, self.normalised(pictures[:2]))
        student.quantise(plan, scale)
        every = max(HELD, len(pictures) // MOST_HELD)
        held = torch.arange(0, len(pictures), every)
        rows = torch.tensor([i for i in range(len(pictures)) if i % every])
        trained = [*student.weights.values(), *student.growth.values()]
        forms: tuple[Form, ...] = ("tensorrt", "cpu")
        marks = [self.judge(teacher, student, pictures[held], forms)]
        best = [tensor.clone() for tensor in trained]
        for epoch in self.epochs(teacher, student, trained, pictures[rows], forms):
            marks.append(self.judge(teacher, student, pictures[held], forms))
            if not math.isfinite(sum(marks[-1])):
                raise ModelError(f"training diverged in epoch {epoch}", do="Lower quantize.qat.lr in the recipe")
            better = min(marks[-1]) > max(map(min, marks[:-1]))
            if better:
                best = [tensor.detach().clone() for tensor in trained]
            told = ", ".join(f"{form} {mark:.2f} dB" for form, mark in zip(forms, marks[-1], strict=True))
            note(f"qat epoch {epoch} of {self.section.epochs}: {told}{', the best so far' if better else ''}")
        with torch.no_grad():
            for tensor, value in zip(trained, best, strict=True):
                tensor.copy_(value)
        chosen = marks.index(max(marks, key=min))  # by the form that is worse off
        facts = {
            "pictures": len(rows),
            "held_out": len(held),
            "best_epoch": chosen,
            "before_db": dict(zip(forms, marks[0], strict=True)),
            "after_db": dict(zip(forms, marks[chosen], strict=True)),
        }
        return Tuned(student.to_onnx(), student.scales(), chosen > 0, facts)

    def epochs(
        self, teacher: Network, student: Network, trained: list[Tensor], pictures: Tensor, forms: Sequence[Form]
    ) -> Iterator[int]:
        """Train in place; yields after each epoch, counted from 1. Adam; the rate falls by half a cosine. The forms
        take turns, and the logarithm makes both count alike, however far off one is."""
        for tensor in trained:
            tensor.requires_grad_(True)
        optimizer = torch.optim.Adam([{"params": [t], "lr": 0.0, "size": size(t)} for t in trained])
        dice = torch.Generator().manual_seed(self.section.seed)
        steps = -(-len(pictures) // self.section.batch)
        total = steps * self.section.epochs
        with bar("quantisation-aware training", total) as advance:
            for epoch in range(self.section.epochs):
                order = torch.randperm(len(pictures), generator=dice)
                for step, batch in enumerate(torch.tensor_split(order, steps), epoch * steps):
                    rate = self.section.lr * min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / total)) / 2
                    for group in optimizer.param_groups:
                        group["lr"] = rate * group["size"]
                    loss = self.loss(teacher, student, pictures[batch], forms[step % len(forms)])
                    optimizer.zero_grad()
                    (loss + TINY).log().backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    advance(1, f"qat {epoch + 1}/{self.section.epochs}, {decibel(1, float(loss.detach())):.1f} dB")
                yield epoch + 1

    def pictures(self) -> Tensor:
        """(N, C, H, W) uint8, as the network takes them but for mean and deviation."""
        if len(self.data) < LEAST:
            raise InputError(
                f"quantize.qat has {len(self.data)} pictures to train on",
                wanted=f"at least {LEAST}, better hundreds",
                do="Name them in quantize.qat.data",
            )
        preprocess = Preprocess(replace(self.spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))  # whole numbers
        pictures = torch.empty(len(self.data), *self.spec.input.shape[1:], dtype=torch.uint8)
        for i in tracked(range(len(pictures)), "pictures for qat", len(pictures)):
            pictures[i] = torch.from_numpy(preprocess(self.data[i].bgr)[0][0])
        return pictures

    def normalised(self, pictures: Tensor) -> Tensor:
        mean, std = (torch.tensor(v[: pictures.shape[1]])[:, None, None] for v in (self.spec.mean, self.spec.std))
        return ((pictures.float() - mean) / std).contiguous(memory_format=torch.channels_last)  # twice as fast

    def loss(self, teacher: Network, student: Network, pictures: Tensor, form: Form) -> Tensor:
        x = self.normalised(pictures)
        with torch.no_grad():
            wanted = teacher(x)
        return distance(self.spec.decode, student(x, form), wanted)

    def judge(self, teacher: Network, student: Network, pictures: Tensor, forms: Sequence[Form]) -> tuple[float, ...]:
        """Of each form, over pictures that are not trained on: the teacher's power over the mean noise, dB; nan where
        an answer is no longer finite."""
        some = torch.split(pictures, self.section.batch)
        with torch.no_grad():
            losses = [[float(self.loss(teacher, student, x, form)) * len(x) for x in some] for form in forms]
        means = [sum(row) / len(pictures) for row in losses]
        return tuple(round(decibel(1, mean), 2) if math.isfinite(mean) else math.nan for mean in means)


def size(tensor: Tensor) -> float:
    """What a rate is relative to: the root mean square of a weight, so that networks of any scale train alike
    (Shazeer & Stern 2018, arXiv:1804.04235, section 8); 1 for a logarithm, which is relative."""
    return float(tensor.detach().square().mean().sqrt()) if tensor.ndim else 1.0


def agree(network: Network, x: Tensor) -> None:
    """Raises ModelError where torch's answers to a batch are not onnxruntime's to each of its pictures."""
    session = tapped(network.model, ())
    with torch.no_grad():
        answers = [answer.numpy() for answer in network(x)]
    singles: Sequence[list[np.ndarray]] = [
        session.run(network.outputs, {network.input: one[None].numpy()}) for one in x
    ]
    for name, came, wanted in zip(network.outputs, answers, zip(*singles, strict=True), strict=True):
        whole = np.concatenate(wanted)
        if came.shape != whole.shape or not np.abs(came - whole).max() <= AGREE * max(float(np.ptp(whole)), 1e-6):
            raise ModelError(
                f"quantize.qat: output {name} of this network on torch is not onnxruntime's",
                do="Leave qat out of the recipe",
            )
