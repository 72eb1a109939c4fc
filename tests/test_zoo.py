"""The zoo: published sizes, checkpoints in and out, widths, assignment."""

from __future__ import annotations

from dataclasses import replace
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
from edgecnn.zoo.models import MODELS
from edgecnn.zoo.table import table
from edgecnn.zoo.widths import apply_widths, read_widths


def spec(arch: str, classes: int = 10, **changes: int) -> ModelSpec:
    return zoo.spec_for(ModelSection(arch=arch, classes=tuple(f"c{i}" for i in range(classes)), **changes))


# Multiply-adds in millions: lenet5's by hand (28²·150 + 10²·2400 + 48000 + 10080 + 840), the others' as torchvision
# documents them with its weights; 1.5 G for GoogLeNet is the paper's, too (arXiv:1409.4842, section 1).
MACS = {
    "lenet5": 0.41652,
    "alexnet": 714,
    "vgg11": 7_609,
    "vgg13": 11_308,
    "vgg16": 15_470,
    "vgg19": 19_632,
    "googlenet": 1_498,
    "inception_v3": 5_713,
    "resnet18": 1_814,
    "resnet34": 3_664,
    "resnet50": 4_089,
    "resnet101": 7_801,
    "resnet152": 11_514,
}


def test_the_table_gives_the_published_figures() -> None:
    rows = {row["name"]: row for row in table()}
    assert list(rows) == list(zoo.NAMES) and len(rows) == 24
    for name, entry in MODELS.items():
        assert entry.parameters in (0, rows[name]["parameters"]), name
        assert rows[name]["classes"] == entry.classes
    for name, millions in MACS.items():
        assert rows[name]["macs"] / 1e6 == pytest.approx(millions, abs=0.5 if millions > 1 else 1e-9), name
    assert rows["googlenet_original"]["macs"] / rows["googlenet"]["macs"] == pytest.approx(1.056, abs=0.001)


def test_counting_needs_no_weights() -> None:
    s = spec("resnet18")
    with torch.device("meta"):
        nothing = zoo.build(s)
    assert size(nothing, s.input.shape) == size(zoo.build(s), s.input.shape)


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


def test_a_checkpoint_without_batch_counters_loads(tmp_path: Path) -> None:
    s = spec("resnet18", 1000)
    state = zoo.build(s).state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}  # as checkpoints before torch 0.4.1
    torch.save(old, tmp_path / "resnet18.pth")
    net, _ = zoo.load(tmp_path / "resnet18.pth", s)
    assert torch.equal(net.state_dict()["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize("key", ["state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_training_scripts_wrap_around_a_state_dict(key: str | None, prefix: str, tmp_path: Path) -> None:
    state = zoo.build(spec("lenet5")).state_dict()
    saved = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({key: saved, "epoch": 3, "optimizer": {"lr": 0.1}} if key else saved, tmp_path / "w.pth")
    net, _ = zoo.load(tmp_path / "w.pth", spec("lenet5"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_auxiliary_heads_are_left_out_unless_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s = spec("googlenet")
    whole = zoo.build(s, aux=True)
    public, own = tmp_path / "googlenet.pth", tmp_path / "own.safetensors"
    torch.save(whole.state_dict(), public)
    plain, _ = zoo.load(public, s)
    assert not any(name.startswith("aux") for name, _ in plain.named_modules())
    again, _ = zoo.load(public, s, aux=True)
    assert torch.equal(again.state_dict()["aux2.fc2.weight"], whole.state_dict()["aux2.fc2.weight"])
    assert not capsys.readouterr().err
    zoo.save_weights(own, whole, s)
    kept, _ = zoo.read_weights(own)
    assert list(kept) and set(kept) == set(plain.state_dict())
    renewed, _ = zoo.load(own, s, aux=True)  # training goes on: the heads that were not saved start anew
    assert torch.equal(renewed.state_dict()["fc.weight"], whole.state_dict()["fc.weight"])
    assert "no auxiliary heads" in capsys.readouterr().err


def test_only_families_with_auxiliary_heads_leave_tensors_out(tmp_path: Path) -> None:
    s = spec("resnet18")
    torch.save({**zoo.build(s).state_dict(), "aux1.fc2.bias": torch.zeros(10)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"holds besides 'aux1\.fc2\.bias'"):
        zoo.load(tmp_path / "w.pth", s)


def test_a_slimmed_network_gets_no_auxiliary_heads() -> None:
    s = spec("googlenet")
    net = zoo.build(replace(s, widths=read_widths(zoo.build(s))), aux=True)
    assert not any(name.startswith("aux") for name, _ in net.named_modules())


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("lenet5", "classifier.4"),
        ("lenet5_original", "rbf"),
        ("resnet18", "fc"),
        ("inception_v3", "AuxLogits.fc, fc"),
        ("roadnet", "heads.0.cls, heads.1.cls, heads.2.cls"),
    ],
)
def test_training_for_other_classes_gives_a_new_last_layer(
    arch: str, layers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = zoo.build(spec(arch, 12), aux=True).state_dict()
    torch.save(state, tmp_path / "w.pth")
    ours = spec(arch, 10)
    with pytest.raises(ModelError, match=r"12.* for \(.*10.*train\.epochs"):
        zoo.load(tmp_path / "w.pth", ours, aux=True)
    net, own = zoo.load(tmp_path / "w.pth", ours, aux=True, new_head=True)
    assert own == ours
    anew = tuple(f"{layer}." for layer in layers.split(", "))
    for name, tensor in net.state_dict().items():
        assert name.startswith(anew) or torch.equal(tensor, state[name]), name
    assert f"w.pth is for 12 classes, not 10: {layers} starts anew" in capsys.readouterr().err


def test_a_new_head_is_all_that_may_differ(tmp_path: Path) -> None:
    state = zoo.build(spec("resnet18", 12)).state_dict()
    for name, tensor in (("fc.weight", torch.zeros(12, 2048)), ("layer1.0.bn1.bias", torch.zeros(32))):
        torch.save({**state, name: tensor}, tmp_path / "w.pth")
        with pytest.raises(ModelError, match=f"'{name}'"):
            zoo.load(tmp_path / "w.pth", spec("resnet18"), new_head=True)
    zoo.save_weights(tmp_path / "own.safetensors", zoo.build(spec("resnet18", 12)), spec("resnet18", 12))
    with pytest.raises(ModelError, match="for c0, c1"):  # edgecnn's own names its classes: they are to be as wanted
        zoo.load(tmp_path / "own.safetensors", spec("resnet18"), new_head=True)


def test_every_kind_of_misfit_is_listed_in_one_line(tmp_path: Path) -> None:
    state = zoo.build(spec("resnet18")).state_dict()
    few = {k: v for k, v in state.items() if not k.startswith("layer1.")}  # 24 tensors, 4 of them counters
    torch.save({**few, "head.bias": torch.zeros(3), "bn1.bias": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        zoo.load(tmp_path / "w.pth", spec("resnet18"))
    line = str(caught.value)
    assert "\n" not in line
    assert "it lacks 'layer1.0.conv1.weight', 'layer1.0.bn1.weight'" in line and line.count("'layer1.") == 8
    assert "and 12 more; it holds besides 'head.bias'; it has other shapes: 'bn1.bias' (3,) for (64,)." in line


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
    torch.save({0: torch.zeros(1)}, folder / "numbers.pth")
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
        "numbers.pth": (InputError, "tensors by name"),
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


@pytest.mark.parametrize("arch", [name for name, entry in MODELS.items() if entry.least > 1])
def test_the_smallest_input_is_the_one_named(arch: str) -> None:
    least = MODELS[arch].least
    with pytest.raises(ModelError, match=f"{least} px or more"):
        zoo.spec_for(ModelSection.model_validate({"arch": arch, "height": least - 1, "width": least}))
    with torch.device("meta"):
        net = zoo.build(zoo.spec_for(ModelSection.model_validate({"arch": arch, "height": least, "width": least})))
        assert net(torch.empty(1, 3, least, least)).shape == (1, 4)
        with pytest.raises(RuntimeError):
            net(torch.empty(1, 3, least - 1, least - 1))
