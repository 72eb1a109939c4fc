"""How often gates are wrong: `python -m benchmarks.gate_power BUNDLE`. Markdown.

A gate on a loss is asked over and over about two networks. Either they are equally good, or the second has lost a known
amount. *Detection*: the FP32 answers of BUNDLE on simulated drives, --drives of them; each trial takes half of their
pieces of 10 frames, and each of the two networks gets its own noise (boxes 3 %, scores .03, 2 % of the answers lost).
A loss is planted by losing a share of the answers more, a share found beforehand on all frames. *Classification*:
answers by chance, 90 % right, the two networks disagreeing in 6 % of the pictures. Figures are shares of the trials.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.check.accuracy import Detector, open_clips
from edgecnn.check.gates import judge
from edgecnn.check.measured import PIECE, Measured
from edgecnn.metrics.detection import evaluate_detections, redrawn_detections
from edgecnn.metrics.redraw import DRAWS, draws
from edgecnn.progress import note
from edgecnn.recipe import CheckSection, DataSection
from edgecnn.scene import Detections, Truth

Rows = list[tuple[Detections, Truth]]
FEW_DRAWS = 300  # of a trial; `edgecnn check` takes DRAWS


def answers(bundle: Bundle, drives: int) -> tuple[Rows, tuple[str, ...]]:
    model = bundle.require_model()
    detect = Detector(model, open_backend(bundle, "fp32"), 0.6)
    rows: Rows = []
    for clip in open_clips(DataSection(kind="sim_drive", seed=9330, pictures=100, drives=drives)):
        note(clip.name)
        rows += [(detect(frame.bgr), truth) for frame, truth in clip.frames]
    return rows, model.classes


def noisy(rows: Rows, rng: np.random.Generator, lost: float) -> Rows:
    """Another network's answers: `lost` share of them gone, the others not quite the same."""
    out = []
    for found, truth in rows:
        kept = found[rng.uniform(size=len(found)) >= lost]
        side = np.repeat(kept.xyxy[:, 2:] - kept.xyxy[:, :2], 2, axis=1)
        xyxy = (kept.xyxy + 0.03 * side * rng.normal(size=kept.xyxy.shape)).astype(np.float32)
        score = np.clip(kept.score + 0.03 * rng.normal(size=len(kept)), 0.011, 0.999).astype(np.float32)
        out.append((replace(kept, xyxy=xyxy, score=score), truth))
    return out


def detection_trial(rows: Rows, classes: tuple[str, ...], rng: np.random.Generator, lost: float) -> list[Measured]:
    pieces = rng.permutation(len(rows) // PIECE)[: len(rows) // PIECE // 2]
    some = [rows[PIECE * piece + i] for piece in pieces for i in range(PIECE)]
    weight = draws(len(pieces), FEW_DRAWS)
    pair = []
    for share in (0.02, 0.02 + lost):
        seen = noisy(some, rng, share)
        figures = {"int8": {"AP50": evaluate_detections(seen, classes)["AP50"]}}
        redrawn = {"int8": redrawn_detections(seen, classes, weight.repeat(PIECE, axis=1))}
        pair.append(Measured(figures, len(some), redrawn, len(pieces)))
    return pair


def classification_trial(pictures: int, rng: np.random.Generator, lost: float) -> list[Measured]:
    right = rng.uniform(size=pictures) < 0.9
    weight, pair = draws(pictures), []
    for share in (0.0, lost):
        wrong, mended = rng.uniform(size=pictures) < 0.03 / 0.9 + share / 0.9, rng.uniform(size=pictures) < 0.03 / 0.1
        hits = np.where(right, ~wrong, mended).astype(float)
        redrawn = {"int8": {"top1": weight @ hits / pictures}}
        pair.append(Measured({"int8": {"top1": float(hits.mean())}}, pictures, redrawn, pictures))
    return pair


def rates(trial: Callable[[np.random.Generator], list[Measured]], limit: float, trials: int) -> str:
    verdicts: Counter[str] = Counter()
    section = CheckSection(baseline_drop=limit)
    for seed in range(trials):
        before, now = trial(np.random.default_rng(seed))
        (gate,) = judge(now, section, before)
        verdicts[gate.verdict if gate.verdict != "unsure" else "over" if gate.value > limit else "blind"] += 1
    shares = [f"{verdicts[name] / trials:.1%}" for name in ("ok", "blind", "over", "missed")]
    return " | ".join([str(trials), *shares])


def share_for(rows: Rows, classes: tuple[str, ...], wanted: float) -> float:
    """Which share of the answers must be lost to lose `wanted` AP50, over all frames."""

    def fallen(share: float) -> float:
        both = [
            np.mean([evaluate_detections(noisy(rows, np.random.default_rng(s), x), classes)["AP50"] for s in range(3)])
            for x in (0.02, 0.02 + share)
        ]
        return float(both[0] - both[1])

    low, high = 0.0, 0.5
    for _ in range(6):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fallen(middle) < wanted else (low, middle)
    return 0.5 * (low + high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--drives", type=int, default=6)
    parser.add_argument("--trials", type=int, default=100, help="of detection; of classification ten times as many")
    parser.add_argument("--only", choices=("classification", "detection"))
    args = parser.parse_args()
    print("| figure | pictures | limit | planted | trials | passed | too few to tell | beyond, unsure | missed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for pictures in () if args.only == "detection" else (200, 1000):
        for lost in (0.0, 0.03, 0.06):
            cells = rates(lambda rng: classification_trial(pictures, rng, lost), 0.01, 10 * args.trials)  # noqa: B023
            print(f"| top-1 | {pictures} | .01 | {lost:g} | {cells} |", flush=True)
    if args.only == "classification":
        return
    rows, classes = answers(Bundle.read(args.bundle), args.drives)
    for lost in (0.0, 0.05, 0.10):
        share = share_for(rows, classes, lost) if lost else 0.0
        cells = rates(lambda rng: detection_trial(rows, classes, rng, share), 0.02, args.trials)  # noqa: B023
        print(f"| AP50 | {len(rows) // 2} | .02 | {lost:g} | {cells} |", flush=True)
    print(f"\nDraws a trial: {FEW_DRAWS} for AP50, {DRAWS} for top-1.")


if __name__ == "__main__":
    main()
