"""ONNX files from elsewhere, laid beside their recipes as these say: what `zoo_table.py` takes besides the zoo.

`data` is the folder of real data beside the checkout (shared/data), which the project does not hold. OSNet's pictures
of people are cut out of every 20th frame of the MOT15 sequence PETS09-S2L1; people of odd number calibrate, those of
even number are looked at by `edgecnn check`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2

from edgecnn.data.mot import Mot
from edgecnn.errors import InputError

RECIPES = Path(__file__).parents[1] / "recipes"
EVERY = 20  # frames


def yolox(data: Path, folder: Path) -> Path:
    return _beside("yolox-nano.yaml", data / "weights" / "yolox_nano_coco80_416.onnx", folder)


def osnet(data: Path, folder: Path) -> Path:
    sequences = data / "tracking" / "MOT15"
    cut_people(sequences / "vtest.avi", sequences / "PETS09-S2L1_f1-400", folder)
    return _beside("osnet.yaml", data / "weights" / "osnet_x0_25_msmt17_reid_256x128.onnx", folder)


FOREIGN = {"yolox-nano": yolox, "osnet": osnet}  # name -> lays everything into a folder, returns the recipe there


def _beside(recipe: str, network: Path, folder: Path) -> Path:
    if not network.is_file():
        raise InputError(f"there is no {network}", wanted="the folder of real data under --data")
    for source in (RECIPES / recipe, network):
        shutil.copy(source, folder)
    return folder / recipe


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
