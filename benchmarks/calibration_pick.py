"""Picked against random: `python benchmarks/calibration_pick.py BUNDLE --data FOLDER --check FOLDER`.

BUNDLE holds a network in FP32 (`edgecnn export RECIPE`). K pictures of --data calibrate it: those that `edgecnn
calibrate --pick` takes, and random ones, of several seeds. Ranges: the mean over tensors of |range / range of the whole
folder - 1|, at percentile 99.99 and at the maximum, both measured as `quantize` does. SQNR: of the INT8 network's last
output (a detector's scores) on --check pictures, in dB; top-1 there, where --check has a folder a class. Random rows:
mean, and in brackets the worst and the best of the seeds. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx

from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.data.calibration import open_pictures
from edgecnn.data.files import read_picture
from edgecnn.quantize.graph import load, prepare
from edgecnn.quantize.insert import plan
from edgecnn.quantize.pick import choose, different, spread
from edgecnn.quantize.ranges import Histogram, amax, collect, tapped
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection
from edgecnn.scene import F32
from edgecnn.vision import Preprocess

Row = dict[str, float]


class Bench:
    """One network, the inputs of one folder, and pictures to check on."""

    def __init__(self, bundle: Bundle, data: Path, check: Path, most: int, checked: int) -> None:
        self.spec, self.model = bundle.require_model(), load(bundle.file("fp32"))
        files = different(data)
        self.files = files[:: -(-len(files) // most)]
        self.shares = spread(bundle, self.files)
        self.section = QuantizeSection()
        self.ready = prepare(self.model)
        self.tensors = plan(self.ready).tensors
        self.whole = self.ranges(range(len(self.files)))
        pictures = open_pictures(check)
        samples = [pictures[row] for row in range(0, len(pictures), -(-len(pictures) // checked))]
        preprocess = Preprocess(self.spec)
        self.checks = [preprocess(sample.bgr)[0].copy() for sample in samples]
        self.labels = [int(sample.truth.label[0]) if len(sample.truth) else -1 for sample in samples]
        self.exact = self.answers(self.model.SerializeToString())

    def feeds(self, rows: list[int] | range) -> list[F32]:
        preprocess = Preprocess(self.spec)
        return [preprocess(read_picture(self.files[row]))[0].copy() for row in rows]

    def ranges(self, rows: list[int] | range) -> dict[str, dict[str, float]]:
        preprocess = Preprocess(self.spec)
        feeds = (preprocess(read_picture(self.files[row]))[0] for row in rows)
        found: dict[str, Histogram] = collect(self.ready, self.tensors, feeds, self.section.bins)
        return {m: {name: amax(h, m) for name, h in found.items()} for m in ("percentile", "max")}

    def answers(self, model: bytes) -> np.ndarray:
        session = tapped(onnx.load_from_string(model), ())
        feed, name = session.get_inputs()[0].name, session.get_outputs()[-1].name
        return np.stack([session.run([name], {feed: x})[0] for x in self.checks])

    def measure(self, rows: list[int]) -> Row:
        mine = self.ranges(rows)
        result = {
            m: 100 * float(np.mean([abs(mine[m][n] / top - 1) for n, top in self.whole[m].items() if top > 0]))
            for m in mine
        }
        answers = self.answers(quantize(self.model, self.feeds(rows), self.section).cpu.SerializeToString())
        result["SQNR"] = float(10 * np.log10(np.square(self.exact).sum() / np.square(self.exact - answers).sum()))
        if self.spec.task == "classify" and min(self.labels) >= 0:
            result["top-1"] = 100 * float(np.mean(answers[:, 0].argmax(1) == self.labels))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--check", type=Path, required=True)
    parser.add_argument("--most", type=int, default=1000, help="pictures of --data, spread over all")
    parser.add_argument("--checked", type=int, default=200, help="pictures of --check")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-k", type=int, nargs="+", default=[8, 16, 32])
    args = parser.parse_args()
    bench = Bench(Bundle.read(args.bundle), args.data, args.check, args.most, args.checked)
    spec: ModelSpec = bench.spec
    print(f"{spec.arch}, {len(bench.files)} pictures, checked on {len(bench.checks)}\n")
    head: list[str] = []
    order = choose(bench.shares, max(args.k))
    for k in args.k:
        picked = bench.measure(order[:k])
        randoms = []
        for seed in range(args.seeds):
            rows = np.random.default_rng(seed).choice(len(bench.files), k, replace=False)
            randoms.append(bench.measure([int(row) for row in rows]))
            print(f"K {k}, seed {seed} done", file=sys.stderr)
        if not head:
            head = ["K", "pictures", *(f"{m} off, %" for m in ("percentile", "max")), *list(picked)[2:]]
            print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        print(f"| {k} | picked | {' | '.join(f'{value:.2f}' for value in picked.values())} |")
        cells = []
        for metric in picked:
            values = [row[metric] for row in randoms]
            ends = (max(values), min(values)) if metric in ("percentile", "max") else (min(values), max(values))
            cells.append(f"{np.mean(values):.2f} ({ends[0]:.2f} … {ends[1]:.2f})")
        print(f"| {k} | random | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
