"""The whole loop beside the loops that one would write: `python benchmarks/loops.py BUNDLE`. Markdown.

One clip (a simulated drive, or --clip), one network, one process; the lanes take turns frame by frame, in an order that
moves on, and each decodes the video for itself, in line. The plain loops are what a user writes in an afternoon: they
detect in every frame, with the usual decoding, NMS and a SORT of one Kalman filter an object. The bundle's slimmed
weights are compiled anew for each input size, --sizes. With one thread the clock is the process's processor time, so a
busy machine does no harm; with more it is the wall's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime as ort
import torch
import yaml
from scipy.optimize import linear_sum_assignment

from edgecnn import zoo
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.compile import compile_recipe
from edgecnn.data.simulator import Drive
from edgecnn.run import FrameResult, Pipeline, RunSettings
from edgecnn.run.readers import to_bgr
from edgecnn.run.sinks import VideoSink
from edgecnn.scene import Frame

SCORE, IOU = 0.3, 0.6
BLOCK = 15  # frames that make one figure: with a schedule, single frames are too different
WARM = 10  # frames, not counted
Step = Callable[[], int]  # one frame → how many tracks are shown


class Sort:
    """Bewley et al. 2016, arXiv:1602.00763, as it is usually written: one 7-state Kalman filter an object."""

    def __init__(self) -> None:
        self.tracks: list[dict[str, Any]] = []
        self.next_id = 1
        self.f = np.eye(7) + np.diag([1.0, 1.0, 1.0], 4)
        self.h, self.r = np.eye(4, 7), np.diag([1.0, 1.0, 10.0, 10.0])
        self.q = np.diag([1.0, 1.0, 1.0, 1.0, 0.01, 0.01, 1e-4])

    def update(self, boxes: np.ndarray) -> list[tuple[int, np.ndarray]]:
        for t in self.tracks:
            t["x"] = self.f @ t["x"]
            t["p"] = self.f @ t["p"] @ self.f.T + self.q
            t["age"] += 1
        pairs, free = self._match(boxes)
        for i, j in pairs:
            t, z = self.tracks[i], _state(boxes[j])
            gain = t["p"] @ self.h.T @ np.linalg.inv(self.h @ t["p"] @ self.h.T + self.r)
            t["x"] = t["x"] + gain @ (z - self.h @ t["x"])
            t["p"] = (np.eye(7) - gain @ self.h) @ t["p"]
            t["age"], t["hits"] = 0, t["hits"] + 1
        for j in free:
            p = np.diag([10.0, 10.0, 10.0, 10.0, 1e4, 1e4, 1e4])
            x = np.concatenate([_state(boxes[j]), np.zeros(3)])
            self.tracks.append({"id": self.next_id, "x": x, "p": p, "age": 0, "hits": 1})
            self.next_id += 1
        self.tracks = [t for t in self.tracks if t["age"] <= 5]
        return [(t["id"], _box(t["x"])) for t in self.tracks if t["age"] == 0 and t["hits"] >= 3]

    def _match(self, boxes: np.ndarray) -> tuple[list[tuple[int, int]], list[int]]:
        overlap = np.zeros((len(self.tracks), len(boxes)))
        for i, t in enumerate(self.tracks):
            for j, box in enumerate(boxes):
                overlap[i, j] = _iou(_box(t["x"]), box)
        pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[i, j] >= 0.3]
        taken = {j for _, j in pairs}
        return pairs, [j for j in range(len(boxes)) if j not in taken]


def _state(box: np.ndarray) -> np.ndarray:
    w, h = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + w / 2, box[1] + h / 2, w * h, w / h])


def _box(x: np.ndarray) -> np.ndarray:
    w = np.sqrt(max(x[2] * x[3], 1e-6))
    h = x[2] / w
    return np.array([x[0] - w / 2, x[1] - h / 2, x[0] + w / 2, x[1] + h / 2])


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def letterbox(bgr: np.ndarray, height: int, width: int) -> tuple[np.ndarray, float]:
    scale = min(height / bgr.shape[0], width / bgr.shape[1])
    small = cv2.resize(bgr, (round(bgr.shape[1] * scale), round(bgr.shape[0] * scale)))
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas, scale


def cells(height: int, width: int, strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    at, sizes = [], []
    for stride in strides:
        x, y = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        at.append(np.stack([x.ravel(), y.ravel()], 1) * stride)
        sizes.append(np.full((x.size, 1), stride))
    return np.concatenate(at).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def eager(clip: Path, bundle: Bundle) -> Step:
    """cv2 frame → letterbox → the network as torch has it → decoding and NMS in torch → SORT."""
    spec = bundle.require_model()
    net, _ = zoo.load(bundle.file("weights"), spec)
    mean = torch.tensor(spec.mean).view(1, 3, 1, 1)
    at, stride = map(torch.from_numpy, cells(spec.height, spec.width, spec.strides))
    capture, sort = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), Sort()

    def step() -> int:
        canvas, scale = letterbox(capture.read()[1], spec.height, spec.width)
        with torch.inference_mode():
            x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() - mean
            raw, scores = (y[0] for y in net(x))
            centre, half = at + raw[:, :2] * stride, raw[:, 2:].exp() * stride / 2
            boxes = torch.cat([centre - half, centre + half], 1) / scale
            score, label = scores.max(1)
            seen = score > SCORE
            kept = torch_nms(boxes[seen], score[seen], label[seen])
            boxes = boxes[seen][kept].numpy()
        return len(sort.update(boxes))

    return step


def torch_nms(boxes: torch.Tensor, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Greedy, class by class: each class lies on a plane of its own."""
    apart = boxes + label[:, None] * 1e4
    order, kept = score.argsort(descending=True), []
    area = (apart[:, 2] - apart[:, 0]) * (apart[:, 3] - apart[:, 1])
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        side = torch.minimum(apart[first, 2:], apart[order, 2:]) - torch.maximum(apart[first, :2], apart[order, :2])
        common = side.clamp(min=0).prod(1)
        order = order[common / (area[first] + area[order] - common) <= IOU]
    return torch.tensor(kept, dtype=torch.int64)


def plain_onnxruntime(clip: Path, bundle: Bundle, threads: int) -> Step:
    """The same in numpy, with the FP32 file in onnxruntime."""
    spec = bundle.require_model()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(bundle.file("fp32")), options, providers=["CPUExecutionProvider"])
    mean = np.array(spec.mean, np.float32)[:, None, None]
    at, stride = cells(spec.height, spec.width, spec.strides)
    capture, sort = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), Sort()

    def step() -> int:
        canvas, scale = letterbox(capture.read()[1], spec.height, spec.width)
        x = (canvas.transpose(2, 0, 1).astype(np.float32) - mean)[None]
        raw, scores = (y[0] for y in session.run(None, {spec.input.name: x}))
        centre, half = at + raw[:, :2] * stride, np.exp(raw[:, 2:]) * stride / 2
        boxes, score, label = np.concatenate([centre - half, centre + half], 1) / scale, scores.max(1), scores.argmax(1)
        seen = score > SCORE
        boxes, score, label = boxes[seen], score[seen], label[seen]
        return len(sort.update(boxes[numpy_nms(boxes, score, label)]))

    return step


def numpy_nms(boxes: np.ndarray, score: np.ndarray, label: np.ndarray) -> list[int]:
    apart = boxes + label[:, None] * 1e4
    order, kept = np.argsort(-score), []
    area = (apart[:, 2] - apart[:, 0]) * (apart[:, 3] - apart[:, 1])
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        side = np.minimum(apart[first, 2:], apart[order, 2:]) - np.maximum(apart[first, :2], apart[order, :2])
        common = side.clip(min=0).prod(1)
        order = order[common / (area[first] + area[order] - common) <= IOU]
    return kept


class Ours:
    """edgecnn's loop, its video decoded in line and not in the thread that `edgecnn run` gives it."""

    def __init__(self, clip: Path, bundle: Bundle, precision: Any, threads: int, every: int | None) -> None:
        settings = RunSettings.of(bundle, score=SCORE, iou=IOU, detect_every=every)
        backend = open_backend(bundle, precision, threads=threads)
        with av.open(str(clip)) as container:
            fps = float(container.streams.video[0].average_rate or 25)
        self.pipeline = Pipeline(bundle.require_model(), backend, settings, fps=fps)
        self.frames = _frames(clip)
        self.results: list[FrameResult] = []

    def __call__(self) -> int:
        result = self.pipeline.step(next(self.frames))
        self.results.append(result)
        return len(result.tracks)

    def share(self) -> float:
        """Median share of everything but inference in the frames in which it ran; decoding the video not counted."""
        ns = [r.ns for r in self.results[WARM:] if r.why]
        return float(np.median([1 - one["infer"] / sum(one.values()) for one in ns]))


def _frames(clip: Path) -> Iterator[Frame]:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for index, picture in enumerate(container.decode(stream)):
            yield Frame(index, round(picture.time * 1e9), to_bgr(picture))


def variant(bundle: Bundle, width: int, folder: Path) -> Bundle:
    """The bundle's weights, compiled for pictures `width` wide and 3/5 as high, in whole cells of 32 px; its windows
    have about the same share of the frame."""
    model, run = bundle.require_model(), dict(bundle.settings["run"])
    if model.regions:
        height, across = (round(side * width / model.width / 32) * 32 for side in model.regions)
        run["regions"] = {"height": height, "width": across}
    recipe = {
        "name": f"loop{width}",
        "model": {
            "arch": "roadnet",
            "weights": str(bundle.file("slim" if bundle.has("slim") else "weights").resolve()),
            "height": round(width * 0.6 / 32) * 32,
            "width": width,
        },
        "quantize": {"data": {"kind": "sim", "seed": 9200, "pictures": 48}},
        "build": None,
        "run": run,
    }
    path = folder / f"{width}.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return compile_recipe(path, folder / f"{width}.bundle").bundle


def simulated(seed: int, frames: int, path: Path) -> Path:
    drive = Drive(seed, frames)
    with closing(VideoSink(path, drive.fps)) as sink:
        for frame, _, _ in drive:
            sink.write(frame.bgr, frame.t_ns)
    return path


def race(
    lanes: dict[str, Step], frames: int, clock: Callable[[], float]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Seconds (frames,) of each lane, and its mean number of tracks."""
    names, spent, shown = list(lanes), {name: [] for name in lanes}, dict.fromkeys(lanes, 0)
    for i in range(WARM + frames):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = clock()
            count = lanes[name]()
            spent[name].append(clock() - began)
            shown[name] += count * (i >= WARM)
    return {n: np.array(s[WARM:]) for n, s in spent.items()}, {n: c / frames for n, c in shown.items()}


def spread(values: np.ndarray, digits: int) -> str:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clip", type=Path, help="a video; a simulated drive unless given")
    parser.add_argument("--seed", type=int, default=9310)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 640])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep", type=Path, help="a folder for the clip and the compiled variants, to use them again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        clip = args.clip or folder / f"{args.seed}-{args.frames}.mp4"
        if not clip.exists():
            simulated(args.seed, args.frames + WARM, clip)
        base = Bundle.read(args.bundle)
        bundles = {size: variant(base, size, folder) for size in args.sizes}
        for threads in args.threads:
            for size, bundle in bundles.items():
                table(clip, bundle, size, threads, args.frames)


def table(clip: Path, bundle: Bundle, size: int, threads: int, frames: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    model, every = bundle.require_model(), RunSettings.of(bundle).detect_every
    ours = {
        f"edgecnn {precision}, every frame": Ours(clip, bundle, precision, threads, 1)
        for precision in ("fp32", "int8", "openvino")
    } | {
        f"edgecnn {precision}, its schedule (k = {every})": Ours(clip, bundle, precision, threads, None)
        for precision in ("fp32", "int8", "openvino")
    }
    lanes: dict[str, Step] = {
        "eager PyTorch": eager(clip, bundle),
        "plain onnxruntime FP32": plain_onnxruntime(clip, bundle, threads),
        **ours,
    }
    spent, shown = race(lanes, frames, time.process_time if threads == 1 else time.perf_counter)
    blocks = {name: s[: len(s) // BLOCK * BLOCK].reshape(-1, BLOCK).sum(1) for name, s in spent.items()}
    print(f"\nInput {model.width}x{model.height}, {threads} thread(s), {frames} frames, {os.cpu_count()} cores\n")
    print("| loop | fps (p10-p90) | × eager PyTorch | × plain onnxruntime | detector ran | not inference | tracks |")
    print("|---|---|---|---|---|---|---|")
    for name, seconds in blocks.items():
        gains = [spread(blocks[b] / seconds, 2) for b in ("eager PyTorch", "plain onnxruntime FP32")]
        lane = ours.get(name)
        ran = 1.0 if lane is None else np.mean([bool(r.why) for r in lane.results[WARM:]])
        share = "" if lane is None else f"{lane.share():.0%}"
        print(
            f"| {name} | {spread(BLOCK / seconds, 1)} | {gains[0]} | {gains[1]} | {ran:.0%} | {share} "
            f"| {shown[name]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
