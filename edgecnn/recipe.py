"""The recipe: one YAML file that says how a model becomes a bundle. The only reader of YAML settings.

Each stage gets one frozen section. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgecnn.errors import InputError, RecipeError

SIM_CLASSES = ("car", "truck_bus", "two_wheeler", "person")
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Frozen, and no key passes unread."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(Section):
    """Pictures with truth. `sim` needs no path: the road simulator draws `pictures` of them from `seed`."""

    kind: Literal["sim", "sim_drive", "sim_crops", "coco", "kitti", "voc", "mot", "folder", "classes", "mnist"] = "sim"
    path: Path | None = None
    seed: int = 0
    pictures: Annotated[int, Field(gt=0)] = 256  # at most this many; frames of each drive for sim_drive
    drives: Annotated[int, Field(gt=0)] = 1  # sim_drive: seeds seed, seed+1, ...

    @model_validator(mode="after")
    def _path(self) -> DataSection:
        if (self.path is None) != self.kind.startswith("sim"):
            raise ValueError(f"data of kind '{self.kind}' {'needs a' if self.path is None else 'takes no'} path")
        return self


class ModelSection(Section):
    """A zoo model (`arch`), or any ONNX network (`onnx`, with the `decode` that reads its outputs)."""

    arch: Literal["roadnet", "lenet5", "resnet18"] | None = None
    onnx: Path | None = None
    weights: Path | Literal["shipped"] | None = None  # safetensors or .pth state dict; None: train from scratch
    decode: Literal["logits", "yolox"] | None = None  # with `onnx`
    classes: tuple[str, ...] = SIM_CLASSES
    height: Annotated[int, Field(gt=0)] = 256
    width: Annotated[int, Field(gt=0)] = 416
    strides: tuple[int, ...] = (8, 16, 32)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # with `onnx`; zoo models bring their own
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: Literal["bgr", "rgb", "grey"] = "bgr"
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    pad: Annotated[int, Field(ge=0, le=255)] = 114

    @model_validator(mode="after")
    def _one(self) -> ModelSection:
        if (self.arch is None) == (self.onnx is None):
            raise ValueError("name either `arch` (a zoo model) or `onnx` (a network of your own), and not both")
        if self.onnx is not None and self.decode is None:
            raise ValueError("`onnx` needs `decode`: logits or yolox")
        return self


class TrainSection(Section):
    """SGD with momentum .9, cosine schedule; zero epochs keep the weights that `model.weights` names."""

    data: DataSection = DataSection()
    epochs: Annotated[int, Field(ge=0)] = 0
    batch: Annotated[int, Field(gt=0)] = 16
    lr: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    seed: int = 0


class SlimSection(Section):
    """GAP in place of FC, then channel pruning through the dependency graph, then fine-tuning."""

    gap: bool = False
    prune: Share = 0.0  # share of the MACs to remove
    round_to: Annotated[int, Field(gt=0)] = 8  # channels stay multiples of this
    finetune: TrainSection = TrainSection()
    check: DataSection = DataSection(seed=9000, pictures=64)  # accuracy before and after


class ExportSection(Section):
    opset: Annotated[int, Field(ge=13, le=20)] = 17
    tolerance: Annotated[float, Field(gt=0)] = 1e-3  # largest difference from torch, relative to the output's range
    compare: DataSection = DataSection(seed=9100, pictures=4)


class QuantizeSection(Section):
    calibration: Path | None = None  # a list in calibration/; None: `data`
    data: DataSection = DataSection(seed=9200, pictures=64)
    ranges: Literal["percentile", "entropy", "max"] = "percentile"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    bins: Annotated[int, Field(ge=2048)] = 4096
    keep_float: tuple[str, ...] = ()  # node names that stay in FP32


class BuildSection(Section):
    target: str = "rtx-sm86"  # `edgecnn doctor` lists them
    workspace_mib: Annotated[int, Field(gt=0)] = 256


class RunSection(Section):
    score: Share = 0.3
    iou: Share = 0.5
    detect_every: Annotated[int, Field(gt=0)] = 3


class CheckSection(Section):
    data: DataSection = DataSection(kind="sim_drive", seed=9300, pictures=100, drives=2)
    gates: dict[str, float] = Field(default_factory=dict)  # metric -> least value
    max_drop: dict[str, float] = Field(default_factory=dict)  # metric -> largest loss of INT8 against FP32
    baseline: Path | None = None  # JSON of an earlier `edgecnn check --json`
    baseline_drop: Annotated[float, Field(ge=0)] = 0.01  # largest loss against the baseline


class Recipe(Section):
    """One model's way from the zoo to the board."""

    name: str
    model: ModelSection
    train: TrainSection = TrainSection()
    slim: SlimSection | None = None
    export: ExportSection = ExportSection()
    quantize: QuantizeSection = QuantizeSection()
    build: BuildSection | None = BuildSection()
    run: RunSection = RunSection()
    check: CheckSection = CheckSection()


def load(path: Path | str) -> Recipe:
    """Read a recipe. Relative paths in it count from the recipe's own folder.

    Raises InputError if there is no such file, RecipeError naming the key if its content is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no recipe at {path}", do="See recipes/ for the shipped ones")
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise RecipeError(f"{path}{line} is not YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path} holds {'nothing' if data is None else type(data).__name__}", wanted="keys such as name:, model:"
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_explain(path, error)) from error
    resolved: Recipe = _resolve(recipe, path.resolve().parent)
    return resolved


def _explain(path: Path, error: ValidationError) -> str:
    """The first complaint, as one line with the key's place and, for an unknown key, the nearest known one."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key also makes one missing
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _keys_at(first["loc"][:-1])
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"{path}: unknown key '{place}'; {hint}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{path}: key '{place}' is missing"
    came = "" if isinstance(first["input"], dict) else f" (came: {first['input']!r})"
    where = f" key '{place}':" if place else ""
    return f"{path}:{where} {message}{came}"


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """Known keys of the section at a place in the recipe."""
    section: Any = Recipe
    for part in loc:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, Section))
    return list(section.model_fields)


def _resolve(section: Any, root: Path) -> Any:
    """The same section with every relative path made absolute from `root`."""
    changes = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            changes[name] = _resolve(value, root)
        elif isinstance(value, Path):
            changes[name] = value if value.is_absolute() else root / value
    return section.model_copy(update=changes)
