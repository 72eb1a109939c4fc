"""What became of a network in an engine: precision, fusion, reformats, weights, and where INT8 was asked for in vain.

Where nothing can be read, the answer is "no evidence", never success. What TensorRT for RTX built without its GPU is
evidence about the graph, and says nothing about speed on a Jetson.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgecnn.build import readers
from edgecnn.build.plan import plan
from edgecnn.build.readers import Layer
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.progress import columns

GRAPH_EVIDENCE = "graph evidence from TensorRT for RTX, not Jetson speed"
HEAD = ("layer", "kind", "in", "out", "weights", "numbers", "ONNX nodes")


@dataclass(frozen=True)
class XRay:
    """What became of the kernels that the ONNX file marks for INT8."""

    meant: int
    int8: int | None  # None: no evidence
    floats: tuple[str, ...]  # kernels that were meant to be INT8 and are seen in float
    unseen: tuple[str, ...]  # kernels that no layer names
    layers: tuple[Layer, ...]
    source: str = ""  # where the layers come from, with what they are evidence of
    built: bool = True  # False: a network, which only asks
    meant_half: int = 0  # kernels that the file types in FP16
    half: int = 0  # those of them that are seen in FP16

    @property
    def reformats(self) -> int:
        return sum(layer.reformat for layer in self.layers)

    def __str__(self) -> str:
        if not self.built:
            return f"INT8 is asked for in {self.meant} kernels" + (
                f", FP16 in {self.meant_half}" if self.meant_half else ""
            )
        if self.int8 is None:
            return f"no evidence: the build log names none of the {self.meant} kernels meant for INT8"
        half = f"{self.half} of {self.meant_half} kernels are FP16" if self.meant_half else ""
        if half and not self.meant:
            return half
        missing = f", in float: {', '.join(self.floats[:3])}" if self.floats else ""
        missing += f", not named in the log: {', '.join(self.unseen[:3])}" if self.unseen else ""
        return f"{self.int8} of {self.meant} kernels are INT8{missing}" + (half and f"; {half}")

    def summary(self) -> str:
        """One line about all layers."""
        kernels = [layer for layer in self.layers if layer.kernel]
        int8 = sum(layer.input == "Int8" for layer in kernels)
        fused = max((len(layer.computing) for layer in self.layers), default=0)
        return (
            f"{len(self.layers)} layers, {len(kernels)} of them convolutions or matrix products ({int8} in INT8), "
            f"{self.reformats} that only reformat, at most {fused} ONNX nodes in one layer"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """A row a layer, under HEAD."""
        return [
            (x.name, x.kind, x.input, x.output, x.weight, f"{x.weights:,}" if x.weights else "", ", ".join(x.nodes))
            for x in self.layers
        ]

    def table(self) -> str:
        """Kernels only, and their types."""
        rows = [(x.name, x.kind, x.input, x.output, x.weight) for x in self.layers if x.kernel]
        return columns([("layer", "kind", "in", "out", "const"), *rows])

    def json(self) -> dict[str, Any]:
        rows = [{**asdict(layer), "kernel": layer.kernel} for layer in self.layers]
        return {
            "source": self.source,
            "built": self.built,
            "summary": self.summary(),
            "int8": self.int8,
            "meant": self.meant,
            "half": self.half,
            "meant_half": self.meant_half,
            "floats": self.floats,
            "unseen": self.unseen,
            "reformats": self.reformats,
            "layers": rows,
        }


def xray(layers: Sequence[Layer], meant: Sequence[str], source: str = "", halves: Sequence[str] = ()) -> XRay:
    """Hold the layers of an engine against the kernels that should be INT8, and those that should be FP16.

    A layer that is no convolution or matrix product may only feed an INT8 kernel, so it proves nothing about that; but
    one of FP16 input and constants does: TensorRT for RTX multiplies a matrix by one vector in such a layer.
    """
    state = _seen([x for x in layers if x.kernel], meant, "Int8")
    seen = set(state)  # a generated kernel also names the convolution before it, whose bias it adds
    for layer in layers:
        for node in set(layer.nodes).intersection(meant) - seen if layer.inside else ():
            state[node] = state.get(node, False) or layer.inside == "Int8"
    if not state and meant:
        return XRay(len(meant), None, (), tuple(meant), tuple(layers), source)
    return XRay(
        meant=len(meant),
        int8=sum(state.values()),
        floats=tuple(name for name in meant if state.get(name) is False),
        unseen=tuple(name for name in meant if name not in state),
        layers=tuple(layers),
        source=source,
        meant_half=len(halves),
        half=sum(_seen([x for x in layers if x.kernel or x.weight == "Half"], halves, "Half").values()),
    )


def _seen(layers: Sequence[Layer], meant: Sequence[str], kind: str) -> dict[str, bool]:
    """Kernels that a layer names → whether one of these layers reads this type."""
    state: dict[str, bool] = {}
    for layer in layers:
        for node in set(layer.nodes).intersection(meant):
            state[node] = state.get(node, False) or layer.input == kind
    return state


def look(path: Path) -> XRay:
    """X-ray a bundle (the engine's evidence, or its INT8 network where no engine was built), an ONNX file, a build log
    or an engine of TensorRT for RTX, or the engine inspector's JSON.

    A log, an engine or a JSON alone does not say what was meant: the kernels are then those with INT8 weights.
    Raises InputError where nothing can be read, BundleError for a changed bundle.
    """
    if path.is_dir():
        return _bundle(Bundle.read(path))
    if not path.is_file():
        raise InputError(f"there is nothing at {path}", wanted="a bundle, .onnx, .engine, build log or inspector .json")
    if path.suffix == ".onnx":
        return _network(path, "what the network asks for; nothing was built")
    if path.suffix == ".engine":
        return _alone(plan(path.read_bytes(), str(path)), f"{path.name}: {GRAPH_EVIDENCE}")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no text ({error})", wanted="a build log or inspector .json") from error
    if path.suffix == ".json":
        return _alone(readers.inspector(text), f"{path.name}: TensorRT's engine inspector")
    layers = readers.log(text.splitlines())
    if not layers:
        raise InputError(
            f"{path} describes no layers",
            wanted=f"the log of a verbose, detailed build by TensorRT for RTX {readers.RTX}, or inspector .json",
        )
    return _alone(layers, f"{path.name}: {GRAPH_EVIDENCE}")


def _alone(layers: tuple[Layer, ...], source: str) -> XRay:
    found = {
        kind: tuple(dict.fromkeys(n for x in layers if x.kernel and x.weight == kind for n in x.nodes if n == _own(x)))
        for kind in ("Int8", "Half")
    }
    return xray(layers, found["Int8"], source, found["Half"])


def _own(layer: Layer) -> str:
    """The node that a kernel was made from: its name leads the layer's."""
    named = [node for node in layer.computing if layer.name.startswith(node)]
    return max(named, key=len, default=next(iter(layer.computing), layer.name))


def _network(path: Path, source: str) -> XRay:
    from edgecnn import onnxfile
    from edgecnn.build import lint

    model = onnxfile.read(path)
    layers = readers.network(model)
    seen = xray(layers, lint.meant(model), f"{path.name}: {source}", typed(layers))
    return replace(seen, built=False)


def typed(layers: Iterable[Layer]) -> tuple[str, ...]:
    """The kernels that a network types in FP16."""
    return tuple(x.name for x in layers if x.kernel and x.weight == "Half")


def _bundle(bundle: Bundle) -> XRay:
    if not bundle.has("engine"):
        return _network(bundle.file("int8"), "what the network asks for; no engine was built")
    facts = bundle.stages["build"].facts
    asked = _network(bundle.file(facts.get("network", "int8")), "")
    meant = tuple(x.name for x in asked.layers if x.kernel and x.input == x.weight == "Int8")
    tools = " ".join(f"{name} {version}" for name, version in bundle.stages["build"].made_on.items())
    if bundle.has("layers"):
        layers = readers.inspector(bundle.file("layers").read_text("utf-8"))
        source = f"engine for {facts['target']} by {tools}: TensorRT's engine inspector"
    else:
        layers = readers.log(bundle.file("build_log").read_text("utf-8").splitlines())
        source = f"engine for {facts['target']} by {tools}: {GRAPH_EVIDENCE}"
    return xray(layers, meant, source, typed(asked.layers))


def difference(a: XRay, b: XRay) -> list[tuple[str, str, str]]:
    """(ONNX node, in a, in b) for every kernel whose precision differs, and how many layers only reformat.

    Two networks are compared node by node: a pair more or less anywhere shows.
    """
    networks = not a.built and not b.built
    first, second = (_precisions(ray.layers, every=networks) for ray in (a, b))
    rows = []
    for node in dict.fromkeys([*first, *second]):
        one, other = first.get(node, "not there"), second.get(node, "not there")
        if one != other:
            rows.append((node, one, other))
    if a.built and b.built and a.reformats != b.reformats:
        rows.append(("(layers that only reformat)", str(a.reformats), str(b.reformats)))
    return rows


def _precisions(layers: Iterable[Layer], *, every: bool) -> dict[str, str]:
    """ONNX node → `in × weights → out`."""
    found = {}
    for x in layers:
        if x.kernel or every:
            weight = f" × {x.weight or '?'}" if x.kernel else ""
            found[_own(x)] = f"{x.input or '?'}{weight} → {x.output or '?'}"
    return found
