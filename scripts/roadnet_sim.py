"""Write simulator pictures into packs for train_roadnet.py: `roadnet_sim.py --out FOLDER --pictures 4000`."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from edgecnn.bundle import atomic
from edgecnn.data.simulator import Drive, still

SEED = 1_000_000  # far from the seeds that check, calibrate and demonstrate
PACK = 200
FRAMES = 4  # of each drive
SIZE = (480, 288)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=4000)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    for first in range(0, args.pictures, PACK):
        path = args.out / f"{first:06d}.npz"
        if path.exists():
            continue
        # half independent scenes, half frames of drives, far apart in each: what a board sees is the second
        samples = [(s.bgr, s.truth) for s in (still(SEED, i) for i in range(first, first + PACK // 2))]
        for k in range(PACK // 2 // FRAMES):
            drive = Drive(SEED + first + k, frames=300)
            for i in np.linspace(0, 299, FRAMES).astype(int):
                frame, truth, _ = drive.render(int(i))
                samples.append((frame.bgr, truth))
        scale = SIZE[0] / samples[0][0].shape[1]
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                bgr=np.stack([cv2.resize(bgr, SIZE, interpolation=cv2.INTER_AREA) for bgr, _ in samples]),
                count=np.array([len(t) for _, t in samples]),
                xyxy=np.concatenate([t.xyxy for _, t in samples]).astype(np.float32) * scale,
                label=np.concatenate([t.label for _, t in samples]),
                ignore=np.concatenate([t.ignore for _, t in samples]),
            )
        print(path, flush=True)


if __name__ == "__main__":
    main()
