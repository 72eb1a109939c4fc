"""The recipe: one YAML file that says how a model becomes a bundle. The only reader of YAML settings.

Each stage gets one frozen section. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgecnn.errors import InputError, RecipeError
from edgecnn.shipped import find

SIM_CLASSES = ("car", "truck_bus", "two_wheeler", "person")
# fmt: off
Arch = Literal[
    "roadnet", "lenet5", "lenet5_original", "alexnet", "alexnet_original", "zfnet",
    "vgg11", "vgg13", "vgg16c", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
    "googlenet", "googlenet_original", "inception_v2", "inception_v3",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
]
# fmt: on
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
RangeMethod = Literal["percentile", "entropy", "mse", "max"]


class Section(BaseModel):
    """Frozen, and no key passes unread."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


class DataSection(Section):
    """Pictures with truth. `sim` needs no path: the road simulator draws `pictures` of them from `seed`."""

    kind: Literal[
        "sim",
        "sim_drive",
        "sim_crops",
        "sim_windows",
        "coco",
        "kitti",
        "voc",
        "mot",
        "folder",
        "classes",
        "mnist",
        "cifar",
    ] = "sim"
    path: Path | None = None
    seed: int = 0  # of the simulator's scenes; of the split into parts
    pictures: Annotated[int, Field(gt=0)] = 256  # at most this many; frames of each drive for sim_drive
    part: Literal["all", "train", "test", "validate"] = "all"  # 65/25/10 per cent of a classification set, by class
    drives: Annotated[int, Field(gt=0)] = 1  # sim_drive: seeds seed, seed+1, ...

    @model_validator(mode="after")
    def _path(self) -> DataSection:
        if (self.path is None) != self.kind.startswith("sim"):
            raise ValueError(f"data of kind '{self.kind}' {'needs a' if self.path is None else 'takes no'} path")
        return self


class ModelSection(Section):
    """A zoo model (`arch`), or any ONNX network (`onnx`, with the `decode` that reads its outputs)."""

    arch: Arch | None = None
    onnx: Path | None = None
    weights: Path | Literal["shipped"] | None = None  # safetensors or .pth state dict; None: train from scratch
    decode: Literal["logits", "embedding", "yolox"] | None = None  # with `onnx`
    classes: tuple[str, ...] = SIM_CLASSES  # or `imagenet`: its 1000 names, in the order of public checkpoints
    height: Annotated[int, Field(gt=0)] | None = None  # None: the architecture's own
    width: Annotated[int, Field(gt=0)] | None = None
    strides: tuple[int, ...] = (8, 16, 32)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # with `onnx`; zoo models bring their own
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: Literal["bgr", "rgb", "grey"] = "bgr"
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    pad: Annotated[int, Field(ge=0, le=255)] = 114

    @field_validator("classes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if value == "imagenet":
            return tuple((Path(__file__).parent / "zoo/imagenet.txt").read_text("utf-8").splitlines())
        return value

    @model_validator(mode="after")
    def _one(self) -> ModelSection:
        if (self.arch is None) == (self.onnx is None):
            raise ValueError("name either `arch` (a zoo model) or `onnx` (a network of your own), and not both")
        if self.onnx is not None and self.decode is None:
            raise ValueError("`onnx` needs `decode`: logits, embedding or yolox")
        if self.decode == "embedding" and "classes" in self.model_fields_set:
            raise ValueError("`decode: embedding` takes no `classes`: the network answers with a vector")
        return self


class AugmentSection(Section):
    """Random changes of each training picture, anew in every epoch; zero leaves one out."""

    shift: Share = 0.0  # of the side, both ways
    scale: Share = 0.0  # side times 1 - scale to 1 / (1 - scale): scale jitter; what hangs over is cropped
    mirror: bool = False
    colour: Share = 0.0  # brightness, contrast and saturation, each times 1 - colour to 1 + colour
    noise: Annotated[float, Field(ge=0)] = 0.0  # standard deviation, grey levels


class TrainSection(Section):
    """SGD with momentum; zero epochs keep the weights that `model.weights` names."""

    data: DataSection = DataSection()
    validate_on: DataSection | None = None  # for the plateau schedule, early stop and the best epoch's weights
    epochs: Annotated[int, Field(ge=0)] = 0
    batch: Annotated[int, Field(gt=0)] | Literal["all"] = 16  # 1: a step a sample; all: one step an epoch
    lr: Annotated[float, Field(gt=0)] = 0.01
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    patience: Annotated[int, Field(gt=0)] = 5  # plateau: epochs without a better figure until lr becomes a tenth
    stop_after: Annotated[int, Field(gt=0)] | None = None  # early stop: so many epochs without a better figure
    dropout: Share | None = None  # of the fully connected layers; None: the architecture's own
    balance: Literal["none", "remove", "copy"] = "none"  # classes of equal size: drop pictures, or copy with noise
    augment: AugmentSection = AugmentSection()
    seed: int = 0

    @model_validator(mode="after")
    def _validated(self) -> TrainSection:
        if self.validate_on is None and (self.schedule == "plateau" or self.stop_after is not None):
            raise ValueError("`schedule: plateau` and `stop_after` need `validate_on`: pictures to validate on")
        return self


Layers = tuple[str, ...]  # names of layers, with * as in file names


class LowRankStep(Section):
    """A kxk convolution becomes 1x1, kxk, 1x1 by Tucker-2; a linear layer two, by SVD."""

    layers: Layers = ("*",)
    rank: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the channels that the core keeps
    round_to: Annotated[int, Field(gt=0)] = 8


class ReduceStep(Section):
    """A 1x1 convolution to fewer channels before a 3x3 or 5x5."""

    layers: Layers = ("*",)
    share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of the input channels
    round_to: Annotated[int, Field(gt=0)] = 8


class BottleneckStep(Section):
    """Two 3x3 convolutions, one after the other, become 1x1, 3x3, 1x1."""

    layers: Layers = ("*",)  # the first of each pair
    share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of the channels that the 3x3 keeps


class FactorizeStep(Section):
    """stack: 5x5 to two 3x3, 7x7 to three; spatial: nxn to nx1 and 1xn; separable: depthwise and 1x1."""

    layers: Layers = ("*",)
    form: Literal["stack", "spatial", "separable"]


class PruneStep(Section):
    """Channels through the dependency graph."""

    macs: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of the MACs to remove: the smallest such cut
    channels: Annotated[float, Field(gt=0, lt=1)] | None = None  # or: share of the channels to remove
    criterion: Literal["taylor", "hessian", "magnitude", "bn_scale"] = "taylor"
    scope: Literal["global", "uniform"] = "global"
    round_to: Annotated[int, Field(gt=0)] = 8  # channels stay multiples of this
    rounds: Annotated[int, Field(gt=0)] = 1  # cut in so many steps, fine-tuned by `between` after each but the last
    between: TrainSection = TrainSection()
    data: DataSection | None = None  # to weigh channels on (taylor, hessian); None: that of `between`

    @model_validator(mode="after")
    def _one(self) -> PruneStep:
        if (self.macs is None) == (self.channels is None):
            raise ValueError("name either `macs` or `channels`: the share to remove")
        return self


class ClassesStep(Section):
    """Functional reduction: only the classes, and the input, that the scene needs."""

    keep: tuple[str, ...]
    height: Annotated[int, Field(gt=0)] | None = None
    width: Annotated[int, Field(gt=0)] | None = None


class FinetuneStep(TrainSection):
    """Training of the slimmed network, by default with the unslimmed one as teacher."""

    distill: Literal["none", "logits", "features"] = "logits"


class SearchStep(Section):
    """How much of each family of channels to cut, so that a target is met: exactly one of the first three."""

    latency: Annotated[float, Field(gt=0)] | None = None  # ms of one picture on one thread of this CPU, FP32
    macs: Annotated[float, Field(gt=0)] | None = None  # below 1: the share that stays; else a number of multiply-adds
    drop: Share | None = None  # the most that the figure (top-1, AP50) may lose, after `tune`
    policy: Literal["greedy", "evolutionary", "ranked"] = "greedy"  # ranked: by the criterion alone, no loss measured
    criterion: Literal["taylor", "hessian", "magnitude", "bn_scale"] = "taylor"  # which channels of a family go first
    round_to: Annotated[int, Field(gt=0)] = 8
    data: DataSection | None = None  # to judge cuts on; None: the first pictures of `tune.data`
    tune: FinetuneStep = FinetuneStep()  # after the cut; zero epochs leave it out
    seed: int = 0

    @model_validator(mode="after")
    def _one(self) -> SearchStep:
        if sum(target is not None for target in (self.latency, self.macs, self.drop)) != 1:
            raise ValueError("name one target: `latency`, `macs` or `drop`")
        return self


class SlimStep(Section):
    """One step: exactly one of its keys."""

    gap: Literal[True] | None = None  # global average pooling in place of the fully connected layers
    low_rank: LowRankStep | None = None
    reduce: ReduceStep | None = None
    bottleneck: BottleneckStep | None = None
    factorize: FactorizeStep | None = None
    prune: PruneStep | None = None
    sparsify: Literal["2:4"] | None = None  # two of four weights zero, as Ampere's sparse tensor cores take them
    classes: ClassesStep | None = None
    search: SearchStep | None = None
    finetune: FinetuneStep | None = None

    @model_validator(mode="after")
    def _one(self) -> SlimStep:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"a step has one key, such as `prune`; this one has {', '.join(named) or 'none'}")
        return self


class SlimSection(Section):
    """Steps in the order in which they are applied."""

    steps: Annotated[tuple[SlimStep, ...], Field(min_length=1)]
    check: DataSection | None = None  # accuracy before and after; None: the data of the recipe's own `check`


class ExportSection(Section):
    opset: Annotated[int, Field(ge=13, le=20)] = 17
    tolerance: Annotated[float, Field(gt=0)] = 1e-3  # largest difference from torch, relative to the output's range
    compare: DataSection = DataSection(seed=9100, pictures=4)


class QatSection(Section):
    """Quantisation-aware training: fine-tuning under INT8 rounding, with the FP32 network as teacher."""

    epochs: Annotated[int, Field(gt=0)] = 6
    lr: Annotated[float, Field(gt=0)] = 3e-4  # relative to the size of each weight
    batch: Annotated[int, Field(gt=0)] = 8
    data: DataSection | None = None  # labels are not looked at; None: the calibration pictures
    seed: int = 0


class QuantizeSection(Section):
    calibration: Path | None = None  # a list in calibration/; None: `data`
    data: DataSection = DataSection(seed=9200, pictures=64)
    # tensor → method, names with * as in file names; a method alone is that of all
    ranges: dict[str, RangeMethod] = Field(default={"default": "percentile"})
    ranges_from: Path | None = None  # a ranges.json of an earlier quantize: its figures, whatever the pictures say
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    bins: Annotated[int, Field(ge=2048)] = 4096
    keep_float: tuple[str, ...] = ()  # node names that stay in FP32
    qat: QatSection | None = None

    @field_validator("ranges", mode="before")
    @classmethod
    def _by_tensor(cls, value: Any) -> Any:
        return {"default": "percentile"} | (value if isinstance(value, dict) else {"default": value})


class BuildSection(Section):
    target: str = "rtx-sm86"  # `edgecnn targets` lists them
    # int8: what the graph leaves in float stays FP32; int8+fp16: it becomes FP16; fp16: no INT8 at all
    precision: Literal["int8", "int8+fp16", "fp16"] = "int8"
    workspace_mib: Annotated[int, Field(gt=0)] = 256  # at most half of the free memory is taken on a board
    version_compatible: bool = False  # the engine loads in later versions of TensorRT too: 8.6 and later


class RegionsSection(Section):
    """The network's second input size, multiples of its largest stride: parts of the frame are looked at in it."""

    height: Annotated[int, Field(gt=0)] = 96
    width: Annotated[int, Field(gt=0)] = 160


class RunSection(Section):
    score: Share = 0.3
    iou: Share = 0.5
    detect_every: Annotated[int, Field(gt=0)] = 3  # frames from one look at the whole frame to the next at most
    regions: RegionsSection | None = None
    # with regions: mean share of the MACs of a detection in every frame; None: windows in every frame between
    budget: Annotated[float, Field(gt=0, le=1)] | None = None
    deadline_ms: Annotated[float, Field(ge=0)] = 0.0  # of a frame: what would take longer is not begun; 0 = none


class ScenarioTests(Section):
    names: Annotated[tuple[str, ...], Field(min_length=1)]  # shipped scenarios, or YAML files
    trials: Annotated[int, Field(ge=1)] = 7
    seed: int = 9600  # of the first trial


class CheckSection(Section):
    data: DataSection = DataSection(kind="sim_drive", seed=9300, pictures=100, drives=2)
    gates: dict[str, float] = Field(default_factory=dict)  # metric -> least value
    max_drop: dict[str, float] = Field(default_factory=dict)  # metric -> largest loss of INT8 against FP32
    max_slim_drop: dict[str, float] = Field(default_factory=dict)  # the same of FP32 against FP32 before slimming
    scenarios: ScenarioTests | None = None  # warnings missed and false are counted in them
    baseline: Path | None = None  # what an earlier `edgecnn check --update` wrote
    baseline_drop: Annotated[float, Field(ge=0)] = 0.01  # largest loss against the baseline


class Recipe(Section):
    """One model's way from the zoo to the board."""

    name: str
    seed: int | None = None  # of every training and search that names none of its own
    model: ModelSection
    train: TrainSection = TrainSection()
    slim: SlimSection | None = None
    export: ExportSection = ExportSection()
    quantize: QuantizeSection = QuantizeSection()
    build: BuildSection | None = BuildSection()
    run: RunSection = RunSection()
    check: CheckSection = CheckSection()

    @model_validator(mode="before")
    @classmethod
    def _data(cls, raw: Any) -> Any:
        """Where a recipe names pictures to train on and no others, slimming, export and quantisation take those too.
        So it is with its seed."""
        match raw:
            case {"seed": int() as seed}:
                raw = _with_seed(raw, seed)
        match raw:
            case {"train": {"data": dict() as data}}:
                few = {**data, "pictures": min(64, data.get("pictures", 64))}
                sections = ("slim", "export", "quantize") if "slim" in raw else ("export", "quantize")
                return raw | {key: _with_data(key, raw.get(key, {}), data, few) for key in sections}
        return raw

    def searching(self, **target: Any) -> Recipe:
        """The same with a search to this target (keys of SearchStep) in place of its prune, search and finetune steps.

        What is not named comes from them: the data to judge cuts on, and the fine-tuning after the cut. Raises
        RecipeError where the target is none.
        """
        steps = self.slim.steps if self.slim else ()
        own: dict[str, Any] = {}
        for step in steps:
            if step.search is not None:
                own = {k: v for k, v in step.search if k not in ("latency", "macs", "drop")} | own
            elif step.prune is not None:
                own = {
                    "data": step.prune.data,
                    "criterion": step.prune.criterion,
                    "round_to": step.prune.round_to,
                } | own
            elif step.finetune is not None:
                own.setdefault("tune", step.finetune)
        # without fine-tuning in the recipe: a quarter of its training, at a quarter of the rate
        train = dict(self.train)
        own.setdefault("tune", FinetuneStep(**train | {"epochs": -(-self.train.epochs // 4), "lr": self.train.lr / 4}))
        try:
            found = SearchStep(**{**own, **{k: v for k, v in target.items() if v is not None}})
        except ValidationError as error:
            raise RecipeError(f"the search: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        kept = tuple(s for s in steps if s.prune is None and s.search is None and s.finetune is None)
        section = self.slim or SlimSection(steps=(SlimStep(search=found),))
        changed = section.model_copy(update={"steps": (*kept, SlimStep(search=found))})
        return self.model_copy(update={"slim": changed})

    def building(self, **given: Any) -> Recipe:
        """The same with these keys of its `build` section, those that are None left as they are."""
        section = (self.build or BuildSection()).model_copy(update={k: v for k, v in given.items() if v is not None})
        return self.model_copy(update={"build": section})


def _with_data(key: str, section: Any, data: dict[str, Any], few: dict[str, Any]) -> Any:
    """A raw section, or what else stands in its place, with the data that it does not name."""
    match key, section:
        case "export", dict():
            return {"compare": {**few, "pictures": 4}} | section
        case "quantize", dict():
            own = {} if "calibration" in section else {"data": few}
            qat = {"qat": {"data": data} | section["qat"]} if isinstance(section.get("qat"), dict) else {}
            return own | section | qat
        case "slim", {"steps": list() as steps}:
            return section | {"steps": [_step_with_data(step, data, few) for step in steps]}
    return section


def _with_seed(raw: dict[str, Any], seed: int) -> dict[str, Any]:
    """A raw recipe whose trainings and searches have this seed, but for those that have one."""

    def seeded(section: Any) -> Any:
        return {"seed": seed} | section if isinstance(section, dict) else section

    def step(raw: Any) -> Any:
        match raw:
            case {"finetune": dict() as own}:
                return {**raw, "finetune": seeded(own)}
            case {"prune": {"between": dict() as between} as own}:
                return {**raw, "prune": {**own, "between": seeded(between)}}
            case {"search": dict() as own}:
                return {**raw, "search": {**seeded(own), "tune": seeded(own.get("tune", {}))}}
        return raw

    raw = {**raw, "train": seeded(raw.get("train", {}))}
    match raw:
        case {"quantize": {"qat": dict() as qat} as quantize}:
            raw["quantize"] = {**quantize, "qat": seeded(qat)}
    match raw:
        case {"slim": {"steps": list() as steps} as slim}:
            raw["slim"] = {**slim, "steps": [step(each) for each in steps]}
    return raw


def _step_with_data(step: Any, data: dict[str, Any], few: dict[str, Any]) -> Any:
    match step:
        case {"finetune": dict() as own}:
            return {**step, "finetune": {"data": data} | own}
        case {"prune": dict() as own}:
            return {**step, "prune": {"data": few} | own}
        case {"search": dict() as own}:
            return {**step, "search": {"data": few, **own, "tune": {"data": data} | own.get("tune", {})}}
    return step


def load(path: Path | str, edit: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Recipe:
    """Read a recipe, or the shipped one of that name. Relative paths in it count from the recipe's own folder. `edit`
    sees what the file says first.

    Raises InputError if there is no such file, RecipeError naming the key if its content is wrong.
    """
    path = find(Path(path))
    if not path.is_file():
        raise InputError(f"no recipe at {path}", do="`edgecnn recipes` lists the shipped ones")
    resolved: Recipe = _resolve(read(path, Recipe, "name:, model:", edit), path.resolve().parent)
    return resolved


def dumped(recipe: Recipe) -> str:
    """A recipe as YAML that `load` reads as the same, wherever the file lies: paths are absolute."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)


def read(path: Path, kind: type[S], keys: str, edit: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> S:
    """A YAML file as a section of this kind; `keys` are examples of those wanted. `edit` changes it first.

    Raises RecipeError, one line, naming the key if its content is wrong.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise RecipeError(f"{path}{line} is not YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path} holds {'nothing' if data is None else type(data).__name__}", wanted=f"keys such as {keys}"
        )
    try:
        return kind.model_validate(edit(data) if edit else data)
    except ValidationError as error:
        raise RecipeError(_explain(path, kind, error)) from error


def paths(section: Section) -> Iterator[Path]:
    """Every file or folder that a recipe, or a part of it, names."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Section):
                yield from paths(each)
            elif isinstance(each, Path):
                yield each


def _explain(path: Path, kind: type[Section], error: ValidationError) -> str:
    """The first complaint, as one line with the key's place and, for an unknown key, the nearest known one."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key also makes one missing
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _keys_at(kind, first["loc"][:-1])
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"{path}: unknown key '{place}'; {hint}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        near = difflib.get_close_matches(str(first["input"]), known, 1)
        message = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{path}: key '{place}' is missing"
    came = "" if isinstance(first["input"], dict) else f" (came: {first['input']!r})"
    where = f" key '{place}':" if place else ""
    return f"{path}:{where} {message}{came}"


def _keys_at(kind: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    """Known keys of the section at a place in the file."""
    section: Any = kind
    for part in loc:
        if isinstance(part, int):  # place in a list: the section is that of its elements
            continue
        section = next(sections_in(section.model_fields[part].annotation))
    return list(section.model_fields)


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Every Section in a type such as `tuple[SlimStep, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def _resolve(section: Any, root: Path) -> Any:
    """The same section with every relative path made absolute from `root`."""
    changes = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            changes[name] = _resolve(value, root)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            changes[name] = tuple(_resolve(each, root) for each in value)
        elif isinstance(value, Path):
            changes[name] = value if value.is_absolute() else root / value
    return section.model_copy(update=changes)
