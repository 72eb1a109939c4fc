"""Every way of slimming on one trained network: `python benchmarks/slim_steps.py recipes/mnist.yaml --out out/steps`.

The recipe's network is trained once; each row slims it by some steps, fine-tunes it under the whole network (a quarter
of the recipe's epochs, a quarter of its rate) and quantises it. Steps that do not fit the network are left out, and
named on standard error. With `--own` there is one row: the steps of the recipe's `slim:`. Top-1 is that of `edgecnn
check` on the recipe's own data; times are medians of ratios to the whole FP32 network, in turns on one thread. Markdown
on standard output.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml
from zoo_table import in_turns

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.check.accuracy import measure
from edgecnn.compile import compile_recipe
from edgecnn.errors import ModelError
from edgecnn.recipe import DataSection, load

RUNS = 25
ROWS: dict[str, list[dict[str, Any]]] = {
    "whole": [],
    "gap": [{"gap": True}],
    "low_rank .5": [{"low_rank": {"rank": 0.5, "round_to": 2}}],
    "reduce .5": [{"reduce": {"share": 0.5, "round_to": 2}}],
    "bottleneck .25": [{"bottleneck": {}}],
    "factorize spatial": [{"factorize": {"form": "spatial"}}],
    "factorize separable": [{"factorize": {"form": "separable"}}],
    **{
        f"prune half of the channels, {criterion}": [
            {"prune": {"channels": 0.5, "criterion": criterion, "scope": "uniform", "round_to": 2}}
        ]
        for criterion in ("taylor", "hessian", "magnitude", "bn_scale")
    },
    "sparsify 2:4": [{"sparsify": "2:4"}],
    "gap, then prune": [
        {"gap": True},
        {"prune": {"channels": 0.25, "criterion": "taylor", "scope": "uniform", "round_to": 2}},
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--own", action="store_true", help="the recipe's own steps alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    base = yaml.safe_load(args.recipe.read_text("utf-8"))
    for section in ("train", "export", "quantize", "check"):
        base[section] = _absolute(base[section], args.recipe.resolve().parent)
    train = base["train"]
    tune = {**train, "epochs": -(-train["epochs"] // 4), "lr": train["lr"] / 4}
    own = base.pop("slim", None)
    rows = {name: [*steps, {"finetune": tune}] if steps else [] for name, steps in ROWS.items()}
    if args.own:
        rows = {"whole": [], "the recipe's steps": own["steps"]}
    whole = args.out / "whole.bundle"
    first: dict[str, int] = {}
    print(
        "| steps | parameters | MACs | top-1 | top-1 INT8 | INT8 file, of the whole FP32 | faster FP32 | faster INT8 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, steps in rows.items():
        row = args.out / "".join("_" if letter in " '" else letter for letter in name if letter not in ",:")
        folder = whole if not steps else row.with_suffix(".bundle")
        recipe = {**base, "name": "whole" if not steps else "slim", "build": None}
        if steps:
            recipe["slim"] = {"steps": steps}
            if not folder.exists():
                shutil.copytree(whole, folder)
        path = row.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(recipe), "utf-8")
        try:
            bundle = compile_recipe(path, folder).bundle
        except ModelError as error:
            print(f"{name}: {error}", file=sys.stderr)
            shutil.rmtree(folder)
            continue
        figures = measure(bundle, load(path).check.data, ("fp32", "int8")).figures
        size = {role: bundle.file(role).stat().st_size for role in ("fp32", "int8_cpu")}
        first = first or size
        faster = _faster(Bundle.read(whole), bundle)
        counted = _counted(bundle)
        print(
            f"| {name} | {counted['parameters']:,} | {counted['macs']:,} | {figures['fp32']['top1']:.4f} "
            f"| {figures['int8']['top1']:.4f} | 1/{first['fp32'] / size['int8_cpu']:.1f} "
            f"| {faster['fp32']:.1f}x | {faster['int8']:.1f}x |",
            flush=True,
        )


def _faster(whole: Bundle, slim: Bundle) -> dict[str, float]:
    """How many times as fast as the whole FP32 network, by precision."""
    lanes = {name: open_backend(slim, name, threads=1) for name in ("fp32", "int8")}
    taken = in_turns({"whole": open_backend(whole, "fp32", threads=1), **lanes}, slim.require_model(), RUNS)
    return {name: statistics.median(a / b for a, b in zip(taken["whole"], taken[name], strict=True)) for name in lanes}


def _counted(bundle: Bundle) -> dict[str, Any]:
    return dict(bundle.stages["slim"].facts["after"] if "slim" in bundle.stages else bundle.stages["train"].facts)


def _absolute(section: dict[str, Any], root: Path) -> dict[str, Any]:
    """The section with the paths of its data counted from `root`: the recipes of the rows lie elsewhere."""
    found = {key: _absolute(value, root) if isinstance(value, dict) else value for key, value in section.items()}
    if "path" in found and set(found) <= set(DataSection.model_fields):
        found["path"] = str(root / found["path"])
    return found


if __name__ == "__main__":
    main()
