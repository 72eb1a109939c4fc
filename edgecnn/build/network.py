"""What every dialect of TensorRT has in common: parse, configure, build, with a progress bar and the whole log.

Precision stands in the graph (Q/DQ pairs), so the network is strongly typed and nothing is chosen here: TensorRT 11 has
neither precision flags nor calibrators, and TensorRT 10 does not need them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgecnn.errors import BuildError
from edgecnn.progress import bar


def build_plan(trt: Any, onnx: Path, workspace_mib: int, configure: Callable[[Any], None]) -> tuple[bytes, list[str]]:
    """An ONNX file → the engine's bytes and every line of the log. `trt` is the imported binding.

    `configure(config)` does what only one dialect can. Raises BuildError with the parser's or builder's own last words.
    """
    listener = _listener(trt)
    builder = trt.Builder(listener)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, listener)
    if not parser.parse(onnx.read_bytes()) or network.num_layers == 0:
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)] or ["it holds no layers"]
        raise BuildError(f"{trt.__name__} {trt.__version__} does not read {onnx.name}: {reasons[0]}"[:400])
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    configure(config)
    with ExitStack() as bars:
        monitor = _monitor(trt, bars)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = (listener.errors or ["no reason given"])[-1]
        raise BuildError(f"{trt.__name__} {trt.__version__} does not build {onnx.name}: {reason}"[:400])
    return bytes(plan), listener.lines


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
            return True

        def phase_finish(self, phase: str) -> None:
            if self.open.pop(phase, None) is not None:
                bars.close()

    return Monitor()
