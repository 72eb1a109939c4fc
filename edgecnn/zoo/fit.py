"""The training loop: one for classifiers and detectors, with every choice of the recipe's TrainSection."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.progress import Advance, bar, note
from edgecnn.recipe import TrainSection
from edgecnn.scene import Letterbox, Truth
from edgecnn.zoo.augment import Jitter
from edgecnn.zoo.batches import Batchable, balanced
from edgecnn.zoo.evaluate import accuracy, figure_name
from edgecnn.zoo.loss import Grid, Target, detection_loss
from edgecnn.zoo.parallel import World
from edgecnn.zoo.resume import Checkpoint
from edgecnn.zoo.roadnet import RoadNet
from edgecnn.zoo.schedule import Epoch, best_epoch, finished, rate
from edgecnn.zoo.teach import Teacher

__all__ = ["Batchable", "accuracy", "add_gradients", "fit", "learn"]

CLIP = 5.0  # largest norm of the gradient: a box that is far off must not undo an epoch
AUXILIARY = 0.3  # weight of each auxiliary head's loss (Szegedy et al. 2014, arXiv:1409.4842, section 5)


def fit(net: nn.Module, spec: ModelSpec, section: TrainSection, guide: Teacher | None = None) -> list[float]:
    """Train in place on the data that the section names. Returns the mean loss of each epoch. See `learn`."""
    if not section.epochs:
        return []
    data = Batchable.read(spec, section.data, "pictures to train on")
    check = None
    if section.validate_on is not None:
        check = Batchable.read(spec, section.validate_on, "pictures to validate on")
    return [epoch.loss for epoch in learn(net, spec, section, data, check, guide=guide)]


def learn(
    net: nn.Module,
    spec: ModelSpec,
    section: TrainSection,
    data: Batchable,
    check: Batchable | None = None,
    *,
    guide: Teacher | None = None,
    keep: Checkpoint | None = None,
) -> list[Epoch]:
    """Train in place: SGD with Nesterov's momentum, weight decay on all but biases and normalisation. One row an epoch.

    Batches are of equal size to within one picture, none larger than the section's. With `check` the network ends with
    the weights of the epoch that was best on it, without with the last. With a `guide` (the network before slimming)
    its answers are targets as well, and a detector's batch normalisation keeps its statistics: the pictures at hand for
    fine-tuning are seldom those that they were measured on. With `keep` the state is written after every epoch, and
    training goes on from there. Within `parallel.joined()` the processes share every batch.

    On one machine the same seed gives the same weights to the bit, interrupted or not. Raises ModelError where the loss
    is no longer finite, or the section asks for what this network can't do.
    """
    if not section.epochs:
        return []
    training = _Training(net, spec, section, data, guide)
    training.resume(keep)
    left = section.epochs - len(training.epochs)
    with _dropout(net, spec, section.dropout), bar("train", left * training.steps) as advance:
        while not finished(section, training.epochs):
            training.epoch(check, advance)
            if keep is not None and training.world.rank == 0:
                keep.write(training.state())
    if training.best is not None:
        net.load_state_dict(training.best)
    net.eval()
    return training.epochs


class _Training:
    """What training carries from epoch to epoch."""

    def __init__(
        self, net: nn.Module, spec: ModelSpec, section: TrainSection, data: Batchable, guide: Teacher | None
    ) -> None:
        jitter = section.augment
        if spec.task == "detect" and (jitter.shift or jitter.scale or section.balance != "none"):
            raise ModelError(
                f"augment.shift, augment.scale and balance for {spec.arch}, a detector",
                wanted="a classifier: boxes would have to move along",
                do="Leave them out of the recipe; detectors are mirrored in any case",
            )
        self.spec, self.section, self.data, self.guide = spec, section, data, guide
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types no such call
        self.world = World.now()
        self.forward = self.world.wrapped(_Answer(self.net))
        self.labels = data.labels if spec.task == "classify" else torch.zeros(len(data), dtype=torch.int64)
        self.rows, self.copied = balanced(self.labels, section.balance, section.seed)
        batch = len(self.rows) if section.batch == "all" else section.batch
        self.steps = math.ceil(len(self.rows) / batch)
        decayed = [p for p in net.parameters() if p.ndim > 1]
        plain = [p for p in net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": section.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(
            [group for group in groups if group["params"]],
            section.lr,
            momentum=section.momentum,
            nesterov=section.momentum > 0,
            fused=True,  # one pass over the weights: a tenth of the time where fully connected layers are large
        )
        self.dice = torch.Generator().manual_seed(section.seed)  # the same in every process
        self.epochs: list[Epoch] = []
        self.best: dict[str, Tensor] | None = None

    def epoch(self, check: Batchable | None, advance: Advance) -> None:
        """Every picture once; then the figure on `check`."""
        self._mode()
        done, total = len(self.epochs), 0.0
        torch.manual_seed(self.section.seed + 7919 * (done + 1) + self.world.rank)  # dropout's: needs no saving
        order = torch.randperm(len(self.rows), generator=self.dice)
        for step, places in enumerate(torch.tensor_split(order, self.steps), done * self.steps):
            now = rate(self.section, step, self.steps * self.section.epochs, self.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = now
            loss = self._step(places)
            total += loss
            advance(1, f"train {done + 1}/{self.section.epochs}, loss {loss / len(places) * self.world.size:.3f}")
        mean = self.world.sum(total) / len(self.rows)
        if not math.isfinite(mean):
            raise ModelError(f"training diverged in epoch {done + 1}", do="Lower train.lr in the recipe")
        figure = None
        if check is not None:
            figure = self.world.from_first(accuracy(self.net, self.spec, check) if self.world.rank == 0 else 0.0)
        self.epochs.append(Epoch(mean, now, figure))
        told = ""
        if figure is not None:
            told = f", {figure_name(self.spec)} {figure:.4f}"
            if best_epoch(self.epochs) == done:
                self.best = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
                told += ", the best so far"
        note(f"epoch {done + 1} of {self.section.epochs}: loss {mean:.4f}{told}")

    def _step(self, places: Tensor) -> float:
        """One step on a batch of rows. Returns this process's share of the sum of the losses."""
        spec, data = self.spec, self.data
        mine, weight = self.world.share(len(places))
        shape = (len(places), *data.pictures.shape[1:])
        jitter = Jitter.draw(self.section.augment, shape, self.copied[places], self.dice).of(mine)
        mirrored = spec.task == "detect" and bool(torch.rand((), generator=self.dice) < 0.5)
        rows = self.rows[places[mine]]
        x = data.normalised(jitter(data.pictures[rows], spec.channels, spec.pad))
        x = (x.flip(3) if mirrored else x).contiguous(memory_format=torch.channels_last)
        try:
            outputs = self.forward(x)
        except ValueError as error:  # torch's batch normalisation: "Expected more than 1 value per channel"
            raise ModelError(
                f"{spec.arch} with a batch of {len(x)} ({error})", do="Raise train.batch, or the model's input"
            ) from error
        loss = loss_of(outputs, spec, data, rows, self.labels[rows], mirrored)
        if self.guide is not None:
            loss = loss + self.guide.loss(x, outputs)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * weight if self.world.size > 1 else loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.optimizer.step()
        return float(loss.detach()) * weight * len(places) / self.world.size

    def _mode(self) -> None:
        self.net.train()
        if self.guide is not None and self.spec.task == "detect":
            for layer in self.net.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "epochs": [(epoch.loss, epoch.rate, epoch.figure) for epoch in self.epochs],
            "net": self.net.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "dice": self.dice.get_state(),
        }

    def resume(self, keep: Checkpoint | None) -> None:
        """Take up the state that `keep` holds, if it holds one."""
        state = keep.read() if keep is not None else None
        if state is not None:
            self.epochs = [Epoch(*row) for row in state["epochs"]]
            self.net.load_state_dict(state["net"])
            self.best = state["best"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.dice.set_state(state["dice"])
            note(f"going on after epoch {len(self.epochs)}")
        self.world.agree(len(self.epochs), "the epochs done so far")


class _Answer(nn.Module):
    """What the loss is of: a classifier's logits, those of its auxiliary heads after them, or a detector's."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer: Tensor | tuple[Tensor, ...]
        answer = self.net.logits(self.net.features(x)) if isinstance(self.net, RoadNet) else self.net(x)
        return answer


@contextmanager
def _dropout(net: nn.Module, spec: ModelSpec, share: float | None) -> Iterator[None]:
    """Within, every dropout layer drops this share; None: its own. Raises ModelError where there is no such layer."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Dropout)]
    if share is not None and not layers:
        raise ModelError(f"{spec.arch} has no dropout layers", do="Leave train.dropout out of the recipe")
    own = [layer.p for layer in layers]
    for layer in layers:
        layer.p = layer.p if share is None else share
    try:
        yield
    finally:
        for layer, p in zip(layers, own, strict=True):
            layer.p = p


def add_gradients(net: nn.Module, spec: ModelSpec, section: TrainSection, *, alone: bool = False) -> None:
    """Leave the gradient of the loss over the section's first pictures in the parameters; `alone`: a step each."""
    batch = 16 if section.batch == "all" else section.batch
    some = section.data.model_copy(update={"pictures": min(section.data.pictures, 4 * batch)})
    data = Batchable.read(spec, some, "pictures to weigh channels on")
    dice = torch.Generator().manual_seed(section.seed)
    answer = _Answer(net.eval())
    net.zero_grad()
    for rows in torch.split(torch.arange(len(data)), 1 if alone else batch):
        mirrored = spec.task == "detect" and bool(torch.rand((), generator=dice) < 0.5)
        x = data.normalised(data.pictures[rows])
        x = (x.flip(3) if mirrored else x).contiguous(memory_format=torch.channels_last)
        labels = data.labels[rows] if spec.task == "classify" else rows
        loss_of(answer(x), spec, data, rows, labels, mirrored).backward()  # type: ignore[no-untyped-call]


def loss_of(
    outputs: Tensor | tuple[Tensor, ...], spec: ModelSpec, data: Batchable, rows: Tensor, labels: Tensor, mirrored: bool
) -> Tensor:
    """A classifier's cross entropy, its auxiliary heads' added; a detector's SimOTA losses. Means over the batch."""
    if spec.task == "classify":
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        return F.cross_entropy(main, labels) + sum(AUXILIARY * F.cross_entropy(each, labels) for each in auxiliary)
    assert isinstance(outputs, tuple)
    targets = [target(data.truth[int(i)], data.boxes[int(i)], spec.width if mirrored else None) for i in rows]
    box, obj, cls = outputs
    losses = detection_loss(box, obj, cls, targets, Grid.of(spec.height, spec.width, spec.strides))
    return torch.stack(list(losses.values())).sum()


def target(truth: Truth, box: Letterbox, mirror: int | None) -> Target:
    """Truth in net px; mirrored in a picture of so many px if given."""
    xyxy = torch.from_numpy(box.to_net(truth.xyxy))
    if mirror is not None:
        xyxy = torch.stack([mirror - xyxy[:, 2], xyxy[:, 1], mirror - xyxy[:, 0], xyxy[:, 3]], 1)
    ignore = torch.from_numpy(truth.ignore)
    return Target(xyxy[~ignore], torch.from_numpy(truth.label)[~ignore], xyxy[ignore])
