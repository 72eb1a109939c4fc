"""Cuts at equal latency: the same share of every family, the searches, Torch-Pruning and modelopt alone. Markdown.

python benchmarks/slim_search.py ../shared/data/classification/gtsrb --out out/search

For each seed a network is trained from scratch on DATA/train; each contender cuts it until it takes the same share of
its time, by onnxruntime, FP32, one thread, the two in turns; it is fine-tuned alike, taught by the network before the
cut, and tested on DATA/test, whose pictures no other step sees. In the end all of a seed's networks are timed in turns
once more. What was done is kept in --out: a run that is stopped goes on. modelopt takes part where it is installed (see
peers.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from peers import ROUND_TO, Cutter, fastnas, torch_pruning
from torch import nn
from zoo_table import in_turns

from edgecnn import zoo
from edgecnn.backends import Backend
from edgecnn.backends.ort import OnnxRuntime
from edgecnn.bundle import ModelSpec
from edgecnn.data import open_dataset
from edgecnn.errors import ModelError
from edgecnn.export import write
from edgecnn.progress import note
from edgecnn.recipe import AugmentSection, DataSection, FinetuneStep, ModelSection, TrainSection
from edgecnn.slim.channels import families, layout
from edgecnn.slim.finetune import finetuned
from edgecnn.slim.latency import LatencyTable
from edgecnn.slim.prune import importance, weigh
from edgecnn.slim.search.policies import POLICIES
from edgecnn.slim.search.problem import Memo, Problem
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.count import size
from edgecnn.zoo.evaluate import accuracy
from edgecnn.zoo.fit import fit
from edgecnn.zoo.widths import read_widths

PEERS = {"torch_pruning": torch_pruning, "fastnas": fastnas}
MILDER = "uniform, the next milder"  # the least cut of widths in eights that takes more than its share of the time
OWN = {
    "uniform": ("uniform", "taylor"),
    MILDER: ("uniform", "taylor"),
    "greedy": ("greedy", "taylor"),
    "greedy, magnitude": ("greedy", "magnitude"),
    "evolutionary": ("evolutionary", "taylor"),
    "ranked, magnitude": ("ranked", "magnitude"),
}
RUNS, HALVINGS = 40, 6


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with train/ and test/, each of one folder a class")
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=8, help="of training from scratch")
    parser.add_argument("--tune", type=int, default=3, help="epochs of fine-tuning")
    parser.add_argument("--share", type=float, default=0.25, help="of the latency that stays")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", type=int, default=96, help="pictures of train/ on which cuts are judged")
    parser.add_argument("--pictures", type=int, default=100_000, help="at most so many for training and testing each")
    parser.add_argument("--only", nargs="+", default=[*OWN, *PEERS])
    args = parser.parse_args()
    train, test, judge = (
        DataSection(kind="classes", path=args.data / part, pictures=count)
        for part, count in (("train", args.pictures), ("test", args.pictures), ("train", args.judge))
    )
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        net, spec = trained(args, train, seed)
        seen = Batchable.read(spec, test, "pictures to test on")
        found = {"before": (net, spec)}
        for name in args.only:
            slug = f"{args.arch}-{args.side}-{args.epochs}-{seed}-{name}-{args.share:g}-{args.tune}"
            path = args.out / f"{slug.replace(', ', '-').replace(' ', '-')}.safetensors"
            if not path.is_file():
                start = time.perf_counter()
                tune = FinetuneStep(data=train, epochs=args.tune, batch=32, lr=0.01, seed=seed)
                try:
                    cutter = PEERS[name](net, spec, judge) if name in PEERS else searching(*OWN[name], net, spec, judge)
                except ImportError as error:
                    note(f"seed {seed}, {name}: {error}")
                    continue
                slim, described = to_share(cutter, net, spec, args.share, over=name == MILDER)
                raw = accuracy(slim, described, seen)
                slim, described, _ = finetuned(slim, described, tune, net, spec)
                zoo.save_weights(path, slim, described)
                note(f"seed {seed}, {name}: {raw:.3f} before fine-tuning, {time.perf_counter() - start:.0f} s")
            found[name] = zoo.load(path, spec)
        times = in_turns_of(found)
        for name, (slim, described) in found.items():
            top1 = accuracy(slim, described, seen)
            row = {"ratio": times[name], "macs": size(slim, spec.input.shape).macs / 1e6, "top1": 100 * top1}
            note(f"seed {seed}, {name}: {row}")
            rows.setdefault(name, []).append(row)
    print(f"{args.arch}, {args.side}x{args.side}, {args.data.name}, {args.seeds} seeds: mean (lowest to highest)\n")
    print("| cut | seeds | latency, of the whole | multiply-adds, M | top-1, % |")
    print("|---" * 5 + "|")
    for name, runs in rows.items():
        cells = [spread([run[key] for run in runs], form) for key, form in COLUMNS]
        print(f"| {name} | {len(runs)} | {' | '.join(cells)} |")


COLUMNS = (("ratio", ".2f"), ("macs", ".1f"), ("top1", ".1f"))


def searching(policy: str, criterion: str, net: nn.Module, spec: ModelSpec, judge: DataSection) -> Cutter:
    """edgecnn's own search by one policy, which takes the share of the price (the layers' latency) that shall go."""
    shape = spec.input.shape
    weighed, table = weigh(net, spec, criterion, TrainSection(data=judge)), LatencyTable()
    problem = Problem(
        weighed,
        spec,
        families(weighed, shape, importance(criterion)),
        layout(weighed, shape),
        table,
        Batchable.read(spec, judge, "pictures to judge cuts on"),
        Memo(None, ""),
        ROUND_TO,
    )
    return lambda gone: problem.network(POLICIES[policy](problem, (1 - gone) * problem.price({})))


def to_share(cut: Cutter, net: nn.Module, spec: ModelSpec, share: float, over: bool) -> tuple[nn.Module, ModelSpec]:
    """The mildest cut found whose network takes at most this share of the whole one's time; or the deepest that takes
    more. By halving."""
    low, high, best = 0.0, 0.95, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        try:
            slim = cut(ratio)
        except (ModelError, ValueError):  # edgecnn's and modelopt's word that nothing is so small
            high = ratio
            continue
        took = in_turns_of({"whole": (net, spec), "cut": (slim, spec)})["cut"]
        note(f"{ratio:.3f} gone: {took:.3f} of the time")
        if (took > share) == over:
            best = slim
        low, high = (ratio, high) if took > share else (low, ratio)
    if best is None:
        raise ModelError(f"no cut takes {'more' if over else 'less'} than {share:g} of the time")
    described = replace(spec, widths=read_widths(best))
    plain = zoo.build(described)
    plain.load_state_dict(best.state_dict())
    return plain.eval(), described


def in_turns_of(found: Mapping[str, tuple[nn.Module, ModelSpec]]) -> dict[str, float]:
    """Median latency of each, relative to the first, of runs that take turns."""
    with tempfile.TemporaryDirectory() as folder:
        lanes: dict[str, Backend] = {}
        for name, (net, spec) in found.items():
            path = Path(folder) / f"{name}.onnx"
            write(net, spec, path, 17)
            lanes[name] = OnnxRuntime(path, spec, threads=1)
        taken = in_turns(lanes, next(iter(found.values()))[1], RUNS)
    base = taken[next(iter(found))]
    return {name: statistics.median(t / b for t, b in zip(taken[name], base, strict=True)) for name in found}


def spread(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
