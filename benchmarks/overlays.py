"""What the driver sees, and what drawing it costs: `python benchmarks/overlays.py [PICTURE.jpg]`.

One frame of a simulated drive with every kind of warning at once in turn, at four sizes; the picture shows six of them.
Best of 20, in ms: other programs must not count.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from edgecnn.adas import Camera, Lane, Scene
from edgecnn.data.simulator import Drive
from edgecnn.run.draw import Painter
from edgecnn.run.loop import FrameResult
from edgecnn.run.modes import Status
from edgecnn.scene import Frame, Tracks

CASES: tuple[tuple[tuple[str, ...], Status], ...] = (
    ((), Status(ms=9.3, age_s=0.043)),
    (("fcw",), Status(ms=9.3, age_s=0.043)),
    (("pedestrian", "headway"), Status(ms=9.1, age_s=0.041)),
    (("ldw_left",), Status("REDUCED", ("deadline missed",), ms=52.0, age_s=0.09)),
    (("ldw_right", "headway"), Status(ms=9.2, age_s=0.042)),
    ((), Status("WARN-OFF", ("blurred",), ms=9.0, age_s=0.04)),
)


def main() -> None:
    drive = Drive(4, scenario="braking_lead")
    frame, truth, _ = drive.render(95)
    rows = np.argsort(truth.distance_m)[:1]
    one, lens = np.ones(len(rows), np.float32), drive.camera
    paint = Painter(("car", "truck_bus", "two_wheeler", "person"))
    print("height, px  " + "  ".join(f"{'+'.join(on) or status.mode:>18}" for on, status in CASES))
    for height in (240, 384, 720, 1080):
        k = height / frame.bgr.shape[0]
        bgr = np.asarray(cv2.resize(frame.bgr, (round(frame.bgr.shape[1] * k), height)), np.uint8)
        camera = Camera(lens.fx * k, lens.fy * k, lens.cx * k, lens.cy * k, lens.height_m, lens.pitch_rad)
        tracks = Tracks(
            rows + 7, truth.xyxy[rows] * np.float32(k), one, truth.label[rows], np.zeros((len(rows), 2), np.float32),
            one, one, rows * 0, one > 0,
        )  # fmt: skip
        pictures, spent = [], []
        for on, status in CASES:
            danger = bool({"fcw", "pedestrian"} & set(on))
            scene = Scene(
                one * 2.1, one * 0.2, truth.distance_m[rows], one, one > 0, one * danger > 0, (), 0, 0.7,
                Lane(-1.95, 1.6, 0.0, 1 / 2000, 45.0), on,
            )  # fmt: skip
            result = FrameResult(Frame(95, 0, bgr), None, tracks, scene, "closing", True, tracks.xyxy, False, {})
            times = []
            for _ in range(20):
                began = time.perf_counter()
                picture = paint(result, camera, status)
                times.append(1e3 * (time.perf_counter() - began))
            pictures.append(picture)
            spent.append(min(times))
        print(f"{height:10}  " + "  ".join(f"{ms:18.2f}" for ms in spent), flush=True)
        if height == 384 and len(sys.argv) > 1:
            sheet = np.vstack([np.hstack(pictures[i : i + 2]) for i in (0, 2, 4)])
            cv2.imwrite(sys.argv[1], sheet, [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
