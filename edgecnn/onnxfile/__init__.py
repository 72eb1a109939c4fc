"""The one door through which an ONNX file comes in: `read`. Nothing else in edgecnn parses a file that a user brought.

The order matters: the bytes are walked before protobuf sees them (`wire`), external files are opened by hand
(`external`), and shapes are bounded before a checker, an inference or a runtime gets the graph (`bounds`).
"""

from edgecnn.onnxfile.bounds import LIMIT, Room, memory
from edgecnn.onnxfile.fold import fix_axes, fold, resized
from edgecnn.onnxfile.graph import PAIR, View, attribute, multiply_adds, set_nodes, sweep, without_pairs
from edgecnn.onnxfile.guard import read

__all__ = [
    "LIMIT",
    "PAIR",
    "Room",
    "View",
    "attribute",
    "fix_axes",
    "fold",
    "memory",
    "multiply_adds",
    "read",
    "resized",
    "set_nodes",
    "sweep",
    "without_pairs",
]
