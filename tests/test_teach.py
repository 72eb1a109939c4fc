"""Distillation: a teacher's answers and maps, by hand, and across networks of other widths, depths and classes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import ModelSection
from edgecnn.zoo.roadnet import RoadNet
from edgecnn.zoo.teach import ATTENTION, Teacher, attention, common_stages


def described(arch: str, *classes: str, side: int = 64) -> ModelSpec:
    size = {} if arch == "lenet5" else {"height": side, "width": side}
    names = {"classes": classes} if classes else {}
    return zoo.spec_for(ModelSection.model_validate({"arch": arch, **size, **names}))


class Says(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor([logits]))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.expand(len(x), -1)


def test_logits_by_hand() -> None:
    spec = described("lenet5", "a", "b")
    teacher = Teacher(Says(math.log(3), 0.0), Says(0.0, 0.0), spec, features=False)
    # KL((3/4, 1/4) || (1/2, 1/2)), the mean over pictures
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = teacher.loss(torch.zeros(5, 1, 32, 32), torch.zeros(5, 2))
    assert float(loss) == pytest.approx(by_hand, abs=1e-6)


def test_only_the_students_classes_are_compared_by_name() -> None:
    own, spec = described("lenet5", "a", "b", "c"), described("lenet5", "c", "a")
    teacher = Teacher(Says(math.log(3), 50.0, 0.0), Says(0.0, 0.0), spec, features=False, own=own)
    same = Teacher(Says(0.0, math.log(3)), Says(0.0, 0.0), spec, features=False)
    x, answer = torch.zeros(2, 1, 32, 32), torch.tensor([[1.0, 0.5]] * 2)
    assert float(teacher.loss(x, answer)) == pytest.approx(float(same.loss(x, answer)), abs=1e-6)


def test_a_class_that_the_teacher_does_not_know_is_named() -> None:
    with pytest.raises(ModelError, match="does not know 'tram'"):
        Teacher(Says(0.0), Says(0.0), described("lenet5", "tram"), features=False, own=described("lenet5", "car"))


def test_attention_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])  # two channels, two places
    # sums of squares: 2 and 4, of length sqrt(20)
    assert torch.allclose(attention(maps), torch.tensor([[2.0, 4.0]]) / math.sqrt(20))
    assert torch.allclose(attention(maps * 7), attention(maps))
    assert torch.allclose(attention(maps), attention(torch.cat([maps, torch.zeros_like(maps)], 1)))


def test_a_networks_stages_are_its_layers_before_each_halving() -> None:
    net = zoo.build(described("resnet18"))
    assert common_stages(net, net, (1, 3, 64, 64)) == ("relu", "layer1", "layer2", "layer3", "layer4")
    # another input: layer4 is down to one place, where nothing is left to compare
    assert common_stages(net, net, (1, 3, 32, 32)) == ("relu", "layer1", "layer2", "layer3")


def test_maps_of_fewer_channels_are_compared_and_the_loss_reaches_the_student() -> None:
    torch.manual_seed(0)
    spec = described("resnet18")
    net = zoo.build(spec)
    student = zoo.build(
        replace(spec, widths={"layer1.0.conv1": (64, 24), "layer1.0.bn1": (24, 24), "layer1.0.conv2": (24, 64)})
    )
    x = torch.rand(2, 3, 64, 64)
    with Teacher(net, student, spec, features=True) as teacher:
        loss = teacher.loss(x, student(x))
        plain = Teacher(net, student, spec, features=False).loss(x, student(x))
        maps = [
            ATTENTION / 2 * (attention(a) - attention(b)).square().mean()
            for a, b in zip(stages(student, x), stages(net, x), strict=True)
        ]
        assert loss.item() == pytest.approx(plain.item() + sum(m.item() for m in maps), rel=1e-4)
        loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for each in (net, student) for m in each.modules())


def stages(net: nn.Module, x: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda _m, _i, y: found.append(y))
        for name in ("relu", "layer1", "layer2", "layer3", "layer4")
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return found


def test_a_student_that_agrees_has_no_loss() -> None:
    torch.manual_seed(0)
    spec = described("resnet18")
    net = zoo.build(spec)
    x = torch.rand(1, 3, 64, 64)
    with Teacher(net, copy.deepcopy(net), spec, features=False) as teacher:
        assert abs(teacher.loss(x, net(x)).item()) < 1e-6


def test_networks_without_a_common_stage_are_refused() -> None:
    with pytest.raises(ModelError, match="no stage of equal name"):
        Teacher(
            zoo.build(described("resnet18")), nn.Sequential(nn.Conv2d(3, 4, 3)), described("resnet18"), features=True
        )


def test_detector_by_hand() -> None:
    torch.manual_seed(0)
    spec = described("roadnet")
    net, student = zoo.build(spec), zoo.build(spec)
    assert isinstance(net, RoadNet) and isinstance(student, RoadNet)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        box, obj, cls = net.logits(net.features(x))
        mine = student.logits(student.features(x))
        loss = Teacher(net, student, spec, features=False).loss(x, mine)
        weight = obj.sigmoid() * cls.sigmoid().amax(2, keepdim=True)
        wanted = F.binary_cross_entropy_with_logits(mine[1], obj.sigmoid(), reduction="sum") / 80
        wanted += (weight * (mine[0] - box).abs()).sum() / (weight.sum() * 4 + 1)
        wanted += (weight * (mine[2].sigmoid() - cls.sigmoid()) ** 2).sum() / (weight.sum() + 1)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_a_detectors_foreign_classes_are_background() -> None:
    torch.manual_seed(0)
    own, spec = described("roadnet", "car", "person"), described("roadnet", "person")
    net, student = zoo.build(own), zoo.build(spec)
    assert isinstance(net, RoadNet) and isinstance(student, RoadNet)
    for head in net.heads:  # cars everywhere, and sure of it
        nn.init.constant_(head.obj.bias, 20.0)
        head.cls.bias.data.copy_(torch.tensor([20.0, -20.0]))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        mine = student.logits(student.features(x))
        loss = Teacher(net, student, spec, features=False, own=own).loss(x, mine)
        nothing = F.binary_cross_entropy_with_logits(mine[1], torch.zeros_like(mine[1]), reduction="sum") / 40
    assert float(loss) == pytest.approx(float(nothing), rel=1e-4)
