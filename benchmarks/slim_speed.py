"""What half of the channels and INT8 are worth in time: `python benchmarks/slim_speed.py [resnet50 ...]`. Markdown.

Each network of recipes/zoo is compiled twice, whole and with half of its channels (uniformly, by magnitude, multiples
of 8), and the four files take turns on one thread of onnxruntime: medians of ratios of neighbouring runs. Weights are
nearly random: this is about time alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import yaml
from zoo_table import in_turns

from edgecnn.backends import Backend, open_backend
from edgecnn.bundle import Bundle
from edgecnn.compile import compile_recipe

RECIPES = Path(__file__).parents[1] / "recipes/zoo"
RUNS = 15
SLIM = {
    "steps": [{"prune": {"channels": 0.5, "criterion": "magnitude", "scope": "uniform"}}],
    "check": {"kind": "sim_crops", "seed": 2, "pictures": 4},
}


def compiled(name: str, folder: Path, slim: dict[str, object] | None) -> Bundle:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    recipe |= {"slim": slim, "build": None}
    recipe["train"]["epochs"] = 0
    path = folder / ("whole.yaml" if slim is None else "half.yaml")
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return compile_recipe(path, path.with_suffix(".bundle")).bundle


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["resnet18", "resnet50"])
    args = parser.parse_args()
    print("| network | MACs | FP32 half | INT8 whole | INT8 half | FP32 gain of MAC reduction |")
    print("|---|---|---|---|---|---|")
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            bundles = {"whole": compiled(name, Path(folder), None), "half": compiled(name, Path(folder), SLIM)}
            facts = bundles["half"].stages["slim"].facts
            lanes: dict[str, Backend] = {
                f"{precision} {which}": open_backend(bundle, precision, threads=1)
                for precision in ("fp32", "int8")
                for which, bundle in bundles.items()
            }
            taken = in_turns(lanes, bundles["whole"].require_model(), RUNS)
        base = taken["fp32 whole"]
        gain = {lane: statistics.median(b / t for b, t in zip(base, taken[lane], strict=True)) for lane in lanes}
        fewer = facts["before"]["macs"] / facts["after"]["macs"]
        print(
            f"| {name} ({statistics.median(base):.0f} ms) | ÷{fewer:.2f} | {gain['fp32 half']:.2f}× "
            f"| {gain['int8 whole']:.2f}× | {gain['int8 half']:.2f}× | {gain['fp32 half'] / fewer:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
