"""Which part may import which, read from the source with `ast`, and what a board's process really loads.

The table is the one in ARCHITECTURE.md: what is not in it is not allowed anywhere in the package, not even inside a
function.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from tiny_detector import lamp_picture, make_bundle

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgecnn"

BASE = {"errors", "scene", "bundle", "recipe", "progress"}
HEAVY = {
    *("torch", "torch_pruning", "torchvision", "onnx", "onnxruntime", "openvino", "safetensors", "pycocotools"),
    *("cryptography", "distributed", "dask"),
    *("tensorrt", "tensorrt_rtx", "cuda", "pycuda", "numpy", "cv2", "scipy", "av", "pydantic", "yaml", "rich", "typer"),
}

# part -> (parts of edgecnn that it may import, heavy packages that it may import)
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "progress": (set(), {"rich"}),
    "scene": (set(), {"numpy"}),
    "bundle": ({"errors"}, set()),
    "signature": ({"errors", "bundle"}, {"cryptography"}),
    "sbom": ({"errors", "bundle", "signature"}, set()),
    "cpu": (set(), set()),
    "engine": ({"errors"}, set()),
    "shipped": (set(), set()),
    "recipe": ({"errors", "bundle", "shipped"}, {"pydantic", "yaml"}),
    "memo": ({"bundle"}, set()),
    "overrides": ({"errors", "recipe"}, {"yaml"}),
    "workers": ({"errors", "progress"}, {"distributed", "dask"}),
    "onnxfile": ({"errors"}, {"numpy", "onnx"}),
    "vision": (BASE, {"numpy", "cv2"}),
    "data": (BASE | {"vision"}, {"numpy", "cv2", "pydantic"}),
    "zoo": (BASE | {"vision", "data", "metrics"}, {"numpy", "torch", "safetensors", "cv2"}),
    "slim": (BASE | {"cpu", "memo", "zoo"}, {"numpy", "torch", "torch_pruning", "safetensors", "onnx", "onnxruntime"}),
    "classify": (BASE | {"zoo", "data"}, set()),
    "export": (BASE | {"onnxfile", "zoo", "data", "vision"}, {"numpy", "torch", "onnx", "onnxruntime"}),
    "quantize": (BASE | {"cpu", "onnxfile", "data", "vision"}, {"numpy", "onnx", "onnxruntime", "torch"}),  # torch: qat
    "build": (BASE | {"engine", "onnxfile"}, {"numpy", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx"}),
    "predict": (BASE | {"build", "quantize"}, {"numpy", "onnx"}),
    "backends": (
        {"errors", "bundle", "cpu", "engine", "progress"},
        {"numpy", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda", "pycuda"},
    ),
    "track": ({"errors", "scene", "backends"}, {"numpy", "scipy", "cv2"}),
    "adas": ({"errors", "scene", "track"}, {"numpy", "cv2"}),
    "run": (BASE | {"vision", "backends", "track", "adas", "data"}, {"numpy", "cv2", "av"}),
    "doctor": ({"build", "cpu"}, {"av"}),
    "bench": (BASE | {"cpu", "vision", "backends", "run"}, {"numpy", "rich"}),
    "versus": (BASE | {"bench", "cpu", "backends", "run", "metrics"}, {"numpy", "rich"}),
    "metrics": ({"errors", "scene", "track"}, {"numpy", "scipy", "pycocotools"}),
    "check": (
        BASE | {"workers", "vision", "data", "backends", "track", "adas", "run", "metrics", "export"},
        {"numpy"},
    ),
    "report": (BASE, {"pydantic"}),
    "sense": (
        BASE | {"memo", "vision", "data", "backends", "quantize", "run", "metrics", "check", "report"},
        {"numpy", "onnx", "onnxruntime"},
    ),
    "blame": (BASE | {"check", "sense"}, {"safetensors"}),
    "explain": (BASE | {"vision", "data", "zoo", "report"}, {"numpy", "torch", "cv2"}),
    "sweep": (BASE | {"overrides", "workers", "compile", "check"}, set()),
    "compile": (BASE | {"zoo", "slim", "export", "quantize", "build"}, set()),
}


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, wherever in the file; relative imports are resolved."""
    package = ["edgecnn", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], node.module] if node.level else [node.module]
            module = ".".join(p for p in base if p)
            if module == "edgecnn":
                yield from ((node.lineno, f"edgecnn.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


FILES = sorted(p for p in PACKAGE.rglob("*.py") if part_of(p) not in ("__init__", "__main__", "cli"))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_a_part_imports_only_what_the_table_grants(path: Path) -> None:
    part = part_of(path)
    parts, heavy = TABLE[part]
    for line, module in imports(path):
        names = module.split(".")
        where = f"{path.relative_to(ROOT)}:{line} imports {module}"
        if names[0] == "edgecnn" and len(names) > 1 and names[1] != "__version__":
            assert names[1] == part or names[1] in parts, where
        elif names[0] in HEAVY:
            assert names[0] in heavy, where


def test_only_training_under_rounding_needs_torch_to_quantize() -> None:
    for path in (PACKAGE / "quantize").glob("*.py"):
        assert not any(module.split(".")[0] == "torch" for _, module in imports(path)), path
    assert "torch" not in loaded("import edgecnn.quantize.stage")


def test_every_part_is_in_the_table_and_the_table_names_no_other() -> None:
    assert {part_of(path) for path in FILES} == set(TABLE)


def test_the_stages_know_nothing_of_one_another() -> None:
    for stage in ("slim", "export", "quantize", "build"):
        assert not TABLE[stage][0] & ({"slim", "export", "quantize", "build"} - {stage})


def loaded(code: str, *arguments: str) -> set[str]:
    """Top-level packages in sys.modules after `code`, in a process of its own."""
    ask = "\nimport sys\nprint('MODULES', *{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code + ask, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rpartition("MODULES")[2].split())


HELP = """
import sys
from edgecnn.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code
"""


def test_help_loads_nothing_heavy() -> None:
    assert not loaded(HELP, "--help") & (HEAVY - {"typer"})


def test_help_of_run_loads_neither_torch_nor_onnx() -> None:
    allowed = {"typer", "pydantic"}  # recent versions of typer load pydantic themselves
    assert not loaded(HELP, "run", "--help") & (HEAVY - allowed)


def test_the_boards_modules_load_neither_torch_nor_onnx() -> None:
    names = "scene bundle recipe vision backends.ort backends.trt track.tracker track.flow adas run.loop bench doctor"
    code = "\n".join(f"import edgecnn.{name}" for name in names.split())
    assert not loaded(code) & {"torch", "onnx", "pycocotools", "torch_pruning", "matplotlib"}


def test_asking_whether_a_stage_must_run_loads_nothing_heavy() -> None:
    code = "from edgecnn.compile import STAGES, _module\nfor stage in STAGES:\n    _module(stage).settings"
    assert not loaded(code) & {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "torch_pruning"}


COMMAND = """
import sys
from edgecnn.cli import main
sys.argv[0] = "edgecnn"
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_a_whole_run_on_a_board_loads_neither_torch_nor_onnx(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True).path
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        picture = cv2.resize(lamp_picture(1 + i, 3), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(pictures / f"{i}.png"), picture)
    out = tmp_path / "out"
    modules = loaded(COMMAND, "run", str(bundle), "--source", str(pictures), "--out", str(out))
    assert (out / "annotated.mp4").is_file() and (out / "events.jsonl").is_file()
    assert {"onnxruntime", "cv2", "av"} <= modules
    assert not modules & {"torch", "onnx", "pycocotools", "torch_pruning", "tensorrt_rtx"}


def test_openvino_runs_without_onnx_and_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True).path
    code = """
import sys
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
open_backend(Bundle.read(sys.argv[1]), "openvino")
"""
    modules = loaded(code, str(bundle))
    assert "openvino" in modules
    assert not modules & {"torch", "onnx", "onnxruntime", "tensorrt_rtx"}


def test_what_is_no_python_is_installed_with_the_package() -> None:
    """Every data file inside the package stands under a pattern of pyproject's package-data."""
    line = next(x for x in (ROOT / "pyproject.toml").read_text("utf-8").splitlines() if x.startswith("edgecnn = ["))
    patterns = ast.literal_eval(line.partition(" = ")[2])
    data = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert len(data) > 30
    assert [str(p) for p in data if not any(p.match(pattern) for pattern in patterns)] == []


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("scripts/*.py")]), ids=lambda p: p.stem
)
def test_what_benchmarks_and_scripts_import_of_the_package_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgecnn":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
