"""What every TensorRT from 8.2 to 11 and TensorRT for RTX have in common: parse, configure, build, keep the whole log.

One adapter. A name that some version lacks is asked for with `hasattr` first, and tests/test_trt_api.py holds every
name below against the real bindings of 8.6.1 to 11.4. What differs (TensorRT's migration guides 8.x → 10.x → 11.x):

                      8.2-8.6                    10                          11, RTX
    precision         flags INT8, FP16           strongly typed              the graph alone
    explicit batch    must be asked for          always                      always
    workspace         max_workspace_size, or     set_memory_pool_limit       set_memory_pool_limit
                      set_memory_pool_limit
    progress          –                          IProgressMonitor            IProgressMonitor

Precision stands in the graph (Q/DQ pairs, and FP16 as `half` writes it): where TensorRT can be strongly typed, it is,
and nothing is chosen here. TensorRT 10 could also take flags, but 11 can't, and what a flag allows is not what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.errors import BuildError
from edgecnn.progress import bar

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """What a build may be told, whatever the dialect."""

    workspace_mib: int = 256
    fp16: bool = False  # float layers may run in FP16, where types do not say so: TensorRT 8, and calibration caches
    version_compatible: bool = False  # later versions of TensorRT load the engine too: 8.6 and later
    # input of variable shape → least, usual, greatest. A recipe's networks have fixed shapes: this is for other ONNX
    shapes: Mapping[str, tuple[Shape, Shape, Shape]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a build gives."""

    engine: bytes
    log: list[str]
    version: str  # of the builder
    flags: tuple[str, ...]  # as TensorRT calls them
    timing: bytes = b""  # what the builder timed on this GPU, for the next build


def build_plan(
    trt: Any,
    onnx: Path,
    options: Options,
    *,
    timing: bytes | None = None,
    configure: Callable[[Any], None] = lambda config: None,
) -> Plan:
    """Build an engine from an ONNX file. `trt` is the imported binding.

    `timing` is what an earlier build timed here, b"" if none did, None where the dialect times nothing.
    `configure(config)` does what only one dialect can. Raises BuildError with the parser's or builder's own last words.
    """
    listener = _listener(trt)
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    builder = trt.Builder(listener)
    network = builder.create_network(_creation(trt, typed))
    parser = trt.OnnxParser(network, listener)
    if not parser.parse(onnx.read_bytes()) or network.num_layers == 0:
        reasons = [error.desc() for error in map(parser.get_error, range(parser.num_errors))] or ["it holds no layers"]
        raise BuildError(f"{trt.__name__} {trt.__version__} does not read {onnx.name}: {reasons[0]}"[:400])
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    else:
        config.max_workspace_size = options.workspace_mib << 20
    flags = _flags(trt, network, config, options, typed)
    _profile(builder, network, config, options.shapes)
    if timing is not None:
        _times(config, timing)
    configure(config)
    with ExitStack() as bars:
        if hasattr(config, "progress_monitor"):
            monitor = _monitor(trt, bars)
            config.progress_monitor = monitor
        else:
            bars.enter_context(bar(f"{trt.__name__} {trt.__version__} builds, and cannot tell how far it is", None))
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = (listener.errors or ["no reason given"])[-1]
        raise BuildError(f"{trt.__name__} {trt.__version__} does not build {onnx.name}: {reason}"[:400])
    return Plan(bytes(plan), listener.lines, str(trt.__version__), flags, b"" if timing is None else _timed(config))


def inspect(trt: Any, plan: bytes) -> str:
    """The layers that an engine really has, in the JSON of TensorRT's inspector; "" if it does not load here."""
    runtime = trt.Runtime(_listener(trt))
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # a version-compatible engine brings its own runtime; we just built it
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return ""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _creation(trt: Any, typed: bool) -> int:
    """Bits for create_network."""
    if typed:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    if hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"):
        return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    return 0


def _flags(trt: Any, network: Any, config: Any, options: Options, typed: bool) -> tuple[str, ...]:
    """Set the builder's flags; their names. A version that lacks one that was asked for is told so."""
    names = ["STRONGLY_TYPED"] if typed else []
    if options.fp16:
        if typed or not hasattr(trt.BuilderFlag, "FP16"):
            raise BuildError(
                f"{trt.__name__} {trt.__version__} is strongly typed: no flag makes anything FP16",
                do="Type the network: edgecnn.build.half",
            )
        config.set_flag(trt.BuilderFlag.FP16)
        names.append("FP16")
    if not typed and _quantised(trt, network):
        if not hasattr(trt.BuilderFlag, "INT8"):
            raise BuildError(f"{trt.__name__} {trt.__version__} has neither strong typing nor an INT8 flag")
        config.set_flag(trt.BuilderFlag.INT8)
        names.append("INT8")
    if options.version_compatible:
        if not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
            raise BuildError(
                f"{trt.__name__} {trt.__version__} makes no version-compatible engines",
                wanted="TensorRT 8.6 or later",
                do="Take build.version_compatible out of the recipe",
            )
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        names.append("VERSION_COMPATIBLE")
    return tuple(names)


def _quantised(trt: Any, network: Any) -> bool:
    return any(layer.type == trt.LayerType.QUANTIZE for layer in map(network.get_layer, range(network.num_layers)))


def _profile(builder: Any, network: Any, config: Any, shapes: Mapping[str, tuple[Shape, Shape, Shape]]) -> None:
    """One optimisation profile for all inputs of variable shape. Raises BuildError where `shapes` does not fit them."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = {tensor.name for tensor in tensors if -1 in tuple(tensor.shape)}
    if missing := sorted(dynamic - set(shapes)):
        raise BuildError(
            f"input '{missing[0]}' has no fixed shape", do="Name its least, usual and greatest shape in Options.shapes"
        )
    if spare := sorted(set(shapes) - dynamic):
        raise BuildError(f"Options.shapes names '{spare[0]}'", wanted="inputs of variable shape only")
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for name, (least, usual, greatest) in shapes.items():
        profile.set_shape(name, least, usual, greatest)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"Options.shapes does not fit the network: {dict(shapes)}")


def _times(config: Any, timing: bytes) -> None:
    """Start from what was timed before; TensorRT itself tells whether that fits this GPU and version."""
    if not config.set_timing_cache(config.create_timing_cache(timing), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _timed(config: Any) -> bytes:
    cache = config.get_timing_cache()
    return bytes(cache.serialize())


def _listener(trt: Any) -> Any:
    """A logger that keeps every line, the layer list among them."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            self.lines.extend(text.splitlines())
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text)

    return Listener()


def _monitor(trt: Any, bars: ExitStack) -> Any:
    """A bar for each outermost phase of the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.open: dict[str, Callable[[int], None]] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                bars.close()
                self.open = {phase: bars.enter_context(bar(phase.lower(), steps))}

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self.open:
                self.open[phase](1)
            return True  # Ctrl-C ends the process that builds, with or without a monitor: see worker

        def phase_finish(self, phase: str) -> None:
            if self.open.pop(phase, None) is not None:
                bars.close()

    return Monitor()
