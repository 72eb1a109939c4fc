"""Every name that the TensorRT adapter uses, held against the real bindings of the versions that Jetsons have.

NVIDIA's binding wheels are small and real; the libraries they load are not to be had off the board. So a stub library
with the 13 symbols that they look up is compiled here, each binding is imported on it in a process of its own, and the
names are collected from the adapter's source with `ast`.

A name that the source asks for with `hasattr` may be missing; NEW and GONE say in which versions it must be there. All
others must be there in every version. TensorRT before 8.6 has no wheel: what was missing then is read from NVIDIA's
release notes, not checked here.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "edgecnn"
SOURCES = ("build/network.py", "build/trt.py", "build/rtx.py", "backends/trt.py")
WHEELS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.13.3.9": "tensorrt-cu13-bindings==10.13.3.9",
    "10.16.1.11": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4.0.106": "tensorrt-cu13-bindings==11.4.0.106",
}
SYMBOLS = (
    *("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry"),
    *("getPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins"),
    *("_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi"),
    *("_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv"),
)
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers")

# variable of the adapter -> class of the binding; "" is the module itself
CLASSES = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
    "error": "ParserError",
    "layer": "ILayer",
    "cache": "ITimingCache",
}
# names asked for with hasattr: where they must be, where they must not, and hence which branch each version takes
FROM_10 = {"10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"}
TO_10 = set(WHEELS) - {"11.4.0.106"}
GUARDED = {
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": FROM_10,
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": TO_10,
    "BuilderFlag.FP16": TO_10,
    "BuilderFlag.INT8": TO_10,
    "BuilderFlag.VERSION_COMPATIBLE": set(WHEELS),  # not in 8.5
    "IBuilderConfig.set_memory_pool_limit": set(WHEELS),  # not in 8.2
    "IBuilderConfig.progress_monitor": FROM_10,
    "Runtime.engine_host_code_allowed": set(WHEELS),  # not in 8.5
    "ICudaEngine.num_io_tensors": set(WHEELS),  # not in 8.2-8.4
    "IExecutionContext.execute_async_v3": set(WHEELS),  # not in 8.2-8.4
}
# what is used where a guarded name is missing: held against the oldest binding there is
INSTEAD = {
    "IBuilderConfig.max_workspace_size",
    "IExecutionContext.execute_async_v2",
    *(f"ICudaEngine.{name}" for name in ("num_bindings", "binding_is_input")),
    *(f"ICudaEngine.get_binding_{name}" for name in ("name", "shape", "dtype")),
}
WITH = {"IProgressMonitor": "IBuilderConfig.progress_monitor"}  # used only where the guarded name is there
RTX_ONLY = {  # of tensorrt_rtx alone
    *("ComputeCapability", "IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"),
}


def dotted(node: ast.expr) -> str | None:
    """`trt.BuilderFlag.INT8` → BuilderFlag.INT8, `config.set_flag` → IBuilderConfig.set_flag; None for other names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in CLASSES:
        return None
    return ".".join(filter(None, [CLASSES[node.id], *reversed(parts)]))


def uses(source: str) -> tuple[set[str], set[str]]:
    """(names used, names asked for with hasattr)."""
    tree = ast.parse(source)
    used = {name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (name := dotted(node))}
    asked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            where, what = node.args
            assert isinstance(what, ast.Constant), "hasattr asks for a name that stands there"
            owner = CLASSES[where.id] if isinstance(where, ast.Name) else dotted(where)
            asked.add(f"{owner}.{what.value}")
    return used, asked


def adapter() -> tuple[set[str], set[str]]:
    found = [uses((PACKAGE / name).read_text("utf-8")) for name in SOURCES]
    used, asked = (set().union(*column) for column in zip(*found, strict=True))
    return {name for name in used if not name.startswith("__")}, asked


def test_the_collector_sees_chains_methods_and_guards() -> None:
    source = "def f(trt, config):\n if hasattr(config, 'a'):\n  config.a(trt.B.C)\n other.x\n"
    assert uses(source) == ({"B.C", "B", "IBuilderConfig.a"}, {"IBuilderConfig.a"})


def test_guards_and_their_table_agree() -> None:
    """Every hasattr of the adapter stands in GUARDED with its versions, and nothing else does."""
    used, asked = adapter()
    assert asked == set(GUARDED)
    assert {*INSTEAD, *WITH, *RTX_ONLY} <= used
    assert len(used) > 60


# --- the real bindings ----------------------------------------------------------------------------------------------

PROBE = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
trt = importlib.import_module(sys.argv[2])
def there(name):
    value = trt
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True
print(json.dumps({"version": trt.__version__, "there": {name: there(name) for name in json.load(sys.stdin)}}))
"""


def probe(folder: Path, module: str, names: set[str], libraries: Path | None = None) -> dict[str, object]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)} if libraries else {**os.environ}
    asked = json.dumps(sorted(names))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder), module], input=asked, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lib<name>.so.<major> for every library and version that the bindings load."""
    compiler = shutil.which(sysconfig.get_config_var("CC").split()[0] if sysconfig.get_config_var("CC") else "cc")
    compiler = compiler or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the stub library on which the bindings are imported can't be made")
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stub.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for library in LIBRARIES:
        for major in (8, 10, 11):
            name = f"lib{library}.so.{major}"
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), "stub.c"]
            subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Version → folder with the binding, fetched by pip; a version that has no wheel for this Python is left out."""
    root, found, reason = tmp_path_factory.mktemp("bindings"), {}, ""
    for version, wheel in WHEELS.items():
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--disable-pip-version-check"]
        command += [
            "--only-binary",
            ":all:",
            "--retries",
            "1",
            "--timeout",
            "10",
            "--target",
            str(root / version),
            wheel,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            found[version] = root / version
        else:
            reason = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            if not found:
                break  # not even the first: there is no index to ask
    if not found:
        pytest.skip(f"the wheels of TensorRT's bindings are not to be had here: {reason[:200]}")
    yield found


@pytest.mark.slow
def test_the_real_bindings_have_every_name(wheels: dict[str, Path], stubs: Path) -> None:
    used, _ = adapter()
    needed = used - RTX_ONLY
    for version, folder in wheels.items():
        answer = probe(folder, "tensorrt_bindings", needed, stubs)
        assert answer["version"] == version
        there = answer["there"]
        assert isinstance(there, dict)
        allowed = {name for name, versions in GUARDED.items() if version not in versions}
        allowed |= {
            name for name in needed for with_, guard in WITH.items() if guard in allowed and name.split(".")[0] == with_
        }
        assert {name for name in GUARDED if there[name]} == {n for n, v in GUARDED.items() if version in v}, version
        missing = {name for name in needed if not there[name]}
        assert missing - allowed - INSTEAD == set(), version
        # the way without a guarded name must be open where that name is missing, and 8.6 has both ways
        assert version != "8.6.1" or not missing & INSTEAD


def test_tensorrt_for_rtx_has_every_name() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    used, _ = adapter()
    there = probe(Path(), "tensorrt_rtx", used)["there"]
    assert isinstance(there, dict)
    lacking = {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "BuilderFlag.FP16", "BuilderFlag.INT8"}
    assert {name for name in used if not there[name]} - INSTEAD == lacking


@pytest.mark.slow
def test_a_misspelt_name_would_be_found(wheels: dict[str, Path], stubs: Path) -> None:
    version, folder = next(iter(wheels.items()))
    there = probe(folder, "tensorrt_bindings", {"Builder.build_serialised_network", "Builder.create_network"}, stubs)[
        "there"
    ]
    assert there == {"Builder.build_serialised_network": False, "Builder.create_network": True}, version
