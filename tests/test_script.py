"""build.sh: the flags of each TensorRT, and real runs of the script with a stand-in for trtexec."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tiny_onnx import SHAPE, feeds, tiny

from edgecnn import cli
from edgecnn.build.cache import read
from edgecnn.build.network import Options
from edgecnn.build.script import emit, trtexec
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BuildError, EdgecnnError
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import BuildSection, QuantizeSection, Recipe, load

FILES = {"int8": "model.int8.onnx", "fp32": "model.onnx"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    model = quantize(tiny(), feeds(4), QuantizeSection(keep_float=("left",))).tensorrt
    onnx.save(model, folder / "model.int8.onnx")
    onnx.save(tiny(), folder / "model.onnx")
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE))
    return Bundle(folder, 'it\'s "$(odd)"').with_stage(
        "quantize", settings={}, version=1, files=FILES, facts={}, tools={}, model=spec
    )


TAIL = ["--timingCacheFile=timing.cache", "--exportLayerInfo=layers.json", "--verbose"]
OLD, NEW = ["--nvtxMode=verbose", *TAIL], ["--profilingVerbosity=detailed", *TAIL]
BATCHES = {"x": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}


@pytest.mark.parametrize(
    ("version", "options", "more", "wanted"),
    [
        ((8, 2), Options(), {}, ["--int8", *OLD, "--buildOnly"]),
        ((8, 5), Options(), {}, ["--int8", *NEW, "--buildOnly"]),
        ((8, 5), Options(fp16=True), {}, ["--fp16", "--int8", *NEW, "--buildOnly"]),
        ((8, 6), Options(version_compatible=True), {}, ["--int8", "--versionCompatible", *NEW, "--skipInference"]),
        ((10, 3), Options(), {}, ["--stronglyTyped", *NEW, "--skipInference"]),
        ((10, 3), Options(fp16=True), {}, ["--stronglyTyped", *NEW, "--skipInference"]),  # the file says FP16
        ((10, 3), Options(fp16=True), {"int8": False}, ["--stronglyTyped", *NEW, "--skipInference"]),
        ((11, 4), Options(fp16=True), {}, [*NEW, "--skipInference"]),
        (
            *((10, 3), Options(fp16=True), {"implicit": True}),
            ["--fp16", "--int8", "--calib=calib.cache", *NEW, "--skipInference"],
        ),
        ((11, 4), Options(), {}, [*NEW, "--skipInference"]),
        ((8, 2), Options(fp16=True), {"int8": False}, ["--fp16", *OLD, "--buildOnly"]),
        (
            (10, 3),
            Options(),
            {"implicit": True, "precisions": "a:fp32"},
            [
                "--int8",
                "--calib=calib.cache",
                "--precisionConstraints=obey",
                "--layerPrecisions=a:fp32",
                *NEW,
                "--skipInference",
            ],
        ),
        (
            (10, 3),
            Options(shapes=BATCHES),
            {},
            [
                "--stronglyTyped",
                "--minShapes=x:1x3x8x8",
                "--optShapes=x:4x3x8x8",
                "--maxShapes=x:8x3x8x8",
                *NEW,
                "--skipInference",
            ],
        ),
    ],
)
def test_flags_by_version(
    version: tuple[int, int], options: Options, more: dict[str, object], wanted: list[str]
) -> None:
    assert trtexec(version, options, **more) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "version", "options", "implicit", "words"),
    [
        ("rtx-sm86", "", Options(), False, "no trtexec for target 'rtx-sm86'; wanted one of orin"),
        ("orinn", "", Options(), False, "no trtexec for target 'orinn'"),
        ("orin", "7.1", Options(), False, "TensorRT 7.1; wanted TensorRT 8.2 or later"),
        ("orin", "ten", Options(), False, "'ten' is no version"),
        ("orin", "8.5.2", Options(version_compatible=True), False, "8.5 makes no version-compatible engines"),
        ("orin", "11.4", Options(), True, "reads no calibration cache"),
    ],
)
def test_what_a_version_lacks_is_refused_and_nothing_is_written(
    target: str, version: str, options: Options, implicit: bool, words: str, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(EdgecnnError, match=words):
        emit(bundle, target, options, tmp_path / "out", version=version, implicit=implicit)
    assert not (tmp_path / "out").exists()


def test_the_files_of_each_kind(bundle: Bundle, tmp_path: Path) -> None:
    files = emit(bundle, "xavier", Options(), tmp_path / "pairs")
    assert [path.name for path in files] == ["build.sh", "SHA256SUMS", "model.int8.onnx"]
    assert "of TensorRT 8.5.2." in files[0].read_text("utf-8")  # the newest that a Xavier gets
    assert files[2].read_bytes() == bundle.file("int8").read_bytes()
    files = emit(bundle, "xavier", Options(), tmp_path / "cache", version="8.2.1", implicit=True)
    assert [path.name for path in files[2:]] == ["model.onnx", "calib.cache"]
    text = files[3].read_text("utf-8")
    assert text.startswith("TRT-8201-EntropyCalibration2\n") and "x" in read(text).scales
    assert "--layerPrecisions=left:fp32" in files[0].read_text("utf-8")
    files = emit(bundle, "nano", Options(), tmp_path / "nano")  # no INT8 there: no pairs, and FP16
    assert [path.name for path in files[2:]] == ["model.onnx"]
    assert files[2].read_bytes() == bundle.file("fp32").read_bytes()
    assert "--fp16" in files[0].read_text("utf-8") and "--int8" not in files[0].read_text("utf-8")


@pytest.mark.parametrize(
    ("version", "int8", "name", "flags"),
    [
        ("8.6", True, "model.int8.onnx", ["--fp16", "--int8"]),
        ("10.3", True, "model.half.onnx", ["--stronglyTyped"]),
        ("11.4", True, "model.half.onnx", []),
        ("8.6", False, "model.onnx", ["--fp16"]),
        ("10.3", False, "model.half.onnx", ["--stronglyTyped"]),
    ],
)
def test_fp16_is_a_flag_of_8_and_a_type_from_10_on(
    version: str, int8: bool, name: str, flags: list[str], bundle: Bundle, tmp_path: Path
) -> None:
    script, _, file = emit(bundle, "orin", Options(fp16=True), tmp_path / "out", version=version, int8=int8)
    asked = [word for word in script.read_text("utf-8").split() if word in ("--fp16", "--int8", "--stronglyTyped")]
    assert (file.name, asked) == (name, [*flags, *flags])  # trtexec is asked for each, then given each
    model = onnx.load(file)
    assert any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer) == ("half" in name)
    assert any(n.op_type == "QuantizeLinear" for n in model.graph.node) == int8


# --- the script runs ------------------------------------------------------------------------------------------------

TRTEXEC = """#!/bin/sh
if [ "$1" = --help ]; then echo '{flags}'; exit 0; fi
for a in "$@"; do
  printf '%s\\n' "$a" >>asked
  case $a in --saveEngine=*) echo plan >"${{a#--saveEngine=}}" ;; esac
done
{end}
"""
HELP = "--onnx --saveEngine --int8 --memPoolSize --profilingVerbosity --timingCacheFile --exportLayerInfo --verbose"
HELP += " --buildOnly"


def ran(folder: Path, *, flags: str = HELP, end: str = "exit 0") -> subprocess.CompletedProcess[str]:
    fake = folder.parent / "trtexec"
    fake.write_text(TRTEXEC.format(flags=flags, end=end))
    fake.chmod(0o755)
    return subprocess.run(
        ["sh", str(folder / "build.sh")],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(fake)},
    )


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    return emit(bundle, "xavier", Options(), tmp_path / "a folder")[0].parent


def test_a_good_run_makes_the_engine(folder: Path) -> None:
    done = ran(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "model.xavier.engine").read_text() == "plan\n"
    assert not list(folder.glob("*.part"))
    asked = (folder / "asked").read_text().splitlines()
    assert asked[:3] == ["--onnx=model.int8.onnx", "--saveEngine=model.xavier.engine.part", "--int8"]
    assert asked[-1] == "--memPoolSize=workspace:256"


def test_a_changed_file_stops_it_before_trtexec(folder: Path) -> None:
    with (folder / "model.int8.onnx").open("ab") as file:
        file.write(b" ")
    done = ran(folder)
    assert done.returncode != 0 and "model.int8.onnx: FAILED" in done.stdout
    assert not (folder / "asked").exists()


def test_another_trtexec_is_told_by_its_flags(folder: Path) -> None:
    done = ran(folder, flags=HELP.replace("--int8", "--fp8"))
    assert done.returncode == 7 and "this trtexec has no --int8, so it is not TensorRT 8.5.2" in done.stderr
    assert not (folder / "asked").exists()


def test_no_trtexec_and_a_failing_one(folder: Path) -> None:
    done = ran(folder, end="echo '[E] out of memory'; exit 1")
    assert done.returncode == 7 and "[E] out of memory" in done.stderr and "build.log" in done.stderr
    assert not list(folder.glob("*engine*"))
    (folder.parent / "trtexec").unlink()
    done = subprocess.run(
        ["sh", str(folder / "build.sh")],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(folder.parent / "trtexec")},
    )
    assert done.returncode == 8 and "does not run; JetPack brings it" in done.stderr


def test_the_shell_finds_nothing_odd(bundle: Bundle, tmp_path: Path) -> None:
    """Every shell here parses it; quotes and dollars in names stay text; shellcheck is asked where it is."""
    for number, (version, implicit) in enumerate([("8.2.1", True), ("8.5.2", False), ("10.3", True), ("11.4", False)]):
        script = emit(bundle, "orin", Options(), tmp_path / str(number), version=version, implicit=implicit)[0]
        assert "$(odd)" not in script.read_text("utf-8")
        for shell in filter(shutil.which, ("sh", "dash", "bash", "busybox")):
            command = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
            subprocess.run([*command, str(script)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", str(script)], check=True)


def test_an_error_in_the_network_is_found_before_it_travels(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.file("int8"))
    next(t for t in model.graph.initializer if t.name == "x_zero").raw_data = b"\x03"
    onnx.save(model, tmp_path / "model.int8.onnx")
    bad = Bundle(tmp_path, "bad").with_stage(
        "quantize", settings={}, version=1, files={"int8": "model.int8.onnx"}, facts={}, tools={}
    )
    with pytest.raises(BuildError, match="zero point 3"):
        emit(bad, "orin", Options(), tmp_path / "out")


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_quantises_and_writes_the_folder(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, asked = tmp_path / "r.yaml", []
    recipe.write_text("name: t\nmodel: {arch: lenet5}\nbuild: {target: xavier, workspace_mib: 99}\n", "utf-8")

    def compiled(path: Path, out: Path | None, until: str) -> types.SimpleNamespace:
        asked.append(until)
        return types.SimpleNamespace(bundle=bundle)

    monkeypatch.setattr("edgecnn.compile.compile_recipe", compiled)
    arguments = ["build", str(recipe), "--emit-script", str(tmp_path / "out"), "--trt", "8.2.1", "--implicit"]
    monkeypatch.setattr(sys, "argv", ["edgecnn", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code and asked == ["quantize"]
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in files] == ["build.sh", "SHA256SUMS", "model.onnx", "calib.cache"]
    script = files[0].read_text("utf-8")
    assert "--calib=calib.cache" in script and "workspace=99\n" in script and '"--workspace=$workspace"' in script


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--target", "nano"], 7, "cannot run INT8"),
        (["--target", "orinn"], 7, "did you mean 'orin'"),
        (["--target", "nano", "--precision", "int4"], 2, "Invalid value"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    code: int,
    said: str,
) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "b"
    recipe.write_text("name: t\nmodel: {arch: lenet5}\n", "utf-8")
    monkeypatch.setattr(sys, "argv", ["edgecnn", "build", str(recipe), "--out", str(out), *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code and said in capsys.readouterr().err and not out.exists()


def test_target_and_precision_take_the_place_of_the_recipes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
) -> None:
    recipe, asked = tmp_path / "r.yaml", []
    recipe.write_text("name: t\nmodel: {arch: lenet5}\nbuild: {target: xavier, workspace_mib: 99}\n", "utf-8")

    def compiled(path: Path, out: Path | None, until: str, change: Callable[[Recipe], Recipe]) -> types.SimpleNamespace:
        asked.append(change(load(path)).build)
        return types.SimpleNamespace(bundle=bundle, steps=())

    monkeypatch.setattr("edgecnn.compile.compile_recipe", compiled)
    arguments = ["build", str(recipe), "--target", "nano", "--precision", "fp16"]
    monkeypatch.setattr(sys, "argv", ["edgecnn", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert asked == [BuildSection(target="nano", precision="fp16", workspace_mib=99)]


def test_options_of_the_script_need_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["edgecnn", "build", str(tmp_path / "r.yaml"), "--trt", "8.5.2"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
