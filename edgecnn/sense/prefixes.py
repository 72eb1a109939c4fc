"""Running many networks that begin alike, without running the beginning again.

A tensor's key is a hash of all that it was computed from: operators, attributes, names of constants, keys of inputs.
Two networks that agree up to a place have the same keys there, so what one of them left there serves the other.
Nothing has to be known of how quantisation spreads: where a later layer changes something earlier, keys differ.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgecnn.backends import Array
from edgecnn.quantize.graph import View
from edgecnn.quantize.insert import KERNELS
from edgecnn.quantize.ranges import tapped
from edgecnn.scene import F32
from edgecnn.sense.network import Names, Network

ROOM = 512 << 20  # bytes of activations that are kept

Values = list[dict[str, Array]]  # a picture each: tensor -> its value


class Prefixes:
    """Runs a network with any set of units in float on the same pictures.

    `done` and `whole` count multiply-adds: those that were computed, and those without anything kept.
    """

    def __init__(self, network: Network, inputs: Sequence[F32], room: int = ROOM) -> None:
        self.network, self.inputs, self.room = network, inputs, room
        self.entry = network.model.graph.input[0].name
        self.outputs = [o.name for o in network.model.graph.output]
        self.done = self.whole = 0
        self._live = live(network.model)
        self._cuts = {unit.name: self._cut(network.positions[unit.name]) for unit in network.units}
        self._kept: OrderedDict[tuple[str, ...], Values] = OrderedDict()  # least recently used first

    def run(self, floats: Names) -> Values:
        """Outputs of every picture, in the network's order."""
        graph = self.network.graph(floats)
        key = keys(graph)
        start, values = self._nearest(key)
        cut = self._first_change(floats)
        if cut > start and (reached := self._part(graph, values, self._live[cut], self.room)):
            values = reached
            self._keep(tuple(key[name] for name in self._live[cut]), values)
        self.whole += self.network.macs * len(self.inputs)
        return self._part(graph, values, self.outputs)

    def _cut(self, position: int) -> int:
        """The place just behind the unit before a kernel: what lies between belongs to neither."""
        return next((i + 1 for i in range(position - 1, -1, -1) if self.network.owned[i]), 0)

    def _first_change(self, floats: Names) -> int:
        """The place up to which all units are alike, all INT8 or all float: what other sets are likely to share."""
        states = [unit.name in floats for unit in self.network.units]
        different = next((unit for unit, s in zip(self.network.units, states, strict=True) if s != states[0]), None)
        return 0 if different is None else self._cuts[different.name]

    def _nearest(self, key: Mapping[str, str]) -> tuple[int, Values]:
        """The furthest place whose tensors are kept, and their values; else the beginning and the pictures."""
        for cut in sorted(set(self._cuts.values()), reverse=True):
            name = tuple(key[tensor] for tensor in self._live[cut])
            if name in self._kept:
                self._kept.move_to_end(name)
                return cut, self._kept[name]
        return 0, [{self.entry: x} for x in self.inputs]

    def _keep(self, name: tuple[str, ...], values: Values) -> None:
        self._kept[name] = values
        while sum(size(kept[0]) * len(kept) for kept in self._kept.values()) > self.room:
            self._kept.popitem(last=False)

    def _part(self, graph: ModelProto, values: Values, wanted: Sequence[str], room: int | None = None) -> Values:
        """Run what leads from the given tensors to the wanted ones; nothing comes back where that needs more room."""
        asked = [name for name in wanted if name not in values[0]]
        session, nodes = part(graph, self.network.constants, values[0], asked)
        macs = sum(self.network.kernel_macs[n.name] for n in nodes if n.op_type in KERNELS)
        feeds = [i.name for i in session.get_inputs()]
        result: Values = []
        for row in values:
            found = dict(zip(asked, session.run(asked, {name: row[name] for name in feeds}), strict=True))
            self.done += macs
            result.append({name: found[name] if name in found else row[name] for name in wanted})
            if room is not None and size(result[0]) * len(values) > room:
                return []
        return result


def size(row: Mapping[str, Array]) -> int:
    """Bytes of one picture's tensors."""
    return sum(array.nbytes for array in row.values())


def live(model: ModelProto) -> list[tuple[str, ...]]:
    """For each place in the list of nodes: tensors made before it that are read behind it, or are outputs."""
    view, made = View(model), [i.name for i in model.graph.input]
    order = {node.name: i for i, node in enumerate(model.graph.node)}
    last = {name: max(order[reader.name] for reader, _ in readers) for name, readers in view.readers.items()}
    places = [tuple(made)]
    for i, node in enumerate(model.graph.node):
        made += [name for name in node.output if name]
        made = [name for name in made if name in view.outputs or last.get(name, -1) > i]
        places.append(tuple(made))
    return places


def keys(graph: ModelProto) -> dict[str, str]:
    """Tensor → hash of all that it is computed from. Constants count by name: a name has one value here."""
    known = {i.name: i.name for i in graph.graph.input}
    for node in graph.graph.node:
        digest = hashlib.sha256(node.op_type.encode())
        for a in node.attribute:
            digest.update(a.SerializeToString(deterministic=True))
        for name in node.input:
            digest.update(known.get(name, name).encode() + b"\0")
        for i, name in enumerate(node.output):
            known[name] = f"{digest.hexdigest()}:{i}"
    return known


def part(
    graph: ModelProto, constants: Mapping[str, TensorProto], given: Mapping[str, Array], wanted: Sequence[str]
) -> tuple[ort.InferenceSession, list[NodeProto]]:
    """A session from given tensors to wanted ones, as written: no graph optimisation; and the nodes in it."""
    needed, nodes = set(wanted), []
    for node in reversed(graph.graph.node):
        if needed.intersection(node.output) - given.keys():
            nodes.append(node)
            needed.update(name for name in node.input if name not in given)
    nodes.reverse()
    read = {name for node in nodes for name in node.input}
    own = {t.name: t for t in graph.graph.initializer}
    made = onnx.GraphProto(
        name="part",
        node=nodes,
        input=[
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in given.items()
            if name in read
        ],
        output=[onnx.ValueInfoProto(name=name) for name in wanted],
        initializer=[own[n] if n in own else constants[n] for n in sorted(read) if n in own or n in constants],
    )
    model = helper.make_model(made, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    return tapped(model, (), optimise=False), nodes
