"""Published latencies beside predicted ones, as docs/targets.md: `python benchmarks/predict_table.py`.

With --fit the constants of `edgecnn.predict.roofline` are fitted anew, and written with their error to
edgecnn/predict/fitted.json. Least squares on the logarithm of predicted / published, in which no figure counts for much
more than 20 % (soft L1). "Unseen" columns are predictions of fits that did not see any figure of that board, or of that
network. The form of the model and START were chosen with all figures in sight.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from published_nets import NETWORKS
from scipy.optimize import least_squares

from edgecnn.build.targets import TARGETS
from edgecnn.bundle import atomic
from edgecnn.predict import FITTED, constants
from edgecnn.predict.kernels import Precision, plan
from edgecnn.predict.roofline import Columns, Constants, microseconds

ROOT = Path(__file__).parents[1]
START = Constants(
    launch_us=2.5, compute=0.7, prologue=64, border=30, bandwidth=0.6, depthwise=0.1, enqueue_us=8, call_ms=0.7
)
LEAST = Constants(2, 0.2, 0.001, 0.001, 0.3, 0.005, 0.001, 0.001)
MOST = Constants(10, 1, 400, 100, 1, 1, 30, 3)


@dataclass(frozen=True)
class Figure:
    """A published latency of batch 1."""

    board: str
    network: str
    precision: Precision
    ms: float
    how: Literal["graph", "python"]  # MLPerf's harness replays CUDA graphs; Ultralytics' is Python


def _ultralytics(board: str, network: str, *ms: float) -> list[Figure]:
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return [Figure(board, network, how, each, "python") for how, each in zip(precisions, ms, strict=True)]


FIGURES = [
    # MLPerf Inference, closed division, NVIDIA's submissions: mean latency of the single-stream scenario; INT8 assumed
    Figure("orin", "ResNet-50", "int8", 0.636, "graph"),
    Figure("orin", "RetinaNet", "int8", 11.57, "graph"),
    Figure("orin", "SSD-MobileNet", "int8", 0.469, "graph"),
    Figure("orin", "SSD-ResNet34", "int8", 8.005, "graph"),
    Figure("orin-nx", "ResNet-50", "int8", 1.079, "graph"),
    Figure("orin-nx", "RetinaNet", "int8", 28.44, "graph"),
    Figure("xavier", "ResNet-50", "int8", 1.820, "graph"),
    Figure("xavier-nx", "ResNet-50", "int8", 2.426, "graph"),
    # Ultralytics' documentation, NVIDIA Jetson: TensorRT, 640 px
    *_ultralytics("orin-nano-super", "YOLO11n", 7.60, 4.91, 3.91),
    *_ultralytics("orin-nano-super", "YOLO11s", 13.29, 7.30, 5.25),
    *_ultralytics("orin-nano-super", "YOLO11m", 28.21, 13.99, 9.58),
    *_ultralytics("orin-nano-super", "YOLO11x", 67.3, 32.9, 20.7),
    *_ultralytics("orin-nano-super", "YOLOv8n", 8.37, 4.43, 3.49),
    *_ultralytics("orin-nx", "YOLO11n", 8.05, 4.85, 4.37),
]


# seen by no fit, of a generation without tensor cores; NVIDIA, "Jetson Nano: Deep Learning Inference Benchmarks"
NANO = Figure("nano", "ResNet-50", "fp16", 1e3 / 36, "graph")


@cache
def columns(network: str, precision: Precision) -> Columns:
    return Columns.of(plan(NETWORKS[network](), precision))


def predicted(figure: Figure, fit: Constants) -> float:
    """ms."""
    arithmetic, memory = microseconds(columns(figure.network, figure.precision), TARGETS[figure.board], fit)
    graph = float((np.maximum(arithmetic, memory) + fit.launch_us).sum()) / 1e3
    return graph if figure.how == "graph" else graph + fit.enqueue_us * len(memory) / 1e3 + fit.call_ms


def fitted(figures: Sequence[Figure]) -> Constants:
    def off(logs: np.ndarray) -> np.ndarray:
        fit = Constants(*np.exp(logs).tolist())
        errors = [math.log(predicted(figure, fit) / figure.ms) for figure in figures]
        return np.array(errors)

    bounds = (np.log(astuple(LEAST)), np.log(astuple(MOST)))
    found = least_squares(off, np.log(astuple(START)), bounds=bounds, loss="soft_l1", f_scale=0.2, diff_step=0.03)
    return Constants(*(float(f"{value:.3g}") for value in np.exp(found.x)))


def unseen(group: Callable[[Figure], str]) -> list[float]:
    """ms of each figure by a fit without any of its group: its board, or its network."""
    fits = {name: fitted([f for f in FIGURES if group(f) != name]) for name in {group(f) for f in FIGURES}}
    return [predicted(figure, fits[group(figure)]) for figure in FIGURES]


def error(ms: Sequence[float]) -> dict[str, float]:
    """Median share by which the predictions are off, and the worst factor."""
    off = [abs(math.log(p / f.ms)) for p, f in zip(ms, FIGURES, strict=True)]
    shares = [abs(p / f.ms - 1) for p, f in zip(ms, FIGURES, strict=True)]
    return {"median": round(statistics.median(shares), 3), "worst": round(math.exp(max(off)), 2), "figures": len(ms)}


def table() -> str:
    seen = [predicted(figure, constants()) for figure in FIGURES]
    boards, networks = unseen(lambda f: f.board), unseen(lambda f: f.network)
    lines = [
        "| board | network | precision | published ms | fitted on | board unseen | network unseen |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure, *three in zip(FIGURES, seen, boards, networks, strict=True):
        cells = [f"{ms:.2f} ({ms / figure.ms - 1:+.0%})" for ms in three]
        lines.append(f"| {figure.board} | {figure.network} | {figure.precision} | {figure.ms} | {' | '.join(cells)} |")
    ms = predicted(NANO, constants())
    off = f"{ms:.2f} ({ms / NANO.ms - 1:+.0%})"
    lines.append(f"| {NANO.board} | {NANO.network} | {NANO.precision} | {NANO.ms:.1f} | not used | {off} | |")
    worst = [f"{e['median']:.0%}, {e['worst']:.2f}x" for e in map(error, (seen, boards, networks))]
    lines.append(f"| **median, worst** | | | | {' | '.join(f'**{cell}**' for cell in worst)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fit", action="store_true", help="fit the constants anew before the table is made")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/targets.md", help="its part between the two marks")
    args = parser.parse_args()
    if args.fit:
        found = {
            "constants": asdict(fitted(FIGURES)),
            "error": error(unseen(lambda f: f.board)),
            "sm": sorted({TARGETS[f.board].sm for f in FIGURES}),
        }
        with atomic(FITTED) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    before, begin, rest = args.out.read_text("utf-8").partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end of table -->\n")
    with atomic(args.out) as temporary:
        temporary.write_text(f"{before}{begin}{table()}\n{end}{after}", "utf-8")


if __name__ == "__main__":
    main()
