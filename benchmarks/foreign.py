"""ONNX files from elsewhere, laid beside their recipes as these say: what `zoo_table.py` takes besides the zoo.

`python benchmarks/foreign.py NAME --data DATA --out FOLDER` lays one of them out, to be compiled by hand.

`data` is the folder of real data beside the checkout (shared/data), which the project does not hold. OSNet's pictures
of people are cut out of every 20th frame of the MOT15 sequence PETS09-S2L1; people of odd number calibrate, those of
even number are looked at by `edgecnn check`. The classifier of PaddleOCR that tells upright text from text upside down
is in the PyPI package rapidocr-onnxruntime (Apache-2.0): `make zoo-table` fetches it. Its pictures are drawn here.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np

from edgecnn.data.mot import Mot
from edgecnn.errors import InputError

ROOT = Path(__file__).parents[1]
EVERY = 20  # frames
LINES = {"train": 64, "test": 100}  # of text, each upright and upside down
WORDS = "the quick brown fox jumps over lazy dogs 0123456789 speed limit exit ahead caution bridge north station"
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)


def yolox(data: Path, folder: Path) -> Path:
    return _beside(ROOT / "recipes/yolox-nano.yaml", data / "weights/yolox_nano_coco80_416.onnx", folder)


def osnet(data: Path, folder: Path) -> Path:
    sequences = data / "tracking" / "MOT15"
    cut_people(sequences / "vtest.avi", sequences / "PETS09-S2L1_f1-400", folder)
    return _beside(ROOT / "recipes/osnet.yaml", data / "weights/osnet_x0_25_msmt17_reid_256x128.onnx", folder)


def text_direction(data: Path, folder: Path) -> Path:
    draw_lines(folder / "lines")
    network = ROOT / "build-cache/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    return _beside(ROOT / "benchmarks/text_direction.yaml", network, folder)


# name -> lays everything into a folder, returns the recipe there
FOREIGN = {"yolox-nano": yolox, "osnet": osnet, "text-direction": text_direction}
SOURCES = {
    "yolox-nano": "YOLOX's release, PyTorch 1.11",
    "osnet": "torchreid's weights, PyTorch 2.0",
    "text-direction": "PaddleOCR, paddle2onnx",
}


def _beside(recipe: Path, network: Path, folder: Path) -> Path:
    if not network.is_file():
        raise InputError(f"there is no {network}", do="Name the folder of real data with --data, or run make zoo-table")
    for source in (recipe, network):
        shutil.copy(source, folder)
    return folder / recipe.name


def cut_people(video: Path, sequence: Path, folder: Path) -> None:
    """folder/people and folder/others, a PNG a person and frame. Raises InputError where video or truth is missing."""
    truth = Mot(sequence).truth()
    frames = cv2.VideoCapture(str(video))
    for name in ("people", "others"):
        (folder / name).mkdir()
    for number, rows in enumerate(truth):
        read, bgr = frames.read()
        if number % EVERY or not read:
            continue
        for (left, top, right, bottom), person in zip(rows.xyxy.clip(0).astype(int), rows.id, strict=True):
            name = "people" if person % 2 else "others"
            cv2.imwrite(str(folder / name / f"{number:03}-{person:02}.png"), bgr[top:bottom, left:right])
    if not any((folder / "people").iterdir()):
        raise InputError(f"{video} gave no frames", wanted="the video of the sequence under --data")


def draw_lines(folder: Path) -> None:
    """folder/PART/0 and folder/PART/180: two words in dark grey on light grey, with noise."""
    random = np.random.default_rng(0)
    for part, count in LINES.items():
        for turn in ("0", "180"):
            (folder / part / turn).mkdir(parents=True)
            for i in range(count):
                text, font = " ".join(random.choice(WORDS.split(), 2)), int(random.choice(FONTS))
                (width, height), below = cv2.getTextSize(text, font, 1.0, 2)
                bgr = np.full((height + below + 16, width + 20, 3), random.integers(140, 255), np.uint8)
                ink = float(random.integers(0, 90))
                cv2.putText(bgr, text, (10, height + 8), font, 1.0, (ink, ink, ink), 2, cv2.LINE_AA)
                noisy = np.clip(bgr + random.normal(0, 6, bgr.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / part / turn / f"{i:03}.png"), noisy if turn == "0" else noisy[::-1, ::-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=FOREIGN)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    print(FOREIGN[args.name](args.data, args.out))


if __name__ == "__main__":
    main()
