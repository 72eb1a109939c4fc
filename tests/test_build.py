"""Targets, the check before a build, real builds with TensorRT for RTX where it is here, and what the log proves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from tiny_onnx import SHAPE, feeds, tiny

from edgecnn.build import lint, readers, run_stage, stale, trt, worker
from edgecnn.build.network import Options
from edgecnn.build.targets import TARGETS, find
from edgecnn.build.xray import xray
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec, sha256
from edgecnn.compile import _reason
from edgecnn.engine import tie
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
        *("orin", "orin-nx", "orin-nx-8", "orin-nano", "orin-nano-super", "thor"),
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
    first = readers.log(log)[0]
    assert (first.kind, first.input, first.output, first.weight) == ("correlation", "Int8", "Float", "Int8")
    seen = xray(readers.log(log), ("one", "two", "three"))
    assert (seen.int8, seen.meant, seen.floats, seen.unseen) == (1, 3, ("two",), ("three",))
    assert str(seen) == "1 of 3 kernels are INT8, in float: two, not named in the log: three"
    assert len(seen.table().splitlines()) == 3


@pytest.mark.parametrize("log", [[], ["Layers:", "Name: x"], [LINE.format("other", "correlation", "Int8")]])
def test_xray_without_evidence_says_so(log: list[str]) -> None:
    seen = xray(readers.log(log), ("one",))
    assert seen.int8 is None and str(seen).startswith("no evidence")


# ---- TensorRT for RTX: real builds


@pytest.mark.parametrize("target", ["rtx-sm86", "rtx-sm89"])
def test_real_builds_are_int8_and_byte_identical(file: Path, tmp_path: Path, target: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    before = sorted(tmp_path.iterdir())
    built = [worker.build_apart(file, find(target), Options(64)) for _ in range(2)]
    seen = [xray(readers.log(one.log), lint.meant(onnx.load(file))) for one in built]
    assert [(s.int8, s.meant) for s in seen] == [(6, 6)] * 2
    assert built[0].engine == built[1].engine != b""
    assert built[0].flags == ("STRONGLY_TYPED",) and sorted(tmp_path.iterdir()) == before


def test_the_builder_refuses_in_one_line(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    model = onnx.load(file)
    refused_op(model)
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, None))
    onnx.save(model, file)
    with pytest.raises(BuildError, match=r"tensorrt_rtx 1.* does not (read|build) model\.int8\.onnx") as caught:
        worker.build_apart(file, find("rtx-sm86"), Options(64))
    assert "\n" not in str(caught.value)


def test_a_crash_becomes_one_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(BuildError, match=r"ended by signal 11 on model\.int8\.onnx"):
        worker.build_apart(file, find("rtx-sm86"), Options(64))


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
        worker.build_apart(file, find(target), Options(64))


# ---- TensorRT 8.2 to 11: a stand-in that has the names of its version, and no others


class Strict:
    """Attributes may be set only where the real class has them."""

    names: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.names:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        object.__setattr__(self, name, value)


class Stand:
    """Makes a module `tensorrt` of a version, and keeps what was asked of it."""

    def __init__(
        self, version: str, *, plan: bytes | None = b"plan", parses: bool = True, dynamic: bool = False
    ) -> None:
        self.asked: dict[str, Any] = {"flags": []}
        number = tuple(int(part) for part in version.split(".")[:2])
        asked = self.asked

        class Cache:
            def __init__(self, data: bytes) -> None:
                self.data = data

            def serialize(self) -> bytes:
                return self.data + b"+timed"

        class Config(Strict):
            names = ("profiling_verbosity", *(("progress_monitor",) if number >= (10, 0) else ("max_workspace_size",)))

            def set_flag(self, flag: str) -> None:
                asked["flags"].append(flag)

            def create_timing_cache(self, data: bytes) -> Cache:
                return Cache(data)

            def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
                assert ignore_mismatch is False
                asked["timing"] = cache
                return cache.data != b"foreign"

            def get_timing_cache(self) -> Cache:
                return asked["timing"]

            def add_optimization_profile(self, profile: Any) -> int:
                asked["profile"] = profile.shapes
                return 0

        if number >= (8, 4):
            Config.set_memory_pool_limit = lambda self, pool, size: asked.update({pool: size})  # type: ignore[attr-defined]
        if number >= (10, 0):
            Config.progress_monitor = None  # type: ignore[attr-defined]

        class Network:
            num_layers, num_inputs = 2, 1

            def get_layer(self, index: int) -> Any:
                return types.SimpleNamespace(type=("convolution", "quantize")[index])

            def get_input(self, index: int) -> Any:
                return types.SimpleNamespace(name="x", shape=(-1 if dynamic else 1, 3, 32, 48))

        class Logger:
            ERROR, INTERNAL_ERROR = "error", "internal"

        class Monitor: ...

        class Profile:
            def __init__(self) -> None:
                self.shapes: dict[str, Any] = {}

            def set_shape(self, name: str, *shapes: Any) -> None:
                self.shapes[name] = shapes

        class Builder:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def create_network(self, flags: int) -> Network:
                asked["creation"] = flags
                return Network()

            def create_builder_config(self) -> Config:
                return Config()

            def create_optimization_profile(self) -> Profile:
                return Profile()

            def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
                if number >= (10, 0):
                    monitor = config.progress_monitor
                    monitor.phase_start("Building", None, 2)
                    monitor.phase_start("Timing", "Building", 9)
                    assert monitor.step_complete("Building", 0) is True
                    monitor.phase_finish("Timing")
                    monitor.phase_finish("Building")
                self.logger.log("info", "first\nsecond")
                if plan is None:
                    self.logger.log("error", "out of memory")
                asked["workspace"] = asked.get("workspace", getattr(config, "max_workspace_size", None))
                return plan

        class Parser:
            num_errors = 1

            def __init__(self, network: Network, logger: Any) -> None: ...

            def parse(self, data: bytes) -> bool:
                return parses

            def get_error(self, index: int) -> Any:
                return types.SimpleNamespace(desc=lambda: "no importer for op Foo")

        class Runtime:
            def __init__(self, logger: Any) -> None: ...

            def deserialize_cuda_engine(self, data: bytes) -> Any:
                assert data == b"plan"
                inspector = types.SimpleNamespace(get_engine_information=lambda form: f"layers as {form}")
                return types.SimpleNamespace(create_engine_inspector=lambda: inspector)

        creation = {"STRONGLY_TYPED": 1} if number >= (10, 0) else {}
        flags = {"VERSION_COMPATIBLE": "vc"} if number >= (8, 6) else {}
        if number < (11, 0):
            creation["EXPLICIT_BATCH"] = 0
            flags |= {"INT8": "int8", "FP16": "fp16"}
        self.module = types.ModuleType("tensorrt")
        self.module.__dict__.update(
            __version__=version,
            ILogger=Logger,
            Builder=Builder,
            OnnxParser=Parser,
            Runtime=Runtime,
            NetworkDefinitionCreationFlag=types.SimpleNamespace(**creation),
            BuilderFlag=types.SimpleNamespace(**flags),
            LayerType=types.SimpleNamespace(QUANTIZE="quantize"),
            LayerInformationFormat=types.SimpleNamespace(JSON="json"),
            ProfilingVerbosity=types.SimpleNamespace(DETAILED="detailed"),
        )
        if number >= (8, 4):
            self.module.__dict__["MemoryPoolType"] = types.SimpleNamespace(WORKSPACE="workspace")
        if number >= (10, 0):
            self.module.__dict__["IProgressMonitor"] = Monitor


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Stand], Stand]:
    """Puts a stand-in where `import tensorrt` finds it, on a machine with an Orin's GPU and 1 GiB of free memory."""
    (tmp_path / "meminfo").write_text("MemTotal: 4000000 kB\nMemAvailable: 1048576 kB\n")

    def put(stand: Stand) -> Stand:
        monkeypatch.setitem(sys.modules, "tensorrt", stand.module)
        monkeypatch.setattr(trt, "sms", lambda: (87,))
        monkeypatch.setattr(trt, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return stand

    return put


@pytest.mark.parametrize(
    ("version", "creation", "flags", "said"),
    [
        ("8.2.1", 1 << 0, ["int8"], ("INT8",)),  # explicit batch
        ("8.5.2.2", 1 << 0, ["int8"], ("INT8",)),
        ("8.6.1", 1 << 0, ["int8"], ("INT8",)),
        ("10.3.0", 1 << 1, [], ("STRONGLY_TYPED",)),
        ("10.16.1.11", 1 << 1, [], ("STRONGLY_TYPED",)),
        ("11.4.0.106", 1 << 1, [], ("STRONGLY_TYPED",)),
    ],
)
def test_trt_adapter_uses_what_each_version_has(
    version: str,
    creation: int,
    flags: list[str],
    said: tuple[str, ...],
    file: Path,
    board: Callable[[Stand], Stand],
) -> None:
    stand = board(Stand(version))
    plan, layers = trt.build(file, 87, Options(64))
    assert (plan.engine, plan.log, plan.version, plan.flags) == (b"plan", ["first", "second"], version, said)
    assert (stand.asked["creation"], stand.asked["flags"], stand.asked["workspace"]) == (creation, flags, 64 << 20)
    assert layers == "layers as json"


def test_what_was_timed_serves_the_next_build_of_that_version_only(file: Path, board: Callable[[Stand], Stand]) -> None:
    for version, wanted in (("10.3.0", b"+timed"), ("10.3.0", b"+timed+timed"), ("10.7.0", b"+timed")):
        board(Stand(version))
        assert trt.build(file, 87, Options(64))[0].timing == wanted
        assert trt.timing_file(version, 87).read_bytes() == wanted
    trt.timing_file("10.7.0", 87).write_bytes(b"foreign")  # TensorRT refuses it, and starts from nothing
    assert trt.build(file, 87, Options(64))[0].timing == b"+timed"


def test_the_workspace_is_half_of_the_free_memory_at_most(
    file: Path, board: Callable[[Stand], Stand], capsys: pytest.CaptureFixture[str]
) -> None:
    stand = board(Stand("10.3.0"))
    trt.build(file, 87, Options(4096))
    assert stand.asked["workspace"] == 512 << 20
    assert "the builder's workspace is 512 of 4096 MiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stand", "options", "why"),
    [
        (Stand("8.0.1"), Options(), "TensorRT 8.0.1; wanted TensorRT 8.2 or later"),
        (Stand("10.3.0", plan=None), Options(), "does not build model.int8.onnx: out of memory"),
        (Stand("10.3.0", parses=False), Options(), "does not read model.int8.onnx: no importer for op Foo"),
        (Stand("10.3.0"), Options(fp16=True), "10.3.0 is strongly typed: no flag makes anything FP16"),
        (Stand("11.4.0"), Options(fp16=True), "11.4.0 is strongly typed: no flag makes anything FP16"),
        (Stand("8.5.2"), Options(version_compatible=True), "makes no version-compatible engines"),
        (Stand("8.5.2", dynamic=True), Options(), "input 'x' has no fixed shape"),
        (Stand("8.5.2"), Options(shapes={"x": ((1,), (1,), (1,))}), "names 'x'; wanted inputs of variable shape only"),
    ],
)
def test_trt_adapter_refuses(
    stand: Stand, options: Options, why: str, file: Path, board: Callable[[Stand], Stand]
) -> None:
    board(stand)
    with pytest.raises(BuildError, match=why) as caught:
        trt.build(file, 87, options)
    assert "\n" not in str(caught.value)


def test_flags_and_shapes_that_were_asked_for(file: Path, board: Callable[[Stand], Stand]) -> None:
    stand = board(Stand("8.6.1", dynamic=True))
    shapes = {"x": ((1, 3, 32, 48), (4, 3, 32, 48), (8, 3, 32, 48))}
    plan, _ = trt.build(file, 87, Options(64, fp16=True, version_compatible=True, shapes=shapes))
    assert plan.flags == ("FP16", "INT8", "VERSION_COMPATIBLE") and stand.asked["flags"] == ["fp16", "int8", "vc"]
    assert stand.asked["creation"] == 1 and stand.asked["profile"] == shapes


def test_an_engine_for_another_gpu_is_not_begun(
    file: Path, board: Callable[[Stand], Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    board(Stand("10.3.0"))
    with pytest.raises(BuildError, match="the GPU of this machine is SM 87, and the target's is SM 110"):
        trt.build(file, 110, Options())
    monkeypatch.setattr(trt, "sms", lambda: ())
    with pytest.raises(MissingDependency, match="no CUDA device is usable here"):
        trt.build(file, 87, Options())


def test_dynamic_shapes_build_for_real_with_a_profile(tmp_path: Path) -> None:
    """One network, batch 1 to 8, by TensorRT for RTX."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    model = quantize(tiny(), feeds(4), QuantizeSection()).tensorrt
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "dynamic.onnx")
    with pytest.raises(BuildError, match="input 'x' has no fixed shape"):
        worker.build_apart(tmp_path / "dynamic.onnx", find("rtx-sm86"), Options(64))
    shapes = {"x": (SHAPE, (4, *SHAPE[1:]), (8, *SHAPE[1:]))}
    built = worker.build_apart(tmp_path / "dynamic.onnx", find("rtx-sm86"), Options(64, shapes=shapes))
    assert len(built.engine) > 1000 and xray(readers.log(built.log), lint.meant(model)).int8 == 6


def test_ctrl_c_ends_a_build_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    """The builder sits in native code and never returns to Python: here, sleep(1)."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
    script.chmod(0o755)
    code = (
        "import sys, pathlib\nfrom edgecnn.build import worker\nfrom edgecnn.build.network import Options\n"
        f"from edgecnn.build.targets import find\nsys.executable = {str(script)!r}\n"
        f"worker.build_apart(pathlib.Path({str(file)!r}), find('rtx-sm86'), Options(64))\n"
    )
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "PYTHONPATH": worker.ROOT.as_posix(), "TMPDIR": str(tmp_path / "scratch")}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells start what runs behind without it
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    _, said = child.communicate(timeout=60)
    assert child.returncode != 0 and "KeyboardInterrupt" in said
    assert list((tmp_path / "scratch").iterdir()) == []


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
    assert len(readers.log(bundle.file("build_log").read_text("utf-8").splitlines())) >= 7
    tied = facts["engine"]
    assert tied["onnx"] == sha256(file) and (tied["runtime"], tied["sm"]) == ("tensorrt_rtx", 86)
    assert stale(bundle.stages["build"]) == ""


@pytest.mark.parametrize(
    ("here", "flags", "why"),
    [
        ("", [], ""),  # a desk without TensorRT keeps what a board made
        ("10.3.0", [], ""),
        ("10.3.0.26", [], ""),  # the same, told in more detail
        ("10.7.0", [], "it was built by tensorrt 10.3.0, and 10.7.0 is here"),
        ("10.7.0", ["VERSION_COMPATIBLE"], ""),
        ("8.6.1", ["VERSION_COMPATIBLE"], "it was built by tensorrt 10.3.0, and 8.6.1 is here"),
    ],
)
def test_another_tensorrt_makes_an_engine_stale(
    here: str, flags: list[str], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`edgecnn build` after an upgrade of JetPack explains, and builds again."""
    (tmp_path / "model.orin.engine").write_bytes(b"plan")
    tied = tie("0" * 64, "tensorrt", "10.3.0", 87, flags)
    bundle = Bundle(tmp_path, "tiny").with_stage(
        "build", settings={}, version=1, files={"engine": "model.orin.engine"}, facts={"engine": tied}, tools={}
    )
    monkeypatch.setattr("edgecnn.build.installed", lambda runtime: here)
    record = bundle.stages["build"]
    said = _reason("build", bundle, record.key)
    assert said == (f"the engine is stale ({why}), making it again" if why else "")


def test_engines_of_one_key_have_one_origin() -> None:
    first = tie("0" * 64, "tensorrt", "10.3.0", 87, ("STRONGLY_TYPED",))
    assert first["key"] == tie("0" * 64, "tensorrt", "10.3.0", 87, ["STRONGLY_TYPED"])["key"]
    others = [
        tie("1" + "0" * 63, "tensorrt", "10.3.0", 87, ("STRONGLY_TYPED",)),
        tie("0" * 64, "tensorrt_rtx", "10.3.0", 87, ("STRONGLY_TYPED",)),
        tie("0" * 64, "tensorrt", "10.3.1", 87, ("STRONGLY_TYPED",)),
        tie("0" * 64, "tensorrt", "10.3.0", 110, ("STRONGLY_TYPED",)),
        tie("0" * 64, "tensorrt", "10.3.0", 87, ("FP16", "INT8")),
    ]
    assert len({first["key"], *(other["key"] for other in others)}) == 6


@pytest.mark.parametrize("target", ["orin", "nano", "rtx-sm75"])
def test_a_failed_stage_leaves_nothing_behind(file: Path, target: str) -> None:
    bundle = bundle_of(file)
    before = sorted(p.name for p in file.parent.iterdir())
    with pytest.raises(EdgecnnError):
        run_stage(bundle, recipe(target))
    assert sorted(p.name for p in file.parent.iterdir()) == before
