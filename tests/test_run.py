from __future__ import annotations

import functools
import http.server
import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from tiny_detector import CLASSES, HEIGHT, MODEL, WIDTH, lamp_box, lamp_picture

from edgecnn.adas import Camera
from edgecnn.backends import FRAME, open_backend
from edgecnn.backends.replay import Recorder, Replay
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.doctor import Check, doctor, int8_gain
from edgecnn.errors import InputError, ModelError
from edgecnn.run import Pipeline, RunSettings, Source, open_source, run
from edgecnn.run.draw import Painter, corridor
from edgecnn.run.loop import reduced
from edgecnn.run.modes import Status
from edgecnn.run.readers import VideoReader, redact
from edgecnn.run.sinks import EventSink, VideoSink
from edgecnn.run.timing import Laps, StageTimes
from edgecnn.scene import Frame

FPS = 25.0
EVERY = RunSettings(detect_every=1, threads=1)


@pytest.fixture
def bus(shared_data: Path) -> Path:
    return shared_data / "images" / "bus.jpg"


def write_video(path: Path, pictures: list[np.ndarray]) -> Path:
    sink = VideoSink(path, FPS)
    for index, picture in enumerate(pictures):
        sink.write(picture, round(index / FPS * 1e9))
    sink.close()
    return path


def lamps(frames: int, *, stay: int = 2) -> list[np.ndarray]:
    """A lamp that moves one cell to the right every `stay` frames."""
    return [lamp_picture(2 + index // stay, 3) for index in range(frames)]


def pipeline(bundle: Bundle, settings: RunSettings = EVERY) -> Pipeline:
    return Pipeline(MODEL, open_backend(bundle, "fp32", threads=1), settings, fps=FPS)


class Scripted:
    """A reader that yields pictures, `pause_s` apart, and then falls silent for `silence_s`."""

    name, fps, total, warning, camera = "scripted", FPS, None, "", None

    def __init__(self, count: int, *, live: bool, pause_s: float = 0.0, silence_s: float = 0.0) -> None:
        self.live, self.made = live, 0
        self._count, self._pause_s, self._silence_s = count, pause_s, silence_s

    def frames(self) -> Iterator[Frame]:
        for index in range(self._count):
            time.sleep(self._pause_s)
            self.made += 1
            yield Frame(index, index * 40_000_000, lamp_picture(2, 3))
        time.sleep(self._silence_s)


# Sources


def test_a_video_gives_every_frame_with_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "lamps.mp4", lamps(12))
    with open_source(str(path)) as source:
        frames = list(source)
    assert (source.fps, source.total, source.live, source.warning) == (FPS, 12, False, "")
    assert [f.index for f in frames] == list(range(12))
    np.testing.assert_allclose([f.t_ns / 1e9 for f in frames], np.arange(12) / FPS, atol=1e-4)
    for frame, wanted in zip(frames, lamps(12), strict=True):
        assert frame.bgr.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(cv2.blur(frame.bgr, (9, 9)).astype(int) - cv2.blur(wanted, (9, 9))).mean() < 6


def test_colours_come_through_opencv_as_through_ffmpeg(tmp_path: Path) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for index, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 200, 30)]):
        colours[:, index * 24 : (index + 1) * 24] = colour
    path = write_video(tmp_path / "colours.mp4", [colours] * 3)
    with open_source(str(path)) as source:
        ours = next(iter(source)).bgr
    with av.open(str(path)) as container:
        theirs = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert np.abs(ours[8:-8].astype(int) - theirs[8:-8]).mean() < 3
    np.testing.assert_allclose(ours[32, 12], (255, 0, 0), atol=25)


@pytest.mark.parametrize(("matrix", "turn"), [("cw", cv2.ROTATE_90_CLOCKWISE), ("ccw", cv2.ROTATE_90_COUNTERCLOCKWISE)])
def test_a_phone_video_is_turned_upright(tmp_path: Path, matrix: str, turn: int) -> None:
    """The display matrix of ISO 14496-12, 8.3.2: rows (a, b, u), (c, d, v), (x, y, w) in 16.16, 16.16, 2.30."""
    path = write_video(tmp_path / "lamps.mp4", [lamp_picture(2, 1)] * 3)
    one = 1 << 16
    a, b, c, d, x, y = (0, one, -one, 0, HEIGHT * one, 0) if matrix == "cw" else (0, -one, one, 0, 0, WIDTH * one)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    values = (a, b, 0, c, d, 0, x, y, 1 << 30)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        came = next(iter(source)).bgr
    wanted = cv2.rotate(lamp_picture(2, 1), turn)
    assert came.shape == wanted.shape == (WIDTH, HEIGHT, 3)
    assert cv2.minMaxLoc(cv2.blur(came[..., 0], (7, 7)))[3] == pytest.approx(
        cv2.minMaxLoc(cv2.blur(wanted[..., 0], (7, 7)))[3], abs=3
    )


def test_a_truncated_video_gives_what_it_holds_and_one_warning(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, HEIGHT, WIDTH, 3)).astype(np.uint8)
    path = write_video(tmp_path / "lamps.mp4", list(noise))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 5 < len(frames) < 39
    assert f"{len(frames)} of 40 frames came" in source.warning
    assert "\n" not in source.warning


def test_a_damaged_video_goes_on_after_the_damage(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, HEIGHT, WIDTH, 3)).astype(np.uint8)
    path = write_video(tmp_path / "lamps.mp4", list(noise))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        frames = list(source)
    assert len(frames) > 20
    assert "frames came" in source.warning


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "no such source"),
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"no video at all\n" * 40, "does not open as a video"),
        ("text.jpg", b"no picture at all\n" * 40, "no frame that can be decoded"),
        ("notes.txt", b"hello\n" * 100, "is text"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message), open_source(str(tmp_path / name)) as source:
        list(source)


@pytest.mark.parametrize(
    "text", ["sim:", "sim:one", "sim:traffic:", "sim:nowhere:1", "/dev/null", "rtsp://127.0.0.1:9/a"]
)
def test_what_does_not_open_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        open_source(text)


def test_a_sound_file_holds_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match="holds no picture stream"):
        open_source(str(path))


def test_a_folder_gives_its_pictures_in_order_and_names_the_bad_one(tmp_path: Path) -> None:
    for name, column in (("b.png", 4), ("a.png", 2), ("c.PNG", 6)):
        cv2.imwrite(str(tmp_path / "x.png"), lamp_picture(column, 3))
        (tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "bad.jpg").write_bytes(b"")
    (tmp_path / "readme.md").write_text("not a picture")
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [f.index for f in frames] == [0, 1, 3]
    for frame, column in zip(frames, (2, 4, 6), strict=True):
        np.testing.assert_array_equal(frame.bgr, lamp_picture(column, 3))
    assert "1 of 4 pictures can't be read (first: bad.jpg)" in source.warning


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        open_source(str(tmp_path))


def test_one_picture_is_a_source_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), lamp_picture(2, 3))
    with open_source(str(tmp_path / "a.png")) as source:
        assert [f.t_ns for f in source] == [0]


def test_the_simulator_brings_its_camera() -> None:
    with open_source("sim:braking_lead:4") as source:
        frame = next(iter(source))
    assert source.camera is not None
    assert source.camera.cx == pytest.approx(frame.bgr.shape[1] / 2)
    assert source.total and source.total > 50


def test_a_live_source_gives_the_newest_frame_and_counts_the_others() -> None:
    reader = Scripted(60, live=True, pause_s=0.003)
    with pytest.raises(InputError, match="nothing for"), Source(_silent(reader), silence_s=0.2) as source:
        seen = []
        for frame in source:
            seen.append(frame.index)
            time.sleep(0.03)
    assert seen[-1] == 59  # never the backlog
    assert len(seen) < 30
    assert len(seen) + source.dropped == 60
    assert any(b - a > 1 for a, b in itertools.pairwise(seen))


def _silent(reader: Scripted) -> Scripted:
    reader._silence_s = 1.0
    return reader


def test_a_file_gives_every_frame_to_a_slow_reader_and_decodes_only_a_few_ahead() -> None:
    reader = Scripted(20, live=False)
    with Source(reader) as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.1)
        assert reader.made <= 7
        assert [f.index for f in frames] == list(range(1, 20))
    assert source.dropped == 0


def test_leaving_early_ends_the_decoder() -> None:
    with Source(Scripted(1000, live=False)) as source:
        next(iter(source))
    assert not source._thread.is_alive()


def test_an_error_of_the_decoder_arrives_at_the_reader() -> None:
    class Broken(Scripted):
        def frames(self) -> Iterator[Frame]:
            yield from super().frames()
            raise InputError("the lens fell off")

    with Source(Broken(3, live=False)) as source:
        frames = iter(source)
        assert [next(frames).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError, match="lens fell off"):
            next(frames)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nobody wants to read it."""


def test_a_video_comes_over_http(tmp_path: Path) -> None:
    write_video(tmp_path / "lamps.mp4", lamps(8))
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_source(f"http://user:secret@127.0.0.1:{server.server_port}/lamps.mp4") as source:
                assert len(list(source)) == 8
            assert "secret" not in source.name
            assert not source.live
        finally:
            server.shutdown()


def test_a_stream_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """A transport stream over HTTP at 4 times its speed, read slowly, and then nothing more."""
    data = io.BytesIO()
    with av.open(data, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (150, HEIGHT, WIDTH, 3)).astype(np.uint8)
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    done = threading.Event()

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
            content = data.getvalue()
            for at in range(0, len(content), len(content) // 75):
                connection.sendall(content[at : at + len(content) // 75])
                time.sleep(0.01)
            done.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        reader = VideoReader(f"http://127.0.0.1:{server.getsockname()[1]}/live.ts")
        assert reader.live
        seen = []
        with pytest.raises(InputError, match="delivered nothing for 1 s"), Source(reader, silence_s=1.0) as source:
            for frame in source:
                seen.append(frame.index)
                time.sleep(0.03)
        done.set()
        thread.join()
    assert seen[-1] > 140  # the newest
    assert source.dropped == seen[-1] + 1 - len(seen) > 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rtsp://admin:pa@ss@10.0.0.2:554/cam?x=1", "rtsp://10.0.0.2:554/cam?x=1"),
        ("http://10.0.0.2/a@b.mp4", "http://10.0.0.2/a@b.mp4"),
        ("video@home.mp4", "video@home.mp4"),
    ],
)
def test_passwords_stay_out_of_results(text: str, wanted: str) -> None:
    assert redact(text) == wanted


# The loop


def test_a_moving_lamp_is_one_track_in_its_place(bundle: Bundle) -> None:
    steps = pipeline(bundle)
    results = [steps.step(Frame(i, round(i / FPS * 1e9), picture)) for i, picture in enumerate(lamps(14))]
    for index, result in enumerate(results):
        assert result.detections is not None
        np.testing.assert_allclose(result.detections.xyxy, [lamp_box(2 + index // 2, 3)], atol=1e-3)
        assert result.tracks.id.tolist() == [1]
        assert set(result.ns) == {"preprocess", "infer", "postprocess", "track", "scene"}
    np.testing.assert_allclose(results[-1].tracks.xyxy[0], lamp_box(8, 3), atol=4)
    assert results[-1].tracks.velocity[0, 0] == pytest.approx(4 * FPS, rel=0.3)  # 8 px every second frame


def test_the_detector_rests_between_and_the_track_stays(bundle: Bundle) -> None:
    steps = pipeline(bundle, RunSettings(detect_every=4, threads=1))
    results = [steps.step(Frame(i, round(i / FPS * 1e9), lamp_picture(5, 3))) for i in range(9)]
    assert [r.why for r in results] == ["first", None, None, None, "stride", None, None, None, "stride"]
    for result in results:
        assert (result.detections is None) == (result.why is None)
        assert ("infer" in result.ns) == (result.why is not None)
        np.testing.assert_allclose(result.tracks.xyxy, [lamp_box(5, 3)], atol=2)


def test_a_cut_forgets_tracks_and_asks_the_detector(bundle: Bundle) -> None:
    steps = pipeline(bundle, RunSettings(detect_every=50, threads=1))
    before = [steps.step(Frame(i, i * 40_000_000, lamp_picture(5, 3))) for i in range(3)]
    other = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    other[:, WIDTH // 2 :] = 90
    other[8:16, 8:16] = 250
    after = steps.step(Frame(3, 120_000_000, other))
    assert [r.cut for r in before] == [False] * 3
    assert after.cut and after.why == "cut"
    assert not set(after.tracks.id.tolist()) & set(before[-1].tracks.id.tolist())


def test_pictures_of_another_size_start_anew(bundle: Bundle) -> None:
    steps = pipeline(bundle, RunSettings(detect_every=50, threads=1))
    first = steps.step(Frame(0, 0, lamp_picture(5, 3)))
    second = steps.step(Frame(1, 40_000_000, cv2.resize(lamp_picture(5, 3), None, fx=2, fy=2)))
    assert (first.cut, second.cut, second.why) == (False, True, "cut")
    np.testing.assert_allclose(second.tracks.xyxy, [lamp_box(5, 3) * 2], atol=2)


def test_two_cameras_share_nothing(bundle: Bundle) -> None:
    one, other = pipeline(bundle), pipeline(bundle)
    for index in range(4):
        one.step(Frame(index, index * 40_000_000, lamp_picture(5, 3)))
    assert other.step(Frame(0, 0, lamp_picture(9, 3))).tracks.id.tolist() == [1]


def test_a_recording_takes_the_place_of_the_network(bundle: Bundle, tmp_path: Path) -> None:
    path = write_video(tmp_path / "lamps.mp4", lamps(10))
    settings = RunSettings(detect_every=3, threads=1)
    recorder = Recorder(open_backend(bundle, "fp32", threads=1))
    with open_source(str(path)) as source:
        first = [
            pipeline.step(frame).tracks
            for pipeline in (Pipeline(MODEL, recorder, settings, fps=FPS),)
            for frame in source
        ]
    recorder.save(tmp_path / "answers.npz")
    replay = Replay(tmp_path / "answers.npz", MODEL)
    with open_source(str(path)) as source:
        again = [
            pipeline.step(frame).tracks
            for pipeline in (Pipeline(MODEL, replay, settings, fps=FPS),)
            for frame in source
        ]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.id, b.id)


def test_a_classifier_is_not_run_on_a_road(bundle: Bundle) -> None:
    logits = ModelSpec("lenet5", "classify", ("a", "b"), TensorSpec("x", (1, 1, 32, 32)), channels="grey")
    with pytest.raises(ModelError, match="wanted a detector"):
        Pipeline(logits, open_backend(bundle, "fp32"), EVERY, fps=FPS)


def test_settings_come_from_the_recipe_and_the_command_line_wins(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, settings={"run": {"score": 0.4, "iou": 0.6, "detect_every": 5}})
    assert RunSettings.of(bundle) == RunSettings(score=0.4, iou=0.6, detect_every=5)
    assert RunSettings.of(bundle, score=0.2, iou=None).score == 0.2
    assert RunSettings.of(bundle, score=0.2, iou=None).iou == 0.6


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((96, 64), (96, 64)), ((640, 384), (480, 288)), ((1280, 720), (480, 270)), ((3840, 2161), (480, 270))],
)
def test_the_reduced_picture_keeps_its_shape(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    width, height = size
    ramp = np.broadcast_to(np.linspace(0, 250, width).astype(np.uint8)[None, :, None], (height, width, 3))
    grey = reduced(np.ascontiguousarray(ramp))
    assert grey.shape[::-1] == wanted
    np.testing.assert_allclose(grey[wanted[1] // 2], np.linspace(0, 250, wanted[0]), atol=2)


@pytest.mark.parametrize("wrong", [{"score": 0}, {"score": 1.5}, {"iou": 0}, {"detect_every": 0}, {"threads": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RunSettings(**wrong)  # type: ignore[arg-type]


def test_stage_times_count_only_frames_in_which_a_stage_ran() -> None:
    times = StageTimes()
    times.add({"infer": 4_000_000, "track": 1_000_000})
    times.add({"track": 3_000_000})
    table = times.table()
    assert list(table) == ["infer", "track"]
    assert table["infer"]["n"] == 1
    assert table["track"] == {"n": 2, "mean": 2.0, "p50": 2.0, "p90": 2.8, "p95": 2.9, "p99": 2.98, "max": 3.0}


def test_a_long_run_keeps_a_bounded_number_of_times() -> None:
    """Percentiles are of the newest; count, mean and maximum of all."""
    times = StageTimes(last=100)
    for ms in (50, *[1] * 900, *range(1, 101)):
        times.add({"infer": ms * 1_000_000})
    assert times.ms("infer").tolist() == list(range(1, 101))
    row = times.table()["infer"]
    assert (row["n"], row["p50"], row["max"]) == (1001, 50.5, 100.0)
    assert row["mean"] == pytest.approx((50 + 900 + 5050) / 1001, abs=1e-3)


def test_laps_of_one_stage_add_up() -> None:
    laps = Laps()
    for stage in ("track", "infer", "track"):
        time.sleep(0.002)
        laps.lap(stage)
    assert laps.ns["track"] >= 4_000_000
    assert 2_000_000 <= laps.ns["infer"] < laps.ns["track"] + 50_000_000


# Sinks and the whole run


def test_a_run_writes_video_events_summary_and_stills(bundle: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "lamps.mp4", lamps(30, stay=4))
    summary = run(bundle, str(video), tmp_path / "out", RunSettings(detect_every=2, threads=1))
    assert (summary.frames, summary.dropped, summary.cuts, summary.complete) == (30, 0, 0, True)
    assert summary.tracks == 1
    assert summary.macs_saved == round(1 - summary.detector_frames / 30, 4)
    assert sum(summary.reasons.values()) == summary.detector_frames == summary.stages["infer"]["n"]
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert len(list(container.decode(stream))) == 30
    head = (tmp_path / "out" / "annotated.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # a browser starts before it has all of it
    lines = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == ["run"] + ["frame"] * 30
    assert lines[0]["settings"]["detect_every"] == 2
    assert lines[-1]["tracks"][0]["label"] == CLASSES[0]
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["frames"] == 30
    assert [still["tracks"] for still in written["files"]["stills"]] == [1, 1]  # at least a second apart
    for still in written["files"]["stills"]:
        assert cv2.imread(still["path"]).shape == (HEIGHT, WIDTH, 3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "annotated.mp4",
        "events.jsonl",
        "stills",
        "summary.json",
    ]


def test_a_run_without_sinks_writes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "lamps.mp4", lamps(5))
    assert run(bundle, str(video), None, EVERY).frames == 5
    run(bundle, str(video), tmp_path / "out", EVERY, sinks=("events",))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["events.jsonl", "stills", "summary.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_written_until_a_stop_is_kept(bundle: Bundle, tmp_path: Path, error: type[BaseException]) -> None:
    backend = open_backend(bundle, "fp32", threads=1)

    def stops(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if int(feeds[FRAME]) == 7:
            raise error
        return backend(feeds)

    video = write_video(tmp_path / "lamps.mp4", lamps(20))
    with pytest.raises(error):
        run(bundle, str(video), tmp_path / "out", EVERY, backend=stops)  # type: ignore[arg-type]
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        assert len(list(container.decode(video=0))) == 7
    lines = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    frames = [line for line in map(json.loads, lines) if line["type"] == "frame"]
    assert [line["index"] for line in frames] == list(range(7))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["complete"]) == (7, False)
    assert not [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_a_source_without_frames_leaves_no_video(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError):
        run(bundle, str(tmp_path / "bad.jpg"), tmp_path / "out", EVERY)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["events.jsonl"]


def test_a_truncated_video_ends_a_run_well(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, HEIGHT, WIDTH, 3)).astype(np.uint8)
    path = write_video(tmp_path / "noise.mp4", list(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    summary = run(bundle, str(path), None, EVERY)
    assert summary.complete
    assert 5 < summary.frames < 39
    assert f"{summary.frames} of 40 frames came" in summary.warning
    assert capsys.readouterr().err.count("ends early") == 1


def test_video_of_odd_size_and_of_dropped_frames(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "a.mp4", 30.0)
    rng = np.random.default_rng(0)
    for t_ns in (0, 33_000_000, 33_000_000, 500_000_000):  # a repeated time stamp, and a gap
        sink.write(rng.integers(0, 255, (51, 75, 3)).astype(np.uint8), t_ns)
    sink.write(np.zeros((20, 30, 3), np.uint8), 533_000_000)
    sink.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(f.width, f.height) for f in frames] == [(74, 50)] * 5
    np.testing.assert_allclose([f.time for f in frames], [0, 0.033, 0.033, 0.5, 0.533], atol=1e-3)


def test_events_are_strict_json_with_null_for_never(bundle: Bundle, tmp_path: Path) -> None:
    result = pipeline(bundle).step(Frame(0, 0, lamp_picture(5, 3)))
    sink = EventSink(tmp_path / "events.jsonl", {"source": "here"}, CLASSES)
    sink.put((result, Status()))
    sink.close()

    def refuse(token: str) -> None:
        raise AssertionError(token)

    _, line = (json.loads(text, parse_constant=refuse) for text in (tmp_path / "events.jsonl").read_text().splitlines())
    (track,) = line["tracks"]
    assert (track["ttc_s"], track["distance_m"], track["label"], track["missed"]) == (None, None, "lamp", 0)
    np.testing.assert_allclose(track["xyxy"], lamp_box(5, 3), atol=0.1)


# Drawing


def test_the_corridor_lies_where_the_camera_sees_the_road() -> None:
    camera = Camera(500, 500, 320, 192, 1.3, pitch_rad=0.05)
    polygon = corridor(camera, 640, 384)
    assert polygon is not None
    forward, right = camera.ground(polygon[:, 0].astype(float), polygon[:, 1].astype(float))
    near = forward < 15  # one px is much farther out
    np.testing.assert_allclose(np.abs(right[near]), 1.0, atol=0.05)
    half = len(polygon) // 2
    assert (right[:half] < 0).all() and (right[half:] > 0).all()


def test_drawing_leaves_the_frame_alone_and_marks_the_box(bundle: Bundle) -> None:
    steps = pipeline(bundle)
    picture = cv2.resize(lamp_picture(5, 3), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    before = picture.copy()
    result = steps.step(Frame(0, 0, picture))
    drawn = Painter(CLASSES)(result, steps.camera, Status(ms=1.0))
    np.testing.assert_array_equal(picture, before)
    changed = np.abs(drawn.astype(int) - picture).max(2) > 30
    left, top, right, bottom = result.tracks.xyxy[0].round().astype(int)
    assert changed[top : bottom + 1, left].mean() > 0.9
    assert changed[bottom, left : right + 1].mean() > 0.9


# Doctor


def test_doctor_finds_what_the_tests_run_on() -> None:
    checks = {check.name: check for check in doctor()}
    for name in ("Python", "numpy", "scipy", "av", "onnxruntime", "encoder", "CPU"):
        assert checks[name].ok, checks[name]
    assert checks["numpy"].found == np.__version__
    for check in checks.values():
        assert isinstance(check, Check)
        assert check.ok or check.mend


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "avx512_vnni"),
        ({"avx2", "avx_vnni"}, "avx_vnni"),
        ({"avx2"}, "avx2 without VNNI"),
        ({"asimd", "asimddp"}, "asimddp"),
        (set(), "no instructions"),
    ],
)
def test_what_int8_brings_depends_on_the_cpu(flags: set[str], wanted: str) -> None:
    assert wanted in int8_gain(frozenset(flags))[0]
