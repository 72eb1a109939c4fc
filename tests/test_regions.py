"""Looking at parts of the frame: windows worth a look, the canvas and the way back, the second input size, budgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_detector import HEIGHT, MODEL, STRIDE, WIDTH, lamp_box, lamp_picture, make_bundle, write_network

from edgecnn import onnxfile
from edgecnn.adas import Camera, Scene, Schedule, ScheduleSettings
from edgecnn.adas.regions import ROOM, Tiles, Wanted, choose, through, visible
from edgecnn.adas.schedule import Look
from edgecnn.backends import Backend, open_backend
from edgecnn.backends.replay import Recorder, Replay
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import BundleError, ModelError
from edgecnn.export import at_regions
from edgecnn.run import Pipeline, RunSettings, run
from edgecnn.run.deadline import TimeBudget
from edgecnn.run.loop import planned
from edgecnn.run.regions import RegionDetector
from edgecnn.run.timing import Laps
from edgecnn.scene import Detections, Frame, Letterbox, Tracks
from edgecnn.track import Settings, Tracker

SIZE, CANVAS = (640, 384), (160, 96)
SMALL = (32, 48)  # height, width of the lamp network's second input size


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def found(xyxy: np.ndarray, score: float = 0.9) -> Detections:
    return Detections(xyxy.astype(np.float32), np.full(len(xyxy), score, np.float32), np.zeros(len(xyxy), np.int64))


def of(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])


@pytest.fixture
def both(tmp_path: Path) -> Bundle:
    """The lamp network with a second input size, as export writes it."""
    make_bundle(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    spec = replace(MODEL, regions=SMALL)
    onnx.save(at_regions(model, spec), tmp_path / "model.regions.onnx")
    macs = {"macs": onnxfile.multiply_adds(model)}
    macs["macs_regions"] = onnxfile.multiply_adds(onnx.load(tmp_path / "model.regions.onnx"))
    files = {"fp32": "model.onnx", "fp32_regions": "model.regions.onnx"}
    return Bundle(tmp_path, "lamps").with_stage(
        "export", settings={}, version=1, files=files, facts=macs, tools={}, model=spec
    )


# ---- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(300, 180, 330, 200), (0, 100, 60, 160), (610, 350, 640, 384), (200, 50, 500, 380)])
def test_a_window_holds_what_is_wanted_with_room_around(box: tuple[int, ...]) -> None:
    tiles, worth = choose(Wanted(boxes(box), np.ones(1)), CANVAS, SIZE)
    assert worth == pytest.approx(through(boxes(box), tiles, SIZE)[0]) and worth > 0.5
    assert visible(boxes(box), tiles, SIZE).all()
    window = next(tile.source[0] for tile in (tiles[:1], tiles[-1:]) if visible(boxes(box), tile, SIZE)[0])
    assert (window == window.round()).all() and (window >= 0).all() and (window[2:] <= SIZE).all()
    room = ROOM * (boxes(box)[0, 2:] - boxes(box)[0, :2])
    assert ((window[:2] == 0) | (window[:2] + room <= box[:2])).all()
    assert ((window[2:] == SIZE) | (window[2:] - room >= box[2:])).all()


def test_what_is_worth_more_is_chosen_and_what_lies_together_is_seen_at_once() -> None:
    apart = Wanted(boxes((20, 180, 50, 200), (600, 180, 630, 200)), np.array([0.2, 1.0]))
    whole = (64, 64)  # too narrow for two windows
    tiles, worth = choose(apart, whole, SIZE)
    assert through(apart.xyxy, tiles, SIZE).tolist() == [0, 1] and worth == pytest.approx(1.0)
    together = Wanted(boxes((300, 180, 330, 200), (340, 180, 370, 200)), np.ones(2))
    tiles, worth = choose(together, CANVAS, SIZE)
    assert worth == pytest.approx(2.0)
    two, worth = choose(apart, CANVAS, SIZE)  # the canvas in two halves sees both
    assert len(two) == 2 and worth == pytest.approx(1.2)
    assert len(choose(Wanted(boxes(), np.zeros(0)), CANVAS, SIZE)[0]) == 0


def test_a_window_too_coarse_or_too_fine_shows_nothing() -> None:
    box = boxes((300, 180, 320, 200))  # 20 px: 4 px of a canvas that holds the whole frame
    far = Tiles(boxes((0, 0, 640, 384)), np.array([[0, 0, 160, 96]]))
    near = Tiles(boxes((280, 170, 440, 266)), far.place)
    assert through(box, far, SIZE)[0] == 0 and through(box, near, SIZE)[0] == 1
    assert through(box + 100, near, SIZE)[0] == 0  # outside


# ---- the canvas and back --------------------------------------------------------------------------------------------


def test_boxes_come_back_through_their_tiles(both: Bundle) -> None:
    tiles = Tiles(boxes((100, 50, 148, 82), (300, 100, 396, 164)), np.array([[0, 0, 24, 32], [24, 0, 48, 32]]))
    model = both.require_model()
    detector = RegionDetector(model, open_backend(both, "fp32", threads=1), score=0.1, iou=0.5)
    truth = boxes((110, 60, 120, 70), (340, 120, 360, 140))
    maps = [Letterbox(0.5, 1.0, -50, -50, *SIZE), Letterbox(0.25, 0.5, 24 - 75, -50, *SIZE)]
    canvas = np.concatenate([box.to_net(row[None]) for box, row in zip(maps, truth, strict=True)])
    np.testing.assert_allclose(canvas, [[5, 10, 10, 20], [34, 10, 39, 20]])
    np.testing.assert_allclose(detector.to_frame(found(canvas), tiles, SIZE).xyxy, truth, atol=1e-4)


def test_a_box_that_its_tile_cuts_is_dropped_but_not_at_the_frames_edge(both: Bundle) -> None:
    detector = RegionDetector(both.require_model(), open_backend(both, "fp32", threads=1), score=0.1, iou=0.5)
    place = np.array([[0, 0, 48, 32]])
    at_left = found(boxes((0, 8, 12, 20)))
    inner, outer = Tiles(boxes((100, 50, 148, 82)), place), Tiles(boxes((0, 50, 48, 82)), place)
    assert len(detector.to_frame(at_left, inner, SIZE)) == 0
    np.testing.assert_allclose(detector.to_frame(at_left, outer, SIZE).xyxy, [[0, 58, 12, 70]])
    between = Tiles(boxes((0, 0, 24, 32), (300, 0, 324, 32)), np.array([[0, 0, 24, 32], [24, 0, 48, 32]]))
    assert len(detector.to_frame(found(boxes((12, 8, 32, 20))), between, SIZE)) == 0  # over the seam of two


def test_the_canvas_shows_each_window_and_grey_elsewhere(both: Bundle) -> None:
    detector = RegionDetector(both.require_model(), open_backend(both, "fp32", threads=1), score=0.1, iou=0.5)
    bgr = np.zeros((384, 640, 3), np.uint8)
    bgr[:, 320:] = 200
    canvas = detector.canvas(
        bgr, Tiles(boxes((0, 0, 24, 32), (400, 0, 496, 128)), np.array([[0, 0, 24, 32], [24, 0, 40, 32]]))
    )
    assert (canvas[:, :24] == 0).all() and (canvas[:, 24:40] == 200).all() and (canvas[:, 40:] == MODEL.pad).all()


def test_a_lamp_is_found_through_a_window(both: Bundle) -> None:
    detector = RegionDetector(both.require_model(), open_backend(both, "fp32", threads=1), score=0.3, iou=0.5)
    tiles = Tiles(boxes((32, 16, 80, 48)), np.array([[0, 0, 48, 32]]))
    seen, invalid = detector(lamp_picture(7, 3), tiles, 0, Laps())
    np.testing.assert_allclose(seen.xyxy, [lamp_box(7, 3)], atol=1e-3)
    seen, invalid = detector(lamp_picture(1, 1), tiles, 0, Laps())
    assert seen is not None and len(seen) == 0 and invalid == ""


# ---- the second input size ------------------------------------------------------------------------------------------


def test_the_small_network_answers_as_the_large_one_does(both: Bundle) -> None:
    """Its cells see 8x8 px each, so every one of them must answer as the same cell of the whole picture."""
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    large = of(both.file("fp32")).run(None, {"images": picture})
    height, width = SMALL
    small = of(both.file("fp32_regions")).run(None, {"images": picture[:, :, :height, :width]})
    rows, columns = height // STRIDE, width // STRIDE
    for a, b in zip(large, small, strict=True):
        grid = a.reshape(1, HEIGHT // STRIDE, WIDTH // STRIDE, -1)[:, :rows, :columns]
        np.testing.assert_array_equal(b, grid.reshape(1, rows * columns, -1))
    whole = onnxfile.resized(onnx.load(both.file("fp32")), HEIGHT, WIDTH)
    again = ort.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    for a, b in zip(large, again.run(None, {"images": picture}), strict=True):
        np.testing.assert_array_equal(a, b)


def test_constants_and_nodes_stay_as_they_are(both: Bundle) -> None:
    large, small = (onnx.load(both.file(role)) for role in ("fp32", "fp32_regions"))
    assert list(large.graph.initializer) == list(small.graph.initializer)
    assert list(large.graph.node) == list(small.graph.node)


def test_multiply_adds_by_hand() -> None:
    weight = np.zeros((6, 4, 3, 3), np.float32)  # two groups of 4 inputs: 8 channels in
    matrix = np.zeros((5, 7), np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["dq"]),
        helper.make_node("Conv", ["x", "dq"], ["y"], group=2, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("MatMul", ["z", "m"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "count",
        [value("x", TensorProto.FLOAT, (1, 8, 10, 12)), value("z", TensorProto.FLOAT, (1, 3, 5))],
        [value("y", TensorProto.FLOAT, (1, 6, 5, 6)), value("out", TensorProto.FLOAT, (1, 3, 7))],
        [numpy_helper.from_array(v, n) for n, v in (("w", weight), ("s", np.float32(1)), ("m", matrix))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert onnxfile.multiply_adds(model) == 6 * 4 * 9 * 5 * 6 + 3 * 5 * 7


def test_counts_shrink_with_the_area(both: Bundle) -> None:
    facts = both.stages["export"].facts
    assert facts["macs"] == 6 * 3 * (HEIGHT // STRIDE) * (WIDTH // STRIDE)
    assert facts["macs_regions"] * HEIGHT * WIDTH == facts["macs"] * SMALL[0] * SMALL[1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(MODEL, regions=(36, 48)), "multiples of the stride 8"),
        (ModelSpec("lenet5", "classify", ("a", "b"), MODEL.input, regions=SMALL), "wanted a detector"),
    ],
)
def test_sizes_that_can_not_be_are_refused(tmp_path: Path, spec: ModelSpec, message: str) -> None:
    write_network(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=message):
        at_regions(onnx.load(tmp_path / "model.onnx"), spec)


def test_a_network_with_its_size_in_its_constants_is_told_in_one_line(tmp_path: Path) -> None:
    write_network(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    (shape,) = (t for t in model.graph.initializer if t.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([1, 6, 96]), "shape"))
    with pytest.raises(ModelError, match="fully convolutional") as error:
        at_regions(model, replace(MODEL, regions=SMALL))
    assert "\n" not in str(error.value)


def test_the_manifest_keeps_the_second_size_and_a_missing_file_names_the_command(both: Bundle) -> None:
    again = Bundle.read(both.path)
    assert again.require_model().regions == SMALL and again.require_model().at_regions.input.shape[2:] == SMALL
    both.file("fp32_regions").unlink()
    with pytest.raises(BundleError, match="missing"):
        open_backend(again, "fp32")
    with pytest.raises(ModelError, match="second input size"):
        _ = MODEL.at_regions


# ---- tracks that were not looked at ---------------------------------------------------------------------------------


def test_only_what_was_looked_at_can_be_missed() -> None:
    tracker, pair = Tracker(Settings(coast_s=0.0)), boxes((100, 100, 140, 140), (400, 100, 440, 140))
    for k in range(3):
        tracks = tracker.step(found(pair), k * 40_000_000, frame_size=SIZE)
    assert len(tracks) == 2
    left = lambda xyxy: xyxy[:, 2] < 320  # noqa: E731
    for k in range(3, 6):
        tracks = tracker.step(found(pair[:1]), k * 40_000_000, frame_size=SIZE, looked=left)
    np.testing.assert_allclose(tracks.xyxy, pair, atol=1)
    assert tracks.missed.tolist() == [0, 3] and len(tracker.hidden[0]) == 0
    tracks = tracker.step(Detections.empty(), 6 * 40_000_000, frame_size=SIZE, looked=left)
    np.testing.assert_allclose(tracks.xyxy, pair[1:], atol=1)
    assert tracker.hidden[1].tolist() == [1]
    tracks = tracker.step(found(pair), 7 * 40_000_000, frame_size=SIZE, looked=left)
    assert tracks.id.tolist() == [1, 2]


def test_a_track_born_in_a_region_waits_for_a_second_look() -> None:
    tracker, box = Tracker(), boxes((100, 100, 140, 140))
    tracker.step(Detections.empty(), 0, frame_size=SIZE)
    tracker.step(found(box), 40_000_000, frame_size=SIZE, looked=lambda b: np.ones(len(b), bool))
    for k in range(2, 5):  # nobody looks
        tracks = tracker.step(
            Detections.empty(), k * 40_000_000, frame_size=SIZE, looked=lambda b: np.zeros(len(b), bool)
        )
        assert len(tracks) == 0 and len(tracker.hidden[0]) == 1
    assert len(tracker.step(found(box), 200_000_000, frame_size=SIZE)) == 1


# ---- when -----------------------------------------------------------------------------------------------------------


def scene(n: int, *, ttc_s: float = np.inf, in_path: bool = False) -> Scene:
    f, no = np.ones(n, np.float32), np.zeros(n, bool)
    return Scene(f * np.float32(ttc_s), f, f, f, no | in_path, no, ())


def tracks(n: int, missed: int) -> Tracks:
    f = np.ones(n, np.float32)
    x = 30 + 60 * np.arange(n, dtype=np.float32)
    xyxy = np.stack([x, 180 + 0 * x, x + 30, 204 + 0 * x], 1)
    i = np.arange(n)
    return Tracks(i, xyxy, f, i * 0, np.zeros((n, 2), np.float32), 0 * f, f, i * 0 + missed, np.ones(n, bool))


def schedule(**given: object) -> Schedule:
    settings = ScheduleSettings(every=20, canvas=CANVAS, cost=0.144, **given)  # type: ignore[arg-type]
    return Schedule(settings, Camera.assumed(SIZE), SIZE)


def looks(steps: Schedule, frames: int, n: int = 6, **given: object) -> list[Look]:
    now, made = tracks(n, 2), []
    for k in range(frames):
        made.append(
            steps.due(cut=False, tracks=now, scene=scene(n), t_ns=k * 40_000_000, expected=now.xyxy, **given)  # type: ignore[arg-type]
        )
    return made


def cost(made: list[Look]) -> float:
    return sum(0 if look.why is None else 1 if look.tiles is None else 0.144 for look in made) / len(made)


def test_without_a_budget_parts_are_looked_at_in_every_frame_between() -> None:
    made = looks(schedule(), 41)
    assert [k for k, look in enumerate(made) if look.why and look.tiles is None] == [0, 20, 40]
    assert all(look.why == "worth" for look in made if look.tiles is not None) and None not in [m.why for m in made]


@pytest.mark.parametrize("budget", [0.1, 0.13, 0.16])
def test_the_budget_is_kept_on_the_mean(budget: float) -> None:
    assert cost(looks(schedule(budget=budget), 250)) == pytest.approx(budget, rel=0.2)


def test_a_busy_road_costs_more_than_a_quiet_one_at_once() -> None:
    quiet, busy = (cost(looks(schedule(budget=0.15), 12, n)[1:]) for n in (0, 10))
    assert busy > 1.5 * quiet


def test_danger_is_looked_at_in_every_frame_whatever_the_budget() -> None:
    steps, now = schedule(budget=0.05), tracks(1, 0)
    made = [
        steps.due(
            cut=False, tracks=now, scene=scene(1, ttc_s=3.0, in_path=True), t_ns=k * 40_000_000, expected=now.xyxy
        )
        for k in range(10)
    ]
    assert [look.why for look in made] == ["first", *["closing"] * 9]
    assert all(look.tiles is not None and visible(now.xyxy, look.tiles, SIZE).all() for look in made[1:])


def test_the_deadline_leaves_out_what_does_not_fit() -> None:
    parts = looks(schedule(), 30, fits=frozenset({"regions"}))
    assert [look.tiles is None for look in parts] == [True] + [False] * 29  # the first has nothing to go by
    none = looks(schedule(), 30, fits=frozenset())
    assert [look.why for look in none[1:20]] == [None] * 19


def test_a_cut_asks_for_the_whole_frame() -> None:
    steps = schedule(budget=0.05)
    looks(steps, 5)
    look = steps.due(cut=True, tracks=Tracks.empty(), scene=None, t_ns=10**9, expected=boxes())
    assert look.why == "cut" and look.tiles is None


def test_the_far_road_is_looked_at_even_if_nothing_is_there() -> None:
    made = looks(schedule(), 10, n=0)
    assert all(look.tiles is not None for look in made[1:])
    middle = boxes((310, 187, 330, 197))
    assert sum(bool(visible(middle, look.tiles, SIZE).all()) for look in made[1:] if look.tiles is not None) >= 3


def test_times_decide_what_fits() -> None:
    whole, parts = Look("stride"), Look("worth", Tiles.empty())
    budget = TimeBudget(20.0)
    assert budget.fits == {"frame", "regions"}
    budget.book({"infer": 50_000_000}, whole)
    budget.book({"infer": 10_000_000}, parts)
    assert budget.fits == {"regions"}
    for _ in range(400):  # tried again some day
        budget.book({"track": 1_000_000}, Look(None))
    assert budget.fits == {"frame", "regions"}
    assert TimeBudget(0.0).fits == {"frame", "regions"}


# ---- the loop -------------------------------------------------------------------------------------------------------


def test_the_loop_follows_a_lamp_through_regions(both: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.adas.regions.ZOOMS", (1.0,))  # to this network a lamp has one size
    settings = RunSettings(detect_every=50, budget=1.0, threads=1)
    plan = replace(planned(both.require_model(), settings), budget=None)
    steps = Pipeline(both.require_model(), open_backend(both, "fp32", threads=1), settings, fps=25, schedule=plan)
    results = [steps.step(Frame(k, k * 40_000_000, lamp_picture(3 + k // 4, 3))) for k in range(16)]
    assert [r.whole for r in results] == [True] + [False] * 15
    for result in results:
        assert result.why and len(result.tracks)
        assert (result.searched[:, 2:] <= (WIDTH, HEIGHT)).all() and len(result.searched)
        # a lamp between two cells is seen in both, or in one of them
        assert (np.abs(result.tracks.xyxy - lamp_box(3 + result.frame.index // 4, 3)).max(1) <= 12).any()


def test_a_recording_holds_both_sizes(both: Bundle, tmp_path: Path) -> None:
    model, settings = both.require_model(), RunSettings(detect_every=5, budget=1.0, threads=1)
    plan = replace(planned(model, settings), budget=None)
    recorder = Recorder(open_backend(both, "fp32", threads=1))

    def tracked(backend: Backend) -> list[np.ndarray]:
        steps = Pipeline(model, backend, settings, fps=25, schedule=plan)
        return [steps.step(Frame(k, k * 40_000_000, lamp_picture(3 + k // 4, 3))).tracks.xyxy for k in range(12)]

    first = tracked(recorder)
    recorder.save(tmp_path / "answers.npz")
    for a, b in zip(first, tracked(Replay(tmp_path / "answers.npz", model)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_counts_what_it_searched(both: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = lambda model, settings: replace(planned(model, settings), budget=None)  # noqa: E731
    monkeypatch.setattr("edgecnn.run.loop.planned", every)
    import cv2

    folder = tmp_path / "frames"
    folder.mkdir()
    for k in range(20):
        cv2.imwrite(str(folder / f"{k:03d}.png"), lamp_picture(3 + k // 5, 3))
    summary = run(both, str(folder), None, RunSettings(detect_every=10, budget=0.3, threads=1, deadline_ms=10_000.0))
    whole = summary.detector_frames - summary.region_frames
    assert summary.region_frames > 0 and summary.late == 0
    spent = whole + summary.region_frames * SMALL[0] * SMALL[1] / (HEIGHT * WIDTH)
    assert summary.macs_saved == pytest.approx(1 - spent / 20, abs=1e-4)
    assert 0 < summary.pixels_searched < 1


# ---- the stages ------------------------------------------------------------------------------------------------------

RECIPE = """
name: regions
model: {arch: roadnet, weights: shipped}
export: {compare: {seed: 1, pictures: 1}}
quantize: {data: {seed: 3, pictures: 4}}
build: null
run: {detect_every: 20, regions: {height: 96, width: 160}, budget: 0.2}
"""


@pytest.mark.slow
def test_export_and_quantize_write_both_sizes_with_the_same_scales(tmp_path: Path) -> None:
    import torch

    from edgecnn import zoo
    from edgecnn.compile import compile_recipe
    from edgecnn.data.simulator import still

    (tmp_path / "regions.yaml").write_text(RECIPE)
    bundle = compile_recipe(tmp_path / "regions.yaml", tmp_path / "regions.bundle").bundle
    assert bundle.require_model().regions == (96, 160) and RunSettings.of(bundle).budget == 0.2
    for role in ("fp32", "int8", "int8_cpu"):
        large, small = (onnx.load(bundle.file(name)) for name in (role, f"{role}_regions"))
        assert list(large.graph.initializer) == list(small.graph.initializer)
        assert list(large.graph.node) == list(small.graph.node)
    facts = bundle.stages["export"].facts
    assert facts["macs"] == bundle.stages["train"].facts["macs"]  # counted in torch
    assert facts["macs_regions"] / facts["macs"] == pytest.approx(96 * 160 / (256 * 416))

    part = still(3, 0).bgr[140:236, 240:400]
    x = np.ascontiguousarray(part.transpose(2, 0, 1)[None]).astype(np.float32) - 128
    net, _ = zoo.load(bundle.file("weights"), bundle.stages["train"].model)
    with torch.no_grad():
        wanted = [t.numpy() for t in net(torch.from_numpy(x))]
    for precision, tolerance in (("fp32", 1e-4), ("int8", 0.3)):
        answers = open_backend(bundle, precision, threads=1)({bundle.require_model().input.name: x}).values()  # type: ignore[arg-type]
        for a, b in zip(answers, wanted, strict=True):
            assert np.abs(a - b).max() <= tolerance * np.ptp(b)
