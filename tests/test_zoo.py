"""The zoo: published sizes, checkpoints in and out, widths, assignment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.errors import EdgecnnError, InputError, ModelError
from edgecnn.recipe import ModelSection
from edgecnn.zoo.count import size
from edgecnn.zoo.loss import Grid, Target, detection_loss, giou, iou, simota
from edgecnn.zoo.widths import apply_widths, read_widths


def spec(arch: str, classes: int = 10, **changes: int) -> ModelSpec:
    return zoo.spec_for(ModelSection(arch=arch, classes=tuple(f"c{i}" for i in range(classes)), **changes))


@pytest.mark.parametrize(
    ("arch", "classes", "parameters", "macs"),
    [
        ("lenet5", 10, 61_706, 416_520),  # by hand: 156+2416+48120+10164+850; 28²·150+10²·2400+48000+10080+840
        ("resnet18", 1000, 11_689_512, 1_814_073_344),  # torchvision's documented 11 689 512 and 1.81 G
    ],
)
def test_published_sizes(arch: str, classes: int, parameters: int, macs: int) -> None:
    s = spec(arch, classes)
    counted = size(zoo.build(s), s.input.shape)
    assert (counted.parameters, counted.macs) == (parameters, macs)


def test_roadnet_fits_the_board() -> None:
    s = spec("roadnet", 4)
    net = zoo.build(s)
    assert size(net, s.input.shape).parameters <= 1_000_000
    kinds = {type(m).__name__ for m in net.modules() if not list(m.children())}
    assert kinds == {"Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Upsample"}
    boxes, scores = net(torch.zeros(s.input.shape))
    assert (tuple(boxes.shape), tuple(scores.shape)) == tuple(t.shape for t in s.outputs)
    assert scores.max() < 0.05  # starts at the prior, not at one half


def test_roadnet_takes_multiples_of_32_only() -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        spec("roadnet", 4, width=400)


# The first block, the first projection and the ends of torchvision's resnet18 checkpoint.
TORCHVISION = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.running_mean": (64,),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer1.1.bn2.bias": (64,),
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1.running_var": (128,),
    "layer4.1.conv2.weight": (512, 512, 3, 3),
    "fc.weight": (1000, 512),
    "fc.bias": (1000,),
}


def test_resnet18_has_torchvisions_names(tmp_path: Path) -> None:
    s = spec("resnet18", 1000)
    state = zoo.build(s).state_dict()
    assert len(state) == 122  # as torchvision's
    assert {name: tuple(state[name].shape) for name in TORCHVISION} == TORCHVISION
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}  # as checkpoints before torch 0.4.1
    torch.save(old, tmp_path / "resnet18.pth")
    net, _ = zoo.load(tmp_path / "resnet18.pth", s)
    assert torch.equal(net.state_dict()["fc.weight"], state["fc.weight"])


def test_a_slimmed_checkpoint_describes_itself(tmp_path: Path) -> None:
    s = spec("lenet5")
    net = zoo.build(s)
    apply_widths(net, {"features.3": (6, 8), "classifier.0": (200, 120)})
    slimmed = ModelSpec(**{**s.__dict__, "widths": read_widths(net)})
    zoo.save_weights(tmp_path / "w.safetensors", net, slimmed)
    again, described = zoo.load(tmp_path / "w.safetensors", s)
    assert described.widths == slimmed.widths
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(net(x), again(x))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never run",)


def bad_files(folder: Path) -> dict[str, tuple[type[EdgecnnError], str]]:
    s = spec("lenet5")
    good = zoo.build(s).state_dict()
    save_file(good, folder / "good.safetensors")
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:1000])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "text.pth").write_text("weights")
    torch.save({"features.0.weight": Evil()}, folder / "pickle.pth")
    torch.save([1, 2], folder / "list.pth")
    save_file({k: v for k, v in good.items() if k != "features.0.bias"}, folder / "lacking.safetensors")
    save_file({**good, "extra": torch.zeros(1)}, folder / "extra.safetensors")
    save_file({**good, "features.0.bias": torch.zeros(7)}, folder / "shape.safetensors")
    other = spec("lenet5", 5)
    zoo.save_weights(folder / "classes.safetensors", zoo.build(other), other)
    return {
        "none.safetensors": (InputError, "no weights at"),
        "cut.safetensors": (InputError, "no complete safetensors"),
        "empty.safetensors": (InputError, "no complete safetensors"),
        "text.pth": (InputError, "no plain torch state dict"),
        "pickle.pth": (InputError, "weights_only"),
        "list.pth": (InputError, "a list"),
        "lacking.safetensors": (ModelError, "features.0.bias"),
        "extra.safetensors": (ModelError, "'extra'"),
        "shape.safetensors": (ModelError, r"\(7,\)"),
        "classes.safetensors": (ModelError, "lenet5 for c0, c1, c2, c3, c4;"),
    }


def test_bad_checkpoints_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (kind, text) in bad_files(tmp_path).items():
        with pytest.raises(kind, match=text) as caught:
            zoo.load(tmp_path / name, spec("lenet5"))
        assert "\n" not in str(caught.value)
    assert "never run" not in capsys.readouterr().out


def test_iou_and_giou_by_hand() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 3.0, 1.0]])
    assert torch.allclose(iou(a, b), torch.tensor([[1 / 7, 0.0], [0.0, 0.0]]))
    # hull 9, union 7: 1/7 - 2/9; hull 3, union 2: 0 - 1/3
    assert torch.allclose(giou(a, b), torch.tensor([1 / 7 - 2 / 9, -1 / 3]), atol=1e-6)


def test_a_perfect_cell_is_the_one_that_answers() -> None:
    grid = Grid.of(64, 96, (8, 16, 32))
    target = Target(torch.tensor([[16.0, 16.0, 40.0, 32.0]]), torch.tensor([1]), torch.zeros(0, 4))
    raw = torch.zeros(len(grid.stride), 4)
    cell = 3 + 12 * 3  # row 3, column 3 of stride 8: corner (24, 24), the box's centre is (28, 24)
    raw[cell] = torch.tensor([0.5, 0.0, torch.log(torch.tensor(3.0)), torch.log(torch.tensor(2.0))])
    logits = torch.zeros(len(grid.stride), 2)
    cells, rows, overlap = simota(grid.boxes(raw), logits[:, :1], logits, target, grid)
    best = overlap.argmax()
    assert cells[best] == cell and rows[best] == 0 and overlap[best] > 0.999


def test_loss_is_small_where_the_answer_is_right_and_ignored_cells_are_free() -> None:
    grid = Grid.of(64, 96, (8, 16, 32))
    box = torch.tensor([[16.0, 16.0, 40.0, 32.0]])
    raw = torch.zeros(1, len(grid.stride), 4)
    raw[0, :, :2] = (torch.tensor([28.0, 24.0]) - grid.corner) / grid.stride
    raw[0, :, 2:] = (torch.tensor([24.0, 16.0]) / grid.stride).log()
    target = Target(box, torch.tensor([1]), torch.zeros(0, 4))
    obj = torch.full((1, len(grid.stride), 1), -12.0)
    cls = torch.tensor([-12.0, 12.0]).expand(1, len(grid.stride), 2)
    with torch.no_grad():
        cells, _, _ = simota(grid.boxes(raw)[0], obj[0], cls[0], target, grid)
    obj[0, cells] = 12.0
    losses = detection_loss(raw, obj, cls, [target], grid)
    assert all(float(v) < 1e-2 for v in losses.values())
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.tensor([[0.0, 0.0, 96.0, 64.0]]))
    assert float(detection_loss(raw, obj, cls, [nothing], grid)["obj"]) == 0
