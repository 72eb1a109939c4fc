"""Every way to choose ranges, on one recipe: `python benchmarks/ranges.py RECIPE --out FOLDER [--check sim:9000:64]`.

The recipe is compiled as far as the FP32 network, then quantised anew for each row on its own calibration pictures.
`best` takes for each tensor the method with the least squared error on every fourth calibration picture, having
measured ranges on the others. SQNR is that of the CPU form's last output (a detector's scores), in dB; the figure is
top-1, AP50 or likeness (cosine) of `edgecnn check`, on the recipe's check data or on so many simulator stills. Markdown
on standard output.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle
from edgecnn.check.accuracy import measure
from edgecnn.compile import compile_recipe
from edgecnn.quantize import run_stage
from edgecnn.quantize.equalize import equalized
from edgecnn.quantize.graph import load as load_network
from edgecnn.quantize.graph import prepare
from edgecnn.quantize.insert import plan
from edgecnn.quantize.ranges import Method, amax, collect
from edgecnn.quantize.stage import MEASURED, Inputs, calibration
from edgecnn.recipe import DataSection, QuantizeSection, load

ROWS: dict[str, dict[str, Any]] = {
    "max": {"ranges": "max"},
    "percentile 99.99": {"ranges": "percentile", "percentile": 99.99},
    "percentile 99.9": {"ranges": "percentile", "percentile": 99.9},
    "entropy": {"ranges": "entropy"},
    "mse": {"ranges": "mse"},
}
FIGURES = {"classify": "top1", "detect": "AP50", "embed": "cosine"}
METHODS: tuple[Method, ...] = ("percentile", "entropy", "mse", "max")


def best(bundle: Bundle, section: QuantizeSection) -> dict[str, Method]:
    """Tensor → the method with the least squared error on pictures that its range was not measured on."""
    feeds = Inputs(bundle.require_model(), calibration(section))
    model = prepare(load_network(bundle.file("fp32")))
    model = equalized(model, [feeds[i] for i in range(0, len(feeds), -(-len(feeds) // MEASURED))])
    tensors = plan(model, section.keep_float).tensors
    rows = range(len(feeds))
    fitted = collect(model, tensors, (feeds[i] for i in rows if i % 4), section.bins)
    held = collect(model, tensors, (feeds[i] for i in rows if i % 4 == 0), section.bins)
    live = [name for name in tensors if fitted[name].max > 0]
    return {name: min(METHODS, key=lambda m, n=name: held[n].noise(amax(fitted[n], m))) for name in live}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", help="sim:SEED:PICTURES in place of the recipe's check data")
    args = parser.parse_args()
    recipe = load(args.recipe)
    bundle = compile_recipe(args.recipe, args.out, until="export").bundle
    data = recipe.check.data
    if args.check:
        _, seed, pictures = args.check.split(":")
        data = DataSection(seed=int(seed), pictures=int(pictures))
    figure = FIGURES[bundle.require_model().task]
    exact = measure(bundle, data, ["fp32"])
    print(f"{recipe.name}, checked on {exact.samples} pictures; FP32 {figure} {exact.figures['fp32'][figure]:.4f}\n")
    print(f"| ranges | INT8 {figure} | SQNR, dB | kernels kept float |\n|---|---|---|---|")
    for name, change in [*ROWS.items(), ("best", {"ranges": {"default": "mse"} | best(bundle, recipe.quantize)})]:
        section = recipe.quantize.model_copy(update=QuantizeSection(**change).model_dump(include=set(change)))
        made = run_stage(bundle.before("quantize"), recipe.model_copy(update={"quantize": section}))
        facts = made.stages["quantize"].facts
        score = measure(made, data, ["int8"]).figures["int8"][figure]
        sqnr = list(facts["sqnr_cpu_db"].values())[-1]
        print(f"| {name} | {score:.4f} | {sqnr:.1f} | {len(facts['kept_float'])} |", flush=True)


if __name__ == "__main__":
    main()
