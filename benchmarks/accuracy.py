"""Average precision of bundles on data sets, FP32 beside INT8 (its CPU form). Markdown on standard output.

python benchmarks/accuracy.py out/adas.bundle out/yolox-nano.bundle --data kitti:FOLDER sim:9000 coco:FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecnn.bundle import Bundle
from edgecnn.check.accuracy import measure
from edgecnn.recipe import DataSection

SHOWN = ("AP50", "AP", "vehicle/AP50", "car/AP50", "truck_bus/AP50", "two_wheeler/AP50", "person/AP50")


def section(text: str, pictures: int) -> DataSection:
    kind, _, rest = text.partition(":")
    if kind == "sim":
        return DataSection(kind="sim", seed=int(rest), pictures=pictures)
    return DataSection.model_validate({"kind": kind, "path": rest, "pictures": pictures})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--pictures", type=int, default=200)
    args = parser.parse_args()
    print("| data | pictures | network | form | " + " | ".join(SHOWN) + " |")
    print("|---" * (4 + len(SHOWN)) + "|")
    for text in args.data:
        for path in args.bundles:
            bundle = Bundle.read(path)
            found = measure(bundle, section(text, args.pictures), ("fp32", "int8"))
            for form, values in found.figures.items():
                cells = " | ".join(f"{100 * values[k]:.1f}" if k in values else "" for k in SHOWN)
                print(f"| {Path(text).name} | {found.samples} | {bundle.name} | {form} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
