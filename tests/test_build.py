"""Targets, the check before a build, real builds with TensorRT for RTX where it is here, and what the log proves."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from tiny_onnx import SHAPE, feeds, tiny

from edgecnn.build import lint, run_stage, trt, worker
from edgecnn.build.targets import TARGETS, find
from edgecnn.build.xray import layers, xray
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BuildError, EdgecnnError, MissingDependency
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection, Recipe


@pytest.fixture(scope="module")
def int8() -> ModelProto:
    return quantize(tiny(), feeds(4), QuantizeSection()).tensorrt


@pytest.fixture
def file(int8: ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.int8.onnx"
    onnx.save(int8, path)
    return path


# ---- targets


def test_every_int8_target_with_a_tensorrt_we_speak_is_found() -> None:
    found = {name for name in TARGETS if TARGETS[name].int8 and TARGETS[name].supported}
    assert found == {
        *("orin", "orin-nx", "orin-nano", "thor"),
        *("rtx-sm80", "rtx-sm86", "rtx-sm89", "rtx-sm120", "rtx-sm121"),
    }
    for name in found:
        assert find(name) is TARGETS[name]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nano", "its GPU has no INT8"),
        ("tx2", "its GPU has no INT8"),
        ("rtx-sm75", "into float there without a word"),
        ("xavier", "ends at JetPack 4.6: TensorRT 8.2.1, JetPack 5.1: TensorRT 8.5.2"),
        ("orinn", "did you mean 'orin'"),
        ("ps5", "no target 'ps5'; wanted one of orin, "),
    ],
)
def test_other_targets_are_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        find(name)


# ---- the check before the build


def refused_op(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("NonZero", ["fc"], ["where"], "where"))


def test_a_network_with_an_error_is_not_built(file: Path) -> None:
    bad = onnx.load(file)
    refused_op(bad)
    bad.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, ["rank", "found"]))
    onnx.save(bad, file)
    with pytest.raises(BuildError, match=r"where: TensorRT for RTX 1.7 refuses NonZero"):
        lint.require(file, lint.find("rtx"))


def test_meant_names_the_kernels_between_pairs(int8: ModelProto) -> None:
    assert lint.meant(int8) == ("stem", "depthwise", "pointwise", "left", "mix", "fc")
    assert lint.meant(tiny()) == ()


# ---- evidence

LINE = (
    "Name: {0}_myl0_1, LayerType: {1}, Inputs: [ {{ Name: a, Dimensions: [1,3,8,8], Datatype: {2}, Format: (NHWC) }}], "
    "Constants: [ {{ Name: c, Dimensions: [3,3], Datatype: {2}, Format: (NHWC) }}], "
    "Outputs: [ {{ Name: b, Dimensions: [1,3,8,8], Datatype: Float, Format: (NHWC) }}], "
    "TacticName: t, StreamId: 0, Metadata: [ONNX Layer: {0}][ONNX Layer: {0}.weight_DQ]"
)


def test_xray_counts_what_the_log_shows() -> None:
    log = [
        "Layers:",
        LINE.format("one", "correlation", "Int8"),
        LINE.format("two", "correlation", "Float"),
        LINE.format("three", "kgen", "Int8"),  # a helper kernel is no evidence for the convolution itself
    ]
    first = layers(log)[0]
    assert (first.kind, first.input, first.output, first.constant) == ("correlation", "Int8", "Float", "Int8")
    seen = xray(log, ("one", "two", "three"))
    assert (seen.int8, seen.meant, seen.floats, seen.unseen) == (1, 3, ("two",), ("three",))
    assert str(seen) == "1 of 3 kernels are INT8, in float: two, not named in the log: three"
    assert len(seen.table().splitlines()) == 3


@pytest.mark.parametrize("log", [[], ["Layers:", "Name: x"], [LINE.format("other", "correlation", "Int8")]])
def test_xray_without_evidence_says_so(log: list[str]) -> None:
    seen = xray(log, ("one",))
    assert seen.int8 is None and str(seen).startswith("no evidence")


# ---- TensorRT for RTX: real builds


@pytest.mark.parametrize("target", ["rtx-sm86", "rtx-sm89"])
def test_real_builds_are_int8_and_byte_identical(file: Path, tmp_path: Path, target: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    seen = []
    for name in ("a.engine", "b.engine"):
        built = worker.build_apart(file, find(target), 64, tmp_path / name)
        seen.append(xray(built.log, lint.meant(onnx.load(file))))
    assert [(s.int8, s.meant) for s in seen] == [(6, 6)] * 2
    assert (tmp_path / "a.engine").read_bytes() == (tmp_path / "b.engine").read_bytes() != b""
    assert not list(tmp_path.glob("*.log"))


def test_the_builder_refuses_in_one_line(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    model = onnx.load(file)
    refused_op(model)
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, None))
    onnx.save(model, file)
    with pytest.raises(BuildError, match=r"tensorrt_rtx 1.* does not (read|build) model\.int8\.onnx") as caught:
        worker.build_apart(file, find("rtx-sm86"), 64, tmp_path / "a.engine")
    assert "\n" not in str(caught.value) and not (tmp_path / "a.engine").exists()


def test_a_crash_becomes_one_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(BuildError, match=r"ended by signal 11 on model\.int8\.onnx"):
        worker.build_apart(file, find("rtx-sm86"), 64, tmp_path / "a.engine")


@pytest.mark.parametrize(
    ("module", "target", "hint"),
    [("tensorrt_rtx", "rtx-sm86", r"pip install 'edgecnn\[rtx\]'"), ("tensorrt", "orin", "run `edgecnn build` there")],
)
def test_a_missing_tensorrt_names_what_to_do(
    module: str, target: str, hint: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / f"{module}.py").write_text("raise ImportError('not on this machine')")
    monkeypatch.setattr(worker, "ROOT", f"{hidden}:{worker.ROOT}")
    with pytest.raises(MissingDependency, match=hint):
        worker.build_apart(file, find(target), 64, tmp_path / "a.engine")


# ---- TensorRT 10 and 11: a stand-in with their names and no others


class Strict:
    """Attributes may be set only where the real class has them."""

    names: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.names:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        object.__setattr__(self, name, value)


def stand_in(version: str, *, plan: bytes | None = b"plan", parses: bool = True) -> types.ModuleType:
    class Config(Strict):
        names = ("profiling_verbosity", "progress_monitor")

        def set_memory_pool_limit(self, pool: str, size: int) -> None:
            assert (pool, size) == ("workspace", 64 << 20)

    class Network:
        num_layers = 7

    class Logger:
        ERROR, INTERNAL_ERROR = "error", "internal"

    class Monitor: ...

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            assert flags == 2  # strongly typed, nothing else
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
            monitor = config.progress_monitor
            monitor.phase_start("Building", None, 2)
            monitor.phase_start("Timing", "Building", 9)
            assert monitor.step_complete("Building", 0) is True
            monitor.phase_finish("Timing")
            monitor.phase_finish("Building")
            self.logger.log("info", "first\nsecond")
            if plan is None:
                self.logger.log("error", "out of memory")
            return plan

    class Parser:
        num_errors = 1

        def __init__(self, network: Network, logger: Any) -> None: ...

        def parse(self, data: bytes) -> bool:
            return parses

        def get_error(self, index: int) -> Any:
            return types.SimpleNamespace(desc=lambda: "no importer for op Foo")

    module = types.ModuleType("tensorrt")
    module.__dict__.update(
        __version__=version,
        ILogger=Logger,
        IProgressMonitor=Monitor,
        Builder=Builder,
        OnnxParser=Parser,
        NetworkDefinitionCreationFlag=types.SimpleNamespace(STRONGLY_TYPED=1),
        ProfilingVerbosity=types.SimpleNamespace(DETAILED="detailed"),
        MemoryPoolType=types.SimpleNamespace(WORKSPACE="workspace"),
    )
    return module


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_trt_adapter_uses_names_of_10_and_11_only(version: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(version))
    assert trt.build(file, 87, 64) == (b"plan", ["first", "second"], version)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (stand_in("8.6.1"), "TensorRT 8.6.1; wanted TensorRT 10 or 11"),
        (stand_in("10.3.0", plan=None), "does not build model.int8.onnx: out of memory"),
        (stand_in("10.3.0", parses=False), "does not read model.int8.onnx: no importer for op Foo"),
    ],
)
def test_trt_adapter_refuses(module: types.ModuleType, why: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(BuildError, match=why):
        trt.build(file, 87, 64)


# ---- the stage


def bundle_of(file: Path) -> Bundle:
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE))
    return Bundle(file.parent, "tiny").with_stage(
        "quantize", settings={}, version=1, files={"int8": file.name}, facts={}, tools={}, model=spec
    )


def recipe(target: str) -> Recipe:
    return Recipe.model_validate({"name": "tiny", "model": {"arch": "lenet5"}, "build": {"target": target}})


def test_stage_records_the_engine_and_the_evidence(file: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    bundle = run_stage(bundle_of(file), recipe("rtx-sm86"))
    assert bundle.file("engine").name == "model.rtx-sm86.engine"
    facts = bundle.stages["build"].facts
    assert (facts["kernels_int8"], facts["kernels_meant_int8"], facts["evidence"]) == (6, 6, "6 of 6 kernels are INT8")
    assert facts["bytes"] == bundle.file("engine").stat().st_size and len(facts["layers"]) == 7


@pytest.mark.parametrize("target", ["orin", "nano", "rtx-sm75"])
def test_a_failed_stage_leaves_nothing_behind(file: Path, target: str) -> None:
    bundle = bundle_of(file)
    before = sorted(p.name for p in file.parent.iterdir())
    with pytest.raises(EdgecnnError):
        run_stage(bundle, recipe(target))
    assert sorted(p.name for p in file.parent.iterdir()) == before
