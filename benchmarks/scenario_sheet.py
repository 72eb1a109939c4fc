"""What the scenario tests look like, on one sheet: `python benchmarks/scenario_sheet.py docs/scenarios.jpg`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np

from edgecnn.bundle import atomic
from edgecnn.data.scenario import find_scenario, names
from edgecnn.data.simulator import Drive
from edgecnn.progress import tracked

WIDTH, HEIGHT, CAPTION = 400, 240, 22


def tile(name: str, seed: int, share: float) -> np.ndarray:
    """One frame with the scenario's name and what it expects below."""
    scenario = find_scenario(name)
    drive = Drive(seed, scenario=scenario)
    frame, _, _ = drive.render(int(share * len(drive)))
    small = cv2.resize(frame.bgr, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    wanted = " or ".join(scenario.expect.warning) or "no warning"
    strip = np.full((CAPTION, WIDTH, 3), 32, np.uint8)
    cv2.putText(strip, f"{name}: {wanted}", (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack((small, strip))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=9700)
    parser.add_argument("--at", type=float, default=0.6, help="share of the drive's length")
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=names())
    args = parser.parse_args()
    tiles = [tile(name, args.seed, args.at) for name in tracked(args.only, "drawing", len(args.only))]
    tiles += [np.full_like(tiles[0], 32)] * (-len(tiles) % args.columns)
    rows = [np.hstack(tiles[k : k + args.columns]) for k in range(0, len(tiles), args.columns)]
    with atomic(args.out) as temporary:
        cv2.imwrite(str(temporary), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(f"{args.out}: {len(args.only)} scenarios, {math.ceil(len(args.only) / args.columns)} rows")


if __name__ == "__main__":
    main()
