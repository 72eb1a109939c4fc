"""Quantisation-aware training beside quantisation alone: `python benchmarks/qat.py BUNDLE=RECIPE [--train sim:SEED:N]`.

Each bundle's FP32 network is quantised as the recipe says, once without and once with qat; both once as the stage does
(kernels under 20 dB stay float) and once with every kernel in INT8. Pictures to train on: those of the recipe's
`quantize.qat` or `train`, or so many of the simulator's. Top-1 or AP50 (weak detections included) on the recipe's check
pictures in TensorRT's form, run as written, and in the CPU's; divergence: nats a picture from FP32's answers in
TensorRT's form (`edgecnn.sense.exam`); SQNR of each output. Bundles are only read. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto

from edgecnn.backends import Array
from edgecnn.bundle import Bundle
from edgecnn.data import open_dataset
from edgecnn.progress import tracked
from edgecnn.quantize import stage
from edgecnn.quantize.graph import load as load_network
from edgecnn.quantize.insert import Plan
from edgecnn.quantize.qat import Tuned
from edgecnn.quantize.qat.train import Trainer
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import DataSection, QatSection, Recipe, load
from edgecnn.sense.exam import Exam

HEAD = ("network", "form", "INT8 kernels", "figure", "figure, CPU form", "divergence", "SQNR, dB", "held out, dB", "s")


class Once:
    """A trainer that trains a placement once."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.seconds = trainer, 0.0
        self.known: dict[tuple[str, ...], Tuned] = {}

    def __call__(self, model: ModelProto, start: ModelProto, plan: Plan, scale: Mapping[str, float]) -> Tuned:
        if plan.kernels not in self.known:
            begun = time.perf_counter()
            self.known[plan.kernels] = self.trainer(model, start, plan, scale)
            self.seconds = time.perf_counter() - begun
        return self.known[plan.kernels]


def answers(model: ModelProto, exam: Exam, *, optimise: bool) -> list[Mapping[str, Array]]:
    session = tapped(model, (), optimise=optimise)
    names, feed = [o.name for o in session.get_outputs()], session.get_inputs()[0].name
    rows = tracked(exam.inputs, "check", len(exam.inputs))
    return [dict(zip(names, session.run(names, {feed: x}), strict=True)) for x in rows]


def section(args: argparse.Namespace, recipe: Recipe) -> QatSection:
    own = recipe.quantize.qat or QatSection(data=recipe.train.data if recipe.train.epochs else None)
    changes = {k: v for k in ("epochs", "lr", "batch", "seed") if (v := getattr(args, k)) is not None}
    if args.train:
        kind, seed, pictures = args.train.split(":")
        changes["data"] = DataSection(kind=kind, seed=int(seed), pictures=int(pictures))
    return own.model_copy(update=changes)


def held(facts: Mapping[str, Any]) -> str:
    before, after = facts["before_db"], facts["after_db"]
    return ", ".join(f"{form} {before[form]:.1f} → {after[form]:.1f}" for form in before)


def compare(bundle: Bundle, recipe: Recipe, args: argparse.Namespace) -> None:
    spec, source = bundle.require_model(), load_network(bundle.file("fp32"))
    exam = Exam.open(spec, recipe.check.data, args.pictures, recipe.run.iou)
    data = stage.calibration(recipe.quantize)
    feeds, qat, floor = stage.Inputs(spec, data), section(args, recipe), stage.FLOOR_DB
    trainer = Once(Trainer(spec, qat, data if qat.data is None else open_dataset(qat.data)))
    exact = answers(source, exam, optimise=True)
    print(f"| {bundle.name} | FP32 | | {exam.score(exact):.4f} | | | | | |", flush=True)
    for name, tune in (("INT8", None), ("INT8, qat", trainer)):
        for words, least in (("", floor), (", every kernel", float("-inf"))):
            if words and not args.every:
                continue
            stage.FLOOR_DB = least
            made = stage.quantize(source, feeds, recipe.quantize, tune)
            rounded = answers(made.tensorrt, exam, optimise=False)
            sqnr = stage.sqnr(source, made.tensorrt, exam.inputs[:: -(-len(exam.inputs) // 16)], optimise=False)
            cells = [
                f"{len(made.plan.kernels)} of {len(made.plan.kernels) + len(made.plan.floats)}",
                f"{exam.score(rounded):.4f}",
                f"{exam.score(answers(made.cpu, exam, optimise=True)):.4f}",
                f"{exam.divergence(exact, rounded):.4f}",
                ", ".join(f"{db:.1f}" for db in sqnr.values()),
                held(made.qat) if made.qat else "",
                f"{trainer.seconds:.0f}" if made.qat else "",
            ]
            print(f"| {bundle.name} | {name}{words} | " + " | ".join(cells) + " |", flush=True)
    stage.FLOOR_DB = floor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="BUNDLE=RECIPE")
    parser.add_argument("--train", help="KIND:SEED:PICTURES of the simulator's")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--pictures", type=int, default=1000, help="at most, to check on")
    parser.add_argument("--no-every", dest="every", action="store_false", help="leave out the rows with every kernel")
    args = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for pair in args.pairs:
        bundle, _, recipe = pair.rpartition("=")
        compare(Bundle.read(Path(bundle)), load(Path(recipe)), args)


if __name__ == "__main__":
    main()
