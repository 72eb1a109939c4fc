"""The bundle: one directory in which the stages meet, and all that a board must know of a model.

    adas.bundle/
      manifest.json            ModelSpec + a record a stage: key, parent, settings, tools, facts, sha256 of files
      weights.safetensors      train (or the weights that the recipe names)
      slim.safetensors         slim
      model.onnx               export: FP32
      model.regions*.onnx  export, quantize: the three networks at the second input size, where the recipe names one
      model.int8.onnx          quantize: TensorRT's form (s8, zero point 0)
      model.int8.cpu.onnx      quantize: the same scales for onnxruntime on a CPU (u8 activations)
      ranges.json              quantize: amax of every tensor
      histograms.json          quantize: how the magnitudes of every such tensor are spread
      model.<target>.half.onnx build: the network typed in FP16, where that was asked for
      model.<target>.engine    build

A file is hashed before it is opened: `Bundle.file(role)` is the only way in. Nothing here imports torch or onnx.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgecnn import __version__
from edgecnn.errors import BundleError, InputError, ModelError

FORMAT = 1
MANIFEST = "manifest.json"
STAGES = ("train", "slim", "export", "quantize", "build")  # in the order in which each builds on the one before

Decoder = Literal["logits", "embedding", "roadnet", "yolox"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network."""

    name: str
    shape: tuple[int, ...]  # NCHW for pictures
    dtype: Literal["float32", "uint8"] = "float32"


@dataclass(frozen=True)
class LayerSpec:
    """One layer that slimming put into a network, by what it is: a checkpoint describes itself without pickle."""

    kind: Literal["conv", "bn", "linear", "relu", "gap", "flatten", "identity"]
    inputs: int = 0  # conv, linear; channels of bn
    outputs: int = 0
    kernel: tuple[int, int] = (1, 1)  # height, width, as stride and padding
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    bias: bool = True

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerSpec:
        pairs = {k: (int(data[k][0]), int(data[k][1])) for k in ("kernel", "stride", "padding") if k in data}
        return cls(**{**data, **pairs})


@dataclass(frozen=True)
class ModelSpec:
    """All that a board must know of a model; JSON in the manifest."""

    arch: str  # zoo name, or "onnx" for a network that the user brought
    task: Literal["classify", "detect", "embed"]  # embed: one vector a picture, near those of alike pictures
    classes: tuple[str, ...]  # none where the task is to embed
    input: TensorSpec
    outputs: tuple[TensorSpec, ...] = ()
    decode: Decoder = "logits"
    strides: tuple[int, ...] = ()  # of the detector's levels, px
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in the order of `channels`, 0-255 scale
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: Literal["bgr", "rgb", "grey"] = "bgr"
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    pad: int = 114  # grey level around a letterboxed picture, 0-255
    # (height, width) of the second input size, for regions of the frame packed into one picture; None: there is none
    regions: tuple[int, int] | None = None
    # (inputs, outputs) of each layer AFTER slimming; empty: as the zoo has it
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    # name of a layer of the zoo's network -> the layers that slimming put in its place, one after the other
    replaced: Mapping[str, tuple[LayerSpec, ...]] = field(default_factory=dict)

    @property
    def height(self) -> int:
        return self.input.shape[2]

    @property
    def width(self) -> int:
        return self.input.shape[3]

    @property
    def at_regions(self) -> ModelSpec:
        """The same network at its second input size. Raises ModelError where it has none."""
        if self.regions is None:
            raise ModelError("a model without a second input size", do="Set run.regions in the recipe and compile it")
        return replace(self, input=replace(self.input, shape=(*self.input.shape[:2], *self.regions)), outputs=())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Raises BundleError where the JSON is not a ModelSpec of this version."""

        def tensor(t: Mapping[str, Any]) -> TensorSpec:
            return TensorSpec(t["name"], tuple(int(n) for n in t["shape"]), t["dtype"])

        try:
            return cls(
                **{
                    **data,
                    "classes": tuple(data["classes"]),
                    "input": tensor(data["input"]),
                    "outputs": tuple(tensor(t) for t in data["outputs"]),
                    "strides": tuple(data["strides"]),
                    "mean": tuple(data["mean"]),
                    "std": tuple(data["std"]),
                    "regions": tuple(data["regions"]) if data.get("regions") else None,
                    "widths": {name: (int(i), int(o)) for name, (i, o) in data["widths"].items()},
                    "replaced": {n: tuple(map(LayerSpec.from_json, rows)) for n, rows in data["replaced"].items()},
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"the model description is not readable ({error!r})",
                wanted=f"one written by edgecnn {__version__}",
                do="Compile the recipe again",
            ) from error


@dataclass(frozen=True)
class StageRecord:
    """What one stage did: enough to know whether to do it again, and to tell a reader how the files came about."""

    key: str  # hash of the parent's key, the settings and the stage's code version
    parent: str  # key of the stage before, "" for the first
    settings: Mapping[str, Any]
    files: Mapping[str, tuple[str, str]]  # role -> (file name, sha256)
    made_on: Mapping[str, str]  # tool versions, platform, time
    facts: Mapping[str, Any]  # figures that the stage measured: they land in reports
    model: ModelSpec | None = None  # as this stage left it: slimming changes the widths


@dataclass(frozen=True)
class Bundle:
    """A directory: manifest.json and the files that it names."""

    path: Path
    name: str = ""
    model: ModelSpec | None = None
    stages: Mapping[str, StageRecord] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # the recipe's `run` and `check` sections: the defaults

    @classmethod
    def read(cls, path: Path | str, *, trust: Callable[[bytes], None] | None = None) -> Bundle:
        """Read the manifest. Raises InputError where there is no folder, BundleError if it is no bundle or damaged.

        `trust` sees the manifest's bytes before they are parsed, and raises if they are not to be (edgecnn.signature).
        """
        path = Path(path)
        made = {"wanted": "a bundle made by `edgecnn compile`", "do": "Run: edgecnn compile RECIPE"}
        if not path.is_dir():
            raise InputError(f"{path} is a file" if path.exists() else f"there is nothing at {path}", **made)
        manifest = path / MANIFEST
        if not manifest.is_file():
            raise BundleError(f"{path} holds no {MANIFEST}", **made)
        raw = manifest.read_bytes()
        if trust:
            trust(raw)
        try:
            data = json.loads(raw.decode("utf-8"))
            if data["format"] != FORMAT:
                raise BundleError(
                    f"{manifest} has format {data['format']}", wanted=f"format {FORMAT}", do="Compile the recipe again"
                )
            body = {k: v for k, v in data.items() if k != "sha256"}
            if data["sha256"] != _digest(body):
                raise BundleError(f"{manifest} was changed after it was written", do="Compile the recipe again")
            stages = {name: _record(record) for name, record in data["stages"].items()}
            return cls(path, data["name"], _model(data["model"]), stages, data["settings"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{manifest} is damaged ({error})", wanted="the JSON that edgecnn wrote", do="Compile the recipe again"
            ) from error

    def require_model(self) -> ModelSpec:
        if self.model is None:
            raise BundleError(f"{self.path} has no model yet", do="Run the train stage first: edgecnn compile RECIPE")
        return self.model

    def has(self, role: str) -> bool:
        return any(role in s.files for s in self.stages.values())

    def file(self, role: str) -> Path:
        """The path of a file, after its sha256 was checked. The latest stage that wrote the role wins.

        Raises BundleError if no stage wrote it, it is gone, or a byte was changed.
        """
        for stage in reversed(STAGES):
            record = self.stages.get(stage)
            if record and role in record.files:
                name, wanted = record.files[role]
                path = self.path / name
                if not path.is_file():
                    raise BundleError(f"{path} is missing", do=f"Make it again: edgecnn compile (stage {stage})")
                if (came := sha256(path)) != wanted:
                    raise BundleError(
                        f"{path} was changed since it was made (sha256 {came[:12]}…)",
                        wanted=f"{wanted[:12]}…",
                        do=f"Make it again: edgecnn compile (stage {stage})",
                    )
                return path
        raise BundleError(
            f"{self.path} holds no '{role}' file (it has: {', '.join(sorted(self.roles())) or 'nothing'})",
            do=f"Run the stage that makes it: {_MAKERS.get(role, 'edgecnn compile RECIPE')}",
        )

    def roles(self) -> set[str]:
        return {role for s in self.stages.values() for role in s.files}

    def intact(self, stage: str) -> bool:
        """Whether every file of a stage is there, byte for byte."""
        record = self.stages.get(stage)
        if record is None:
            return False
        paths = {self.path / name: digest for name, digest in record.files.values()}
        return all(path.is_file() and sha256(path) == digest for path, digest in paths.items())

    def parent_key(self, stage: str) -> str:
        """Key of the nearest earlier stage that ran, "" if none did."""
        for earlier in reversed(STAGES[: STAGES.index(stage)]):
            if earlier in self.stages:
                return self.stages[earlier].key
        return ""

    def before(self, stage: str) -> Bundle:
        """The bundle as a stage finds it: without the records of this and later stages, the model as it then was."""
        kept = {s: self.stages[s] for s in STAGES[: STAGES.index(stage)] if s in self.stages}
        return replace(self, stages=kept, model=next((r.model for r in reversed(kept.values())), None))

    def with_stage(
        self,
        stage: str,
        *,
        settings: Mapping[str, Any],
        version: int,
        files: Mapping[str, str],
        facts: Mapping[str, Any],
        tools: Mapping[str, str],
        model: ModelSpec | None = None,
    ) -> Bundle:
        """Record a stage whose files (role -> file name) already lie in the folder, and write the manifest atomically.

        Later stages are forgotten: they were made from other inputs.
        """
        record = StageRecord(
            key=stage_key(self.parent_key(stage), settings, version),
            parent=self.parent_key(stage),
            settings=settings,
            files={role: (name, sha256(self.path / name)) for role, name in files.items()},
            made_on=dict(tools),
            facts=facts,
            model=model or self.model,
        )
        earlier = STAGES[: STAGES.index(stage)]
        kept = {s: r for s, r in self.stages.items() if s in earlier}
        bundle = replace(self, model=model or self.model, stages={**kept, stage: record})
        bundle.write()
        return bundle

    def write(self) -> None:
        """Write manifest.json atomically."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "model": None if self.model is None else asdict(self.model),
            "stages": {name: asdict(record) for name, record in self.stages.items()},
            "settings": self.settings,
        }
        data = json.loads(json.dumps(data, default=_plain))
        data["sha256"] = _digest(data)
        with atomic(self.path / MANIFEST) as temporary:
            temporary.write_text(json.dumps(data, indent=1), "utf-8")


_MAKERS = {
    "weights": "edgecnn train RECIPE",
    "slim": "edgecnn slim RECIPE",
    "fp32": "edgecnn export RECIPE",
    "int8": "edgecnn quantize RECIPE",
    "int8_cpu": "edgecnn quantize RECIPE",
    "engine": "edgecnn build RECIPE",
    "fp32_regions": "edgecnn export RECIPE",
    "int8_regions": "edgecnn quantize RECIPE",
    "int8_cpu_regions": "edgecnn quantize RECIPE",
    "engine_regions": "edgecnn build RECIPE",
}


def _record(data: Mapping[str, Any]) -> StageRecord:
    files = {role: (str(name), str(digest)) for role, (name, digest) in data["files"].items()}
    if outside := [name for name, _ in files.values() if Path(name).name != name]:
        raise ValueError(f"it names a file outside of its folder: {outside[0]}")
    return StageRecord(**{**data, "files": files, "model": _model(data["model"])})


def _model(data: Mapping[str, Any] | None) -> ModelSpec | None:
    return None if data is None else ModelSpec.from_json(data)


def stage_key(parent: str, settings: Mapping[str, Any], version: int) -> str:
    """What a stage's output depends on: its parent, its settings, and the version of its code."""
    return _digest({"parent": parent, "settings": settings, "version": version, "edgecnn": __version__})


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """JSON for paths, numpy scalars and mappings."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a manifest")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place, flushed and synced, only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def network_at(path: Path, *roles: str) -> Path:
    """An ONNX file as it is; of a bundle the file of the first of these roles that it has.

    Raises InputError where there is nothing, BundleError for a bundle that has none of them or was changed.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"there is nothing at {path}", wanted="a bundle, or an ONNX file")
    bundle = Bundle.read(path)
    return bundle.file(next((role for role in roles if bundle.has(role)), roles[0]))


def check_outputs(model: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Hold a network's real outputs against what its decoder needs. Raises ModelError."""
    classes = len(model.classes)
    anchors = sum(math.ceil(model.height / s) * math.ceil(model.width / s) for s in model.strides)
    came = [tuple(shape) for shape in shapes.values()]
    length = came[0][1:2] if came else ()
    rules: dict[str, Callable[[], list[tuple[int, ...]]]] = {
        "logits": lambda: [(1, classes)],
        "embedding": lambda: [(1, *(length or (1,)))],  # of any length
        "roadnet": lambda: [(1, anchors, 4), (1, anchors, classes)],
        "yolox": lambda: [(1, anchors, 5 + classes)],
    }
    wanted = rules[model.decode]()
    if came != wanted:
        raise ModelError(
            f"the network answers with {dict(shapes)} for a {model.width}x{model.height} input",
            wanted=f"{wanted} for decoder '{model.decode}', {classes} classes, strides {list(model.strides)}",
            do="Name the decoder, classes and input that the network was trained with under `model:` in the recipe",
        )
