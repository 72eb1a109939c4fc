"""Cuts at equal latency: the same share of every family, Torch-Pruning's global ranking, and the searches. Markdown.

python benchmarks/slim_search.py ../shared/data/classification/gtsrb --out out/search

For each seed a network is trained from scratch on DATA/train; each contender cuts it to the same latency, measured
whole on this machine (onnxruntime, FP32, one thread), fine-tunes it alike, taught by the network before the cut, and is
tested on DATA/test, whose pictures no other step sees. What was done is kept in --out: a run that is stopped goes on.
Run it on a machine with nothing else to do: a neighbour's load moves the latencies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec, atomic
from edgecnn.data import open_dataset
from edgecnn.errors import ModelError
from edgecnn.progress import note
from edgecnn.recipe import AugmentSection, DataSection, FinetuneStep, ModelSection, PruneStep, SearchStep, TrainSection
from edgecnn.slim.latency import whole
from edgecnn.slim.prune import DEEPEST, cut_by_ratio
from edgecnn.slim.search import searched
from edgecnn.slim.search.policies import POLICIES, Policy
from edgecnn.slim.search.problem import Problem
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.count import size
from edgecnn.zoo.evaluate import accuracy
from edgecnn.zoo.fit import fit

HALVINGS = 12


def ranked(problem: Problem, most: float) -> dict[str, int]:
    """What Torch-Pruning does alone: one ranking of all channels, scores relative to their family's mean."""
    step = PruneStep(channels=0.5, round_to=problem.round_to)
    low, high, best = 0.0, DEEPEST, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        cut = cut_by_ratio(problem.families, ratio, step)
        if problem.price(cut) <= most:
            best, high = cut, ratio
        else:
            low = ratio
    if best is None:
        raise ModelError(f"no global ranking costs {most:.4g} or less")
    return best


def trained(args: argparse.Namespace, train: DataSection, seed: int) -> tuple[nn.Module, ModelSpec]:
    classes = tuple(open_dataset(train).classes)
    spec = zoo.spec_for(ModelSection(arch=args.arch, classes=classes, height=args.side, width=args.side))
    path = args.out / f"{args.arch}-{args.side}-{args.epochs}-{seed}.safetensors"
    if path.is_file():
        return zoo.load(path, spec)
    torch.manual_seed(seed)
    net = zoo.build(spec)
    jitter = AugmentSection(shift=0.08, scale=0.1, colour=0.2)
    fit(net, spec, TrainSection(data=train, epochs=args.epochs, batch=32, lr=0.02, augment=jitter, seed=seed))
    zoo.save_weights(path, net, spec)
    return net, spec


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="a folder with train/ and test/, each of one folder a class")
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6, help="of training from scratch")
    parser.add_argument("--tune", type=int, default=2, help="epochs of fine-tuning")
    parser.add_argument("--share", type=float, default=0.5, help="of the latency that stays")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", type=int, default=96, help="pictures of train/ on which cuts are judged")
    parser.add_argument("--pictures", type=int, default=100_000, help="at most so many for training and testing each")
    parser.add_argument("--policies", nargs="+", default=["uniform", "global", "greedy", "evolutionary"])
    args = parser.parse_args()
    cast(MutableMapping[str, Policy], POLICIES)["global"] = ranked
    train, test, judge = (
        DataSection(kind="classes", path=args.data / part, pictures=count)
        for part, count in (("train", args.pictures), ("test", args.pictures), ("train", args.judge))
    )
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in range(args.seeds):
        net, spec = trained(args, train, seed)
        seen = Batchable.read(spec, test, "pictures to test on")
        key = {k: v for k, v in vars(args).items() if k not in ("seeds", "policies", "data", "out")}
        file = args.out / f"rows-{args.arch}-{seed}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        done = known["rows"] if known.get("key") == key else {}
        if "before" not in done:
            done["before"] = figures(net, spec, seen) | {"seconds": 0.0}
        target = args.share * done["before"]["ms"]
        for policy in args.policies:
            if policy not in done:
                start = time.perf_counter()
                tune = FinetuneStep(data=train, epochs=args.tune, batch=32, lr=0.01, seed=seed)
                step = SearchStep(latency=target, data=judge, tune=tune, seed=seed).model_copy(
                    update={"policy": policy}
                )
                try:
                    slim, described, line = searched(net, spec, step, net, spec, args.out / f"seed{seed}")
                except ModelError as error:  # the ranking may not reach what the others do
                    note(f"seed {seed}, {policy}: {error}")
                    continue
                note(f"seed {seed}: {line}")
                done[policy] = figures(slim, described, seen) | {"seconds": time.perf_counter() - start}
            with atomic(file) as temporary:
                temporary.write_text(json.dumps({"key": key, "rows": done}, indent=1))
        for name in ("before", *args.policies):
            if name in done:
                rows.setdefault(name, []).append(done[name])
    print(f"{args.arch}, {args.side}x{args.side}, {args.data.name}, {args.seeds} seeds: mean (lowest to highest)\n")
    print("| cut | seeds | latency, ms | multiply-adds, M | top-1, % | search and fine-tuning, s |")
    print("|---" * 6 + "|")
    for name, runs in rows.items():
        cells = [spread([run[k] * by for run in runs], form) for k, by, form in COLUMNS]
        print(f"| {name} | {len(runs)} | {' | '.join(cells)} |")


COLUMNS = (("ms", 1.0, ".2f"), ("macs", 1e-6, ".1f"), ("top1", 100.0, ".1f"), ("seconds", 1.0, ".0f"))


def figures(net: nn.Module, spec: ModelSpec, seen: Batchable) -> dict[str, float]:
    shape = spec.input.shape
    return {"ms": whole(net, shape), "macs": size(net, shape).macs, "top1": accuracy(net, spec, seen)}


def spread(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
