"""Training: it learns, it repeats, it keeps its statistics under a guide, and it refuses what it cannot do."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import DataSection, ModelSection, TrainSection
from edgecnn.zoo.fit import Batchable, accuracy, add_gradients, fit
from edgecnn.zoo.teach import Teacher

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    """Noise around 60 and around 190, in a folder a class."""
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for name, level in zip(CLASSES, (60, 190), strict=True):
        (folder / name).mkdir()
        for i in range(16):
            noise = rng.normal(level, 20, (32, 32, 3)).clip(0, 255)
            cv2.imwrite(str(folder / name / f"{i}.png"), noise.astype(np.uint8))
    return DataSection(kind="classes", path=folder, pictures=32)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return zoo.spec_for(ModelSection(arch="lenet5", classes=CLASSES))


def trained(spec: ModelSpec, section: TrainSection) -> tuple[torch.nn.Module, list[float]]:
    torch.manual_seed(0)
    net = zoo.build(spec)
    return net, fit(net, spec, section)


def test_it_learns_and_the_same_seed_gives_the_same_weights(spec: ModelSpec, pictures: DataSection) -> None:
    section = TrainSection(data=pictures, epochs=15, batch=8, lr=0.02)
    net, losses = trained(spec, section)
    assert losses[-1] < losses[0] / 2 and len(losses) == 15
    assert accuracy(net, spec, Batchable.read(spec, pictures, "pictures")) == 1.0
    again, same = trained(spec, section)
    assert same == losses
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_zero_epochs_leave_the_weights_alone(spec: ModelSpec, pictures: DataSection) -> None:
    net = zoo.build(spec)
    before = copy.deepcopy(net.state_dict())
    assert fit(net, spec, TrainSection(data=pictures, epochs=0)) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_rate_beyond_reason_is_named(spec: ModelSpec, pictures: DataSection) -> None:
    with pytest.raises(ModelError, match=r"diverged.*train\.lr"):
        trained(spec, TrainSection(data=pictures, epochs=60, batch=8, lr=1e18))


def test_other_classes_are_refused(pictures: DataSection) -> None:
    other = zoo.spec_for(ModelSection(arch="lenet5", classes=("cat", "dog")))
    with pytest.raises(ModelError, match="only the data has dark, light and only the model has cat, dog"):
        trained(other, TrainSection(data=pictures, epochs=1))


def test_fine_tuning_a_detector_keeps_the_statistics_and_follows_its_guide() -> None:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch="roadnet", height=64, width=96))
    net = zoo.build(spec)
    guide = copy.deepcopy(net)
    means = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    section = TrainSection(data=DataSection(kind="sim", seed=3, pictures=4), epochs=2, batch=2, lr=1e-3)
    losses = fit(net, spec, section, Teacher(guide, net, spec, features=False))
    assert all(np.isfinite(losses))
    state = net.state_dict()
    assert all(torch.equal(mean, state[name]) for name, mean in means.items())
    assert not torch.equal(state["stem.0.weight"], guide.state_dict()["stem.0.weight"])


def test_gradients_reach_every_weight(spec: ModelSpec, pictures: DataSection) -> None:
    net = zoo.build(spec)
    add_gradients(net, spec, TrainSection(data=pictures, batch=8))
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.parameters())
