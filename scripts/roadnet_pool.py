"""The pictures that the shipped RoadNet learns from, with truth, and the augmentation that lays them into its input.

Only pictures whose licence allows training: Open Images vehicles, CARLA renders, COCO and VOC samples, dashcam clips
(MIT), and the road simulator. Where a data set leaves a class unlabelled, YOLOX-Nano labels it: confident boxes become
truth, doubtful ones become regions that count neither way.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from roadnet_teacher import COCO_ROWS

from edgecnn.scene import Detections, Letterbox
from edgecnn.track.assign import iou
from edgecnn.vision import nms
from edgecnn.zoo.loss import Grid

HEIGHT, WIDTH = 256, 416
CAR, TRUCK_BUS, TWO_WHEELER, PERSON = range(4)
SURE, DOUBTFUL = 0.45, 0.15


@dataclass
class Picture:
    bgr: np.ndarray  # (H, W, 3)
    xyxy: np.ndarray  # (N, 4) px
    label: np.ndarray  # (N,)
    ignore: np.ndarray  # (K, 4) px
    stretch: tuple[float, float] = (0.8, 1.25)  # range of the aspect jitter


def load_real(data: Path, teacher: torch.nn.Module) -> dict[str, list[Picture]]:
    pools = {
        "openimages": open_images(data / "detection/openimages_vehicles"),
        "carla": carla(data / "detection/carla"),
        "photos": coco(data / "detection/tinycoco") + voc(data / "detection/voc100"),
        "dashcam": dashcam(data / "video"),
    }
    for name, pictures in pools.items():
        for picture in pictures:
            if name != "carla":
                add_teacher(picture, teacher, complete=name == "photos")
            riders(picture)
        boxes = sum(len(p.label) for p in pictures)
        print(f"{name}: {len(pictures)} pictures, {boxes} boxes", flush=True)
    return pools


def open_images(folder: Path, split: str = "train") -> list[Picture]:
    kinds = {"Car": CAR, "Truck": TRUCK_BUS, "Bus": TRUCK_BUS, "Ambulance": TRUCK_BUS, "Motorcycle": TWO_WHEELER}
    rows = defaultdict(list)
    with (folder / f"{split}.csv").open() as file:
        for row in csv.DictReader(file):
            rows[row["filename"]].append(
                ([float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax")], kinds[row["class"]])
            )
    found = []
    for name, boxes in rows.items():
        bgr = cv2.imread(str(folder / split / name))
        if bgr is not None:
            # the pictures were squeezed into a square: most were wider than high
            found.append(make(bgr, [b for b, _ in boxes], [k for _, k in boxes], stretch=(1.0, 1.6)))
    return found


def carla(folder: Path) -> list[Picture]:
    names = (folder / "labels.txt").read_text().split()
    kinds = {"vehicle": CAR, "bike": TWO_WHEELER, "motobike": TWO_WHEELER, "motorbike": TWO_WHEELER}
    found = []
    for path in sorted((folder / "images/train").iterdir()):
        bgr = cv2.imread(str(path))
        label = folder / "labels/train" / f"{path.stem}.txt"
        if bgr is None or not label.exists():
            continue
        height, width = bgr.shape[:2]
        boxes, labels = [], []
        for line in label.read_text().splitlines():
            kind, x, y, w, h = line.split()
            if names[int(kind)] in kinds:
                x, y, w, h = float(x) * width, float(y) * height, float(w) * width, float(h) * height
                boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                labels.append(kinds[names[int(kind)]])
        found.append(make(bgr, boxes, labels))
    return found


def coco(folder: Path) -> list[Picture]:
    import json

    truth = json.loads((folder / "annotations/instances_train2017.json").read_text())
    kinds = {3: CAR, 6: TRUCK_BUS, 8: TRUCK_BUS, 2: TWO_WHEELER, 4: TWO_WHEELER, 1: PERSON}
    found = []
    for image in truth["images"]:
        bgr = cv2.imread(str(folder / "images/train2017" / image["file_name"]))
        rows = [a for a in truth["annotations"] if a["image_id"] == image["id"] and a["category_id"] in kinds]
        if bgr is not None:
            boxes = np.array([a["bbox"] for a in rows], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            crowd = np.array([a["iscrowd"] for a in rows], bool)
            labels = np.array([kinds[a["category_id"]] for a in rows], np.int64)
            found.append(make(bgr, boxes[~crowd], labels[~crowd]))
            found[-1].ignore = boxes[crowd]
    return found


def voc(folder: Path) -> list[Picture]:
    import xml.etree.ElementTree as ET

    kinds = {"car": CAR, "bus": TRUCK_BUS, "bicycle": TWO_WHEELER, "motorbike": TWO_WHEELER, "person": PERSON}
    found = []
    for path in sorted((folder / "annotations").glob("*.xml")):
        bgr = cv2.imread(str(folder / "images" / f"{path.stem}.jpg"))
        if bgr is None:
            continue
        boxes, labels = [], []
        for thing in ET.parse(path).getroot().iter("object"):
            name = thing.findtext("name")
            if name in kinds:
                box = thing.find("bndbox")
                boxes.append([float(box.findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax")])
                labels.append(kinds[name])
        found.append(make(bgr, boxes, labels))
    return found


def dashcam(folder: Path) -> list[Picture]:
    found = []
    for path in sorted(folder.glob("udacity_*.mp4")):
        with av.open(str(path)) as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i % 2 == 0:
                    bgr = frame.to_ndarray(format="bgr24")
                    scale = 800 / bgr.shape[1]
                    found.append(make(cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), [], []))
    return found


def make(bgr: np.ndarray, boxes: list, labels: list, **kwargs: tuple[float, float]) -> Picture:
    none = np.zeros((0, 4), np.float32)
    return Picture(bgr, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), none, **kwargs)


@torch.no_grad()
def add_teacher(picture: Picture, teacher: torch.nn.Module, *, complete: bool) -> None:
    """Teacher boxes at two scales: sure ones that no truth covers become truth (unless the truth is complete)."""
    height, width = picture.bgr.shape[:2]
    seen = []
    for side in (416, 640):
        scale = side / max(height, width)
        small = cv2.resize(picture.bgr, (round(width * scale), round(height * scale)))
        padded = np.full((-(-small.shape[0] // 32) * 32, -(-small.shape[1] // 32) * 32, 3), 114, np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small
        raw, score = teacher(torch.from_numpy(padded).permute(2, 0, 1)[None].float())
        xyxy = Grid.of(padded.shape[0], padded.shape[1], (8, 16, 32)).boxes(raw)[0].numpy()
        ours = torch.stack([score[0][:, list(rows)].amax(1) for rows in COCO_ROWS], 1).numpy()
        rows = ours.max(1) > DOUBTFUL
        frame = Letterbox(scale, scale, 0, 0, width, height).to_frame(xyxy[rows])
        seen.append(Detections(frame, ours[rows].max(1), ours[rows].argmax(1)))
    both = Detections(*(np.concatenate([getattr(s, f) for s in seen]) for f in ("xyxy", "score", "label")))
    both = nms(both, 0.5, 100)
    if len(picture.label):
        both = both[iou(both.xyxy, picture.xyxy).max(1) < 0.4]
    sure = (both.score > SURE) & (not complete)
    picture.xyxy = np.concatenate([picture.xyxy, both.xyxy[sure]])
    picture.label = np.concatenate([picture.label, both.label[sure]])
    picture.ignore = np.concatenate([picture.ignore, both.xyxy[~sure]])


def riders(picture: Picture) -> None:
    """Data sets label bicycle and rider apart; on the road they are one: the two boxes become one two-wheeler."""
    wheels, people = (np.flatnonzero(picture.label == k) for k in (TWO_WHEELER, PERSON))
    gone = []
    for person in people:
        left, top, right, bottom = picture.xyxy[person]
        for wheel in wheels:
            x1, y1, x2, y2 = picture.xyxy[wheel]
            shared = min(right, x2) - max(left, x1), min(bottom, y2) - max(top, y1)
            # on it, not beside or behind it: over most of the person's width, feet above the wheels' foot
            if shared[0] > 0.6 * (right - left) and shared[1] > 0.25 * (y2 - y1) and top < y1 and bottom < y2:
                picture.xyxy[wheel] = min(left, x1), top, max(right, x2), y2
                gone.append(person)
                break
    kept = np.setdiff1d(np.arange(len(picture.label)), gone)
    picture.xyxy, picture.label = picture.xyxy[kept], picture.label[kept]


def place(picture: Picture, rng: np.random.Generator, canvas: np.ndarray, box: tuple[int, int, int, int], zoom: tuple):
    """Lay a picture into (left, top, right, bottom) of a canvas: random scale, aspect, place and mirror."""
    left, top, right, bottom = box
    room_w, room_h = right - left, bottom - top
    height, width = picture.bgr.shape[:2]
    aspect = np.exp(rng.uniform(*np.log(picture.stretch)))
    scale = min(room_w / (width * aspect), room_h / height) * np.exp(rng.uniform(*np.log(zoom)))
    sx, sy = scale * aspect, scale
    source = picture.bgr
    if scale < 0.5:  # the board shrinks by area too
        half = cv2.resize(source, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        source, shrink = half, 2
    else:
        shrink = 1
    slack_x, slack_y = room_w - width * sx, room_h - height * sy
    dx, dy = left + rng.uniform(min(0, slack_x), max(0, slack_x)), top + rng.uniform(min(0, slack_y), max(0, slack_y))
    mirror = rng.random() < 0.5
    m = np.array([[sx * shrink, 0, dx], [0, sy * shrink, dy]], np.float32)
    if mirror:
        m[0] = [-sx * shrink, 0, dx + width * sx]
    region = canvas[top:bottom, left:right]
    # m maps edges, as boxes have them; warpAffine wants the map of pixel centres, which lie half a pixel inside
    centres = m.copy()
    centres[:, 2] += 0.5 * (np.diag(m[:, :2]) - 1) - (left, top)
    cv2.warpAffine(source, centres, (room_w, room_h), region, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    return [move(b, m, shrink, box) for b in (picture.xyxy, picture.ignore)]


def move(boxes: np.ndarray, m: np.ndarray, shrink: int, limit: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Boxes under the map, clipped to the limit, and the share of each that is left."""
    if not len(boxes):
        return boxes, np.zeros(0, np.float32)
    x = boxes[:, 0::2] / shrink * m[0, 0] + m[0, 2]
    y = boxes[:, 1::2] / shrink * m[1, 1] + m[1, 2]
    moved = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1)
    left, top, right, bottom = limit
    clipped = np.clip(moved, (left, top, left, top), (right, bottom, right, bottom))
    area = (moved[:, 2:] - moved[:, :2]).prod(1)
    kept = (clipped[:, 2:] - clipped[:, :2]).prod(1) / np.maximum(area, 1e-6)
    return clipped.astype(np.float32), kept.astype(np.float32)


def compose(pictures: list[Picture], rng: np.random.Generator, zoom: tuple[float, float] = (0.5, 2.2)):
    """One picture, or four as a mosaic → (HEIGHT, WIDTH, 3) uint8, boxes (N, 4), labels (N,), ignored (K, 4)."""
    canvas = np.full((HEIGHT, WIDTH, 3), 114, np.uint8)
    if len(pictures) == 1:
        boxes = [(0, 0, WIDTH, HEIGHT)]
    else:
        x, y = int(rng.uniform(0.3, 0.7) * WIDTH), int(rng.uniform(0.3, 0.7) * HEIGHT)
        boxes = [(0, 0, x, y), (x, 0, WIDTH, y), (0, y, x, HEIGHT), (x, y, WIDTH, HEIGHT)]
        zoom = (zoom[0] * 1.2, zoom[1] * 1.15)
    xyxy, label, ignore = [], [], []
    for picture, box in zip(pictures, boxes, strict=True):
        (moved, kept), (ignored, kept_ignored) = place(picture, rng, canvas, box, zoom)
        size = (moved[:, 2:] - moved[:, :2]).min(1) if len(moved) else np.zeros(0)
        good = (kept > 0.35) & (size > 3)
        xyxy.append(moved[good])
        label.append(picture.label[good])
        ignore += [moved[~good & (kept > 0.05)], ignored[kept_ignored > 0.05]]
    return colour(canvas, rng), np.concatenate(xyxy), np.concatenate(label), np.concatenate(ignore)


def colour(bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, colour, blur and noise."""
    if rng.random() < 0.7:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hue = (np.arange(256) + rng.uniform(-12, 12)) % 180
        saturation = np.clip(np.arange(256) * rng.uniform(0.4, 1.6), 0, 255)
        value = np.clip(255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.3), 0, 255)
        table = np.stack([hue, saturation, value], 1)[:, None].astype(np.uint8)
        bgr = cv2.cvtColor(cv2.LUT(hsv, table.reshape(256, 1, 3)), cv2.COLOR_HSV2BGR)
    if rng.random() < 0.1:
        bgr = cv2.cvtColor(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.15:
        bgr = cv2.GaussianBlur(bgr, (3, 3), 0)
    if rng.random() < 0.15:
        noise = np.empty(bgr.shape, np.int16)
        cv2.randn(noise, 0, float(rng.uniform(2, 10)))
        bgr = cv2.add(bgr, noise, dtype=cv2.CV_8U)
    return bgr
