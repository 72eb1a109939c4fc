"""What the rules must know of a target: the TensorRT releases behind it, their opsets, INT8, the DLA.

Highest opsets: TensorRT 8.2 reads 13, 8.5 and 8.6 17, 10.15 24 (docs/operators.md of onnx-tensorrt's releases), 11.x
25 (TensorRT's ONNX opset guide), TensorRT for RTX 1.7 26 (tried). 10.3 with 20, 10.13 with 22 and 10.16 with 24 stand
between those and are not verified.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn.build import targets
from edgecnn.errors import BuildError

OPSET = {"8.2": 13, "8.4": 13, "8.5": 17, "8.6": 17, "10.3": 20, "10.13": 22, "10.16": 24, "11.4": 25}
LOWEST = 9  # of every release
RTX = "RTX 1.7"

NO_KERNEL = {  # operator -> what to do instead; no release has a kernel or an importer for it
    "QLinearConv": "Quantise with Q/DQ pairs instead",
    "QLinearMatMul": "Quantise with Q/DQ pairs instead",
    "QLinearAdd": "Quantise with Q/DQ pairs instead",
    "ConvInteger": "Quantise with Q/DQ pairs instead",
    "MatMulInteger": "Quantise with Q/DQ pairs instead",
    "DynamicQuantizeLinear": "Calibrate, and use fixed scales",
}
NMS = "Decode and suppress on the CPU, as edgecnn.vision does"
SINCE_85 = {  # importers since TensorRT 8.5; TensorRT for RTX 1.7 refuses them (tried)
    "NonMaxSuppression": NMS,
    "NonZero": "Its output has no fixed shape: use TopK or Where",
    "RoiAlign": "Cut the network before it",
}
PLUGINS = {"EfficientNMS_TRT": NMS}  # plug-ins of the full TensorRT


@dataclass(frozen=True)
class Profile:
    """A target as the rules see it."""

    name: str
    title: str
    releases: tuple[str, ...]  # of TensorRT, major.minor
    int8: bool = True
    sm75: bool = False
    dla: bool = False

    @property
    def opsets(self) -> dict[str, int]:
        """Highest opset of each release."""
        return {r: 26 if r == RTX else OPSET[r] for r in self.releases}

    def refuses(self, op: str) -> str:
        """What to do instead of an operator; "" where every release reads it."""
        if op in NO_KERNEL:
            return NO_KERNEL[op]
        if op in SINCE_85 and (not self.releases or {"8.2", "8.4", RTX} & {*self.releases}):
            return SINCE_85[op]
        return PLUGINS[op] if op in PLUGINS and (not self.releases or RTX in self.releases) else ""


ANY = Profile("any", "every TensorRT", ())  # what no release gets right; used where no target is known
PROFILES: Mapping[str, Profile] = {
    "jetpack-4.6": Profile("jetpack-4.6", "JetPack 4.6 (TensorRT 8.2)", ("8.2",)),
    "jetpack-5.1": Profile("jetpack-5.1", "JetPack 5.1 (TensorRT 8.5)", ("8.5",)),
    "jetpack-6.x": Profile("jetpack-6.x", "JetPack 6.0 to 6.2 (TensorRT 8.6, 10.3)", ("8.6", "10.3")),
    "jetpack-7.x": Profile(
        "jetpack-7.x", "JetPack 7.0 to 7.2 (TensorRT 10.13, 10.16, 11.4)", ("10.13", "10.16", "11.4")
    ),
    "rtx": Profile("rtx", "TensorRT for RTX 1.7", (RTX,)),
    "dla": Profile("dla", "the DLA of Xavier and Orin", ("8.2", "8.5", "8.6", "10.3"), dla=True),
}


def find(name: str) -> Profile:
    """A profile by its own name or a board's. Raises BuildError for an unknown name."""
    if name in PROFILES:
        return PROFILES[name]
    board = targets.TARGETS.get(name)
    if board is None:
        names = [*PROFILES, *targets.TARGETS]
        near = difflib.get_close_matches(name, names, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise BuildError(f"no target '{name}'{hint}", wanted=f"one of {', '.join(names)}")
    if board.dialect == "rtx":
        return Profile(name, board.title, (RTX,), sm75=board.sm == 75)
    releases = [".".join(version.split(".")[:2]) for version in (board.software or {}).values()]
    return Profile(name, board.title, tuple(r for r in releases if r in OPSET), board.int8)
