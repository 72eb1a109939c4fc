"""Objects known again by what they look like: the cue by hand, its price, and the commands that take a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn import cli
from edgecnn.bundle import ModelSpec, TensorSpec
from edgecnn.errors import InputError, ModelError
from edgecnn.run.appearance import Appearance
from edgecnn.run.loop import Pipeline, RunSettings
from edgecnn.run.recorded import follow_video
from edgecnn.run.sources import open_source
from edgecnn.run.timing import Laps
from edgecnn.scene import F32, Detections, Frame, Tracks
from edgecnn.track import METHODS, Tracker
from edgecnn.track.appearance import Vectors, renewed

SIZE = (640, 384)
FPS = 10
RED, BLUE = (30, 30, 220), (220, 60, 30)  # BGR


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    n = len(boxes)
    return Detections(np.array(boxes, np.float32).reshape(n, 4), np.full(n, 0.9, np.float32), np.zeros(n, np.int64))


def box(x: float, side: float = 40.0) -> tuple[float, float, float, float]:
    return (x, 100.0, x + side, 100.0 + side)


def spec() -> ModelSpec:
    outputs = (TensorSpec("vector", (1, 3), "float32"),)
    image = TensorSpec("image", (1, 3, 16, 8), "float32")
    return ModelSpec("onnx", "embed", (), image, outputs, "embedding", fit="stretch")


def mean_colour(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"vector": feeds["image"].mean(axis=(2, 3))}


def painted(*objects: tuple[float, tuple[int, int, int]]) -> tuple[np.ndarray, Detections]:
    """A grey frame with squares of one colour each, and their boxes; a later one hides an earlier one."""
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for x, colour in objects:
        cv2.rectangle(picture, (round(x), 100), (round(x) + 39, 139), colour, -1)
    return picture, found(*(box(x) for x, _ in objects))


def play(
    frames: list[tuple[np.ndarray, Detections]], looks: Appearance | None, method: str = "bytetrack"
) -> list[Tracks]:
    tracker, out = Tracker(METHODS[method], FPS), []
    for k, (picture, detections) in enumerate(frames):
        if looks:
            looks.frame = picture
        out.append(tracker.step(detections, k * 10**9 // FPS, frame_size=SIZE, look=looks))
    return out


@pytest.mark.parametrize(("used", "second"), [(False, 2), (True, 1)])
def test_a_lost_object_is_known_again_after_its_track_would_have_ended(used: bool, second: int) -> None:
    """Gone for 2 s, found again 30 px further on: the buffer of positions is 1 s, that of looks 4 s."""
    frames = [painted((100, RED))] * 6 + [painted()] * 20 + [painted((130, RED))] * 4
    tracks = play(frames, Appearance(spec(), mean_colour) if used else None)
    assert tracks[5].id.tolist() == [1]
    assert tracks[-1].id.tolist() == [second]


def test_what_looks_different_or_is_too_far_is_another_object() -> None:
    for again in ((130, BLUE), (560, RED)):
        frames = [painted((100, RED))] * 6 + [painted()] * 15 + [painted(again)] * 4
        assert play(frames, Appearance(spec(), mean_colour))[-1].id.tolist() == [2]


@pytest.mark.parametrize("used", [False, True])
def test_two_that_change_places_while_nobody_looks_keep_their_numbers_by_their_looks(used: bool) -> None:
    """Two frames are missed, and each stands where the other was nearer to: overlap alone confuses them."""
    before = [painted((100, RED), (126, BLUE))] * 8
    after = [painted((112, BLUE), (122, RED))] * 3
    looks = Appearance(spec(), mean_colour) if used else None
    # the boxes overlap, so that vectors come from frames in which the two stood apart
    apart = [painted((100 - 10 * k, RED), (126 + 10 * k, BLUE)) for k in (6, 5, 4, 3, 2, 1)]
    tracks = play(apart + before + after, looks)
    red = tracks[0].id[tracks[0].xyxy[:, 0].argmin()]
    last = tracks[-1]
    assert bool(last.id[last.xyxy[:, 0].argmax()] == red) is used


def test_only_what_is_ambiguous_or_new_or_long_not_seen_is_looked_at() -> None:
    looks = Appearance(spec(), mean_colour)
    frames = [painted((100, RED), (300, BLUE), (500, RED))] * 31
    play(frames, looks)
    assert looks.crops == 3 * 6  # once each, and anew when a vector is more than 0.5 s old: frames 1, 7, 13, ...


def test_vectors_are_asked_for_once_and_averaged() -> None:
    asked: list[int] = []

    def look(boxes: F32) -> F32:
        asked.append(len(boxes))
        return np.eye(4, 3, dtype=np.float32)[: len(boxes)]

    vectors = Vectors(look, found(box(0), box(20), box(300)).xyxy)
    vectors(np.array([0, 1]))
    assert vectors(np.array([1, 0])).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert asked == [2] and vectors.known().tolist() == [0, 1]
    assert vectors.alone().tolist() == [False, False, True]
    old, new = np.array([[1, 0], [0, 0]], np.float32), np.array([[0, 1], [0, 1]], np.float32)
    length = np.hypot(0.9, 0.1)
    assert renewed(old, new) == pytest.approx(np.array([[0.9 / length, 0.1 / length], [0, 1]]))


def test_crops_are_cut_at_the_frame_and_only_embeddings_will_do() -> None:
    looks = Appearance(spec(), mean_colour)
    looks.frame = painted((0, RED))[0]
    vectors = looks(np.array([[-50, 100, 40, 140], [700, 500, 800, 600], [10, 110, 10, 110]], np.float32))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert vectors[0] == pytest.approx(np.array(RED) / np.linalg.norm(RED), abs=1e-3)
    with pytest.raises(ModelError, match="wanted one that embeds"):
        Appearance(ModelSpec("lenet5", "classify", ("a", "b"), spec().input), mean_colour)


def test_the_live_loop_hands_its_frames_to_the_looks() -> None:
    class Fixed(Pipeline):
        """Its detector is what was painted."""

        def _detect(self, frame: Frame, laps: Laps) -> tuple[Detections, str]:
            return clip[frame.index][1], ""

    clip = [painted((100, RED))] * 6 + [painted()] * 20 + [painted((130, RED))] * 4
    outputs = (TensorSpec("boxes", (1, 16, 6), "float32"),)
    model = ModelSpec("onnx", "detect", ("a",), TensorSpec("x", (1, 3, 32, 32), "float32"), outputs, "yolox", (8,))
    last = []
    for looks in (None, Appearance(spec(), mean_colour)):
        pipeline = Fixed(model, mean_colour, RunSettings(detect_every=1), fps=FPS, looks=looks)
        for k, (picture, _) in enumerate(clip):
            result = pipeline.step(Frame(k, k * 10**9 // FPS, picture))
        last.append(result.tracks.id.tolist())
    assert last == [[2], [1]]


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """30 frames with two squares, as pictures and as detections."""
    lines, folder = [], tmp_path / "pictures"
    folder.mkdir()
    for k in range(30):
        picture, detections = painted((100 + 3 * k, RED), (500 - 3 * k, BLUE))
        cv2.imwrite(str(folder / f"{k:03}.png"), picture)
        lines += [f"{k + 1},-1,{x0},{y0},{x1 - x0},{y1 - y0},0.9\n" for x0, y0, x1, y1 in detections.xyxy.tolist()]
    (tmp_path / "det.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["edgecnn", "track", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return run


def test_the_command_takes_a_video(recorded: Path, command: Callable[..., int]) -> None:
    out = recorded / "tracks.txt"
    assert command(recorded / "det.txt", "--out", out, "--video", recorded / "pictures") == 0
    assert {line.split(",")[1] for line in out.read_text().splitlines()} == {"1", "2"}


def test_looks_without_pictures_and_too_short_a_video_are_refused(
    recorded: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(recorded / "det.txt", "--out", recorded / "t.txt", "--reid", recorded) == 2
    assert "--video" in capsys.readouterr().err
    frames = [found(box(100))] * 31
    with pytest.raises(InputError, match="ends after 30 frames; wanted 31"):
        follow_video(frames, open_source(str(recorded / "pictures")), METHODS["bytetrack"], 10.0)
    looks = Appearance(spec(), mean_colour)
    tracks = follow_video(frames[:30], open_source(str(recorded / "pictures")), METHODS["bytetrack"], 10.0, looks)
    assert len(tracks) == 30 and looks.crops >= 5
