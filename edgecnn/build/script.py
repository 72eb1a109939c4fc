"""A build for a board without Python 3.10 (JetPack 4.6 and 5.1): the files, and build.sh with the one trtexec command.

    DIR/build.sh          checks the files, then runs trtexec, which JetPack brings; POSIX sh
    DIR/SHA256SUMS        of every file below
    DIR/model.int8.onnx   or model.onnx and calib.cache; model.onnx alone in FP16; model.half.onnx where types say it

The flags are those of one version of TensorRT, and the script asks trtexec whether it has them before it begins. They
were read from NVIDIA's sources and migration guides (8.x → 10.x → 11.x); no build.sh has run on a board yet. Less sure
than the rest: --exportLayerInfo and --nvtxMode with 8.2, and --layerPrecisions before 8.4.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from edgecnn import onnxfile
from edgecnn.build import cache, lint, typed
from edgecnn.build.lint.target import OPSET
from edgecnn.build.network import Options
from edgecnn.build.targets import TARGETS
from edgecnn.bundle import Bundle, atomic, sha256
from edgecnn.errors import BuildError
from edgecnn.progress import note

FLOAT, HALF, INT8, CACHE = "model.onnx", "model.half.onnx", "model.int8.onnx", "calib.cache"
SCRIPT, SUMS = "build.sh", "SHA256SUMS"


def emit(
    bundle: Bundle,
    name: str,
    options: Options,
    folder: Path,
    *,
    version: str = "",
    int8: bool = True,
    implicit: bool = False,
) -> list[Path]:
    """Write the folder for a target and a TensorRT (the newest that the target's JetPacks bring, unless given).

    `implicit`: a calibration cache instead of Q/DQ pairs. Without `int8`, or on a GPU that has none, it is the FP32
    network in FP16. Raises BuildError for a target that trtexec does not serve and for what its TensorRT lacks.
    """
    target = TARGETS.get(name)
    if target is None or target.dialect != "trt" or not target.software:
        boards = [key for key, other in TARGETS.items() if other.dialect == "trt"]
        raise BuildError(f"there is no trtexec for target '{name}'", wanted=f"one of {', '.join(boards)}")
    version = version or max(target.software.values(), key=_parts)
    if not (int8 and target.int8):
        int8, implicit, options = False, False, replace(options, fp16=True)
    source = bundle.file("int8" if int8 else "fp32")
    carried = onnxfile.read(source)
    files = {INT8 if int8 else FLOAT: source.read_bytes()}
    precisions = ""
    if implicit:
        found = cache.calibration(carried)
        carried = cache.strip(carried)
        precisions = cache.write_precisions(found.floats)
        files = {
            FLOAT: carried.SerializeToString(deterministic=True),
            CACHE: cache.write(found, version).encode(),
        }
    elif options.fp16 and _parts(version) >= (10,):
        _, content = typed.typed(bundle, source)
        files, carried = {HALF: content}, ModelProto.FromString(content)
    release = ".".join(map(str, _parts(version)))
    profile = replace(lint.find(name), releases=(release,)) if release in OPSET else lint.ANY
    findings = lint.check_model(carried, profile)
    for finding in findings:
        if finding.rule == "opset":  # its parser goes on with a warning of its own
            note(str(finding))
    if refused := lint.errors(findings):
        raise BuildError(f"for TensorRT {version}, {refused[0]}", do="Mend it with `edgecnn lint --fix`")
    flags = trtexec(_parts(version), options, int8=int8, implicit=implicit, precisions=precisions)
    for file, content in files.items():
        with atomic(folder / file) as temporary:
            temporary.write_bytes(content)
    with atomic(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{sha256(folder / file)}  {file}\n" for file in files), "utf-8")
    with atomic(folder / SCRIPT) as temporary:
        temporary.write_text(
            _script(bundle.name, name, version, options.workspace_mib, next(iter(files)), flags), "utf-8"
        )
    (folder / SCRIPT).chmod(0o755)
    return [folder / file for file in (SCRIPT, SUMS, *files)]


def trtexec(
    version: tuple[int, ...], options: Options, *, int8: bool = True, implicit: bool = False, precisions: str = ""
) -> list[str]:
    """The flags besides file names and workspace that trtexec of a version (major, minor) takes for this build.

    Raises BuildError for what the version lacks.
    """
    if version < (8, 2):
        raise BuildError(f"TensorRT {_dotted(version)}", wanted="TensorRT 8.2 or later")
    types = version >= (10,) and not implicit
    flags = ["--fp16"] if options.fp16 and not types else []
    if implicit:
        flags += ["--int8", f"--calib={CACHE}"]
        if precisions:
            flags += ["--precisionConstraints=obey", f"--layerPrecisions={precisions}"]
    elif int8 and not types:
        flags.append("--int8")
    elif types and version < (11,):
        flags.append("--stronglyTyped")  # always on from 11
    if options.version_compatible:
        if version < (8, 6):
            raise BuildError(f"TensorRT {_dotted(version)} makes no version-compatible engines", wanted="8.6 or later")
        flags.append("--versionCompatible")
    for name, (least, usual, greatest) in options.shapes.items():
        for which, shape in (("min", least), ("opt", usual), ("max", greatest)):
            flags.append(f"--{which}Shapes={name}:{'x'.join(map(str, shape))}")
    flags.append("--nvtxMode=verbose" if version < (8, 4) else "--profilingVerbosity=detailed")
    flags += ["--timingCacheFile=timing.cache", "--exportLayerInfo=layers.json", "--verbose"]
    flags.append("--buildOnly" if version < (8, 6) else "--skipInference")
    return flags


def _script(bundle: str, name: str, version: str, workspace_mib: int, network: str, flags: Sequence[str]) -> str:
    pool = "--workspace=" if _parts(version) < (8, 4) else "--memPoolSize=workspace:"
    engine = f"model.{name}.engine"
    fixed = [f"--onnx={network}", f"--saveEngine={engine}.part", *flags]
    names = [flag.split("=")[0] for flag in (*fixed, pool)]
    lines = "".join(f"  {shlex.quote(flag)} \\\n" for flag in fixed)
    return f"""#!/bin/sh
# {_comment(bundle)} for {TARGETS[name].title}, by trtexec of TensorRT {_comment(version)}. Written by edgecnn.
# Another trtexec: TRTEXEC=/path/to/trtexec ./build.sh
set -eu
cd "$(dirname "$0")"

sha256sum -c {SUMS}

trtexec=${{TRTEXEC:-/usr/src/tensorrt/bin/trtexec}}
if ! help=$("$trtexec" --help 2>&1); then
  echo "error: $trtexec does not run; JetPack brings it (apt install libnvinfer-bin), or name one in TRTEXEC" >&2
  exit 8
fi
for flag in {" ".join(names)}; do
  case $help in
    *"$flag"*) ;;
    *)
      echo "error: this trtexec has no $flag, so it is not TensorRT {_comment(version)}: emit again with --trt" >&2
      exit 7
      ;;
  esac
done

# CPU and GPU share the memory: at most half of what is free now
workspace={workspace_mib}
half=$(awk '/^MemAvailable:/ {{ print int($2 / 2048) }}' /proc/meminfo)
if [ "$half" -lt "$workspace" ]; then
  workspace=$half
  echo "the builder's workspace is $half MiB, half of the free memory"
fi

echo "building; minutes may pass; build.log says what happens"
if ! "$trtexec" \\
{lines}  "{pool}$workspace" >build.log 2>&1; then
  rm -f {shlex.quote(engine + ".part")}
  tail -n 5 build.log >&2
  echo "error: trtexec failed; the whole story is in build.log" >&2
  exit 7
fi
mv {shlex.quote(engine + ".part")} {shlex.quote(engine)}
echo "{engine}: made; at the desk, edgecnn xray layers.json shows what became INT8"
"""


def _comment(text: str) -> str:
    """Text that stays within a line and a pair of double quotes of the script."""
    return "".join(c for c in text if c.isalnum() or c in " ._-+")


def _parts(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise BuildError(f"'{version}' is no version of TensorRT", wanted="one such as 8.5.2 or 10.3")
    return tuple(int(part) for part in parts[:2])


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
