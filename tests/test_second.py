"""The second stage: names of tracks by a classifier that looks at their crops, a few a frame."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_classifier import SPEC, make_classifier
from tiny_detector import CLASSES, MODEL, STRIDE, lamp_picture, make_bundle

from edgecnn import cli
from edgecnn.backends import open_backend
from edgecnn.errors import ModelError
from edgecnn.run import Pipeline, RunSettings
from edgecnn.run.second import SecondSettings, SecondStage, crop, open_second
from edgecnn.scene import Frame, Tracks


class Script:
    """A classifier that answers with the probabilities it is told, one set a look."""

    def __init__(self, *answers: tuple[float, ...]) -> None:
        self.answers, self.looks = list(answers), 0

    def __call__(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        answer = self.answers[min(self.looks, len(self.answers) - 1)]
        self.looks += 1
        return {"logits": np.log(np.array([answer], np.float32))}


BLUE, RED, DOUBT = (0.98, 0.01, 0.01), (0.01, 0.01, 0.98), (0.4, 0.3, 0.3)
PICTURE = np.zeros((200, 300, 3), np.uint8)


def tracks(*boxes: tuple[float, float, float, float], ids: tuple[int, ...] = (), label: int = 0) -> Tracks:
    n = len(boxes)
    zero = np.zeros(n, np.float32)
    return Tracks(
        np.array(ids or range(1, n + 1), np.int64), np.array(boxes, np.float32).reshape(n, 4), zero + 0.9,
        np.full(n, label), np.zeros((n, 2), np.float32), zero, zero, np.zeros(n, np.int64), np.ones(n, bool),
    )  # fmt: skip


def stage(backend: Script, **settings: float) -> SecondStage:
    return SecondStage(SPEC, backend, MODEL, ("lamp",), SecondSettings(**settings))  # type: ignore[arg-type]


def test_a_name_is_shown_after_two_looks_that_agree() -> None:
    second = stage(Script(BLUE))
    assert second.step(PICTURE, tracks((10, 10, 40, 40)))[0] == ("",)
    names, score = second.step(PICTURE, tracks((10, 10, 40, 40)))
    assert names == ("blue",) and score.dtype == np.float32
    np.testing.assert_allclose(score, [0.98], rtol=1e-6)


def test_one_odd_look_renames_nothing_and_doubt_is_not_shown() -> None:
    second = stage(Script(BLUE, BLUE, BLUE, RED))
    box = (10.0, 10.0, 40.0, 40.0)
    for _ in range(3):
        names, _ = second.step(PICTURE, tracks(box))
    assert names == ("blue",)
    names, score = second.step(PICTURE, tracks((10.0, 10.0, 55.0, 55.0)))  # 2.25 times the area, so its vote is that
    np.testing.assert_allclose(score, (3 * 0.98 + 2.25 * 0.01) / 5.25, rtol=1e-5)
    assert names == ("",), "56 % of the votes is not sure"

    unsure = stage(Script(DOUBT))
    assert [unsure.step(PICTURE, tracks(box))[0] for _ in range(6)] == [("",)] * 6


def test_looks_are_bounded_a_frame_and_go_to_the_new_and_large_first() -> None:
    backend = Script(BLUE)
    second = stage(backend, budget=2)
    boxes = tracks((0, 0, 20, 20), (50, 0, 90, 40), (100, 0, 130, 30))
    after = []
    for _ in range(8):
        _, score = second.step(PICTURE, boxes)
        after.append((backend.looks, tuple(score > 0)))
    assert after[0] == (2, (False, True, True)), "the two larger ones"
    assert after[1] == (4, (True, True, True)), "the third is new, so it comes before a second look at another"
    assert [looks for looks, _ in after] == [2, 4, 6, 8, 9, 9, 9, 9], "three looks each, then none while nothing grows"


@pytest.mark.parametrize(
    ("answer", "grown", "wanted"), [(BLUE, 1.3, 3), (BLUE, 1.5, 4), (DOUBT, 1.05, 3), (DOUBT, 1.2, 4)]
)
def test_a_track_that_grew_is_looked_at_again(answer: tuple[float, ...], grown: float, wanted: int) -> None:
    backend = Script(answer)
    second = stage(backend)
    for _ in range(4):
        second.step(PICTURE, tracks((10, 10, 40, 40)))
    second.step(PICTURE, tracks((10, 10, 10 + 30 * grown, 10 + 30 * grown)))
    assert backend.looks == wanted


def test_other_classes_small_boxes_and_stale_tracks_get_no_look() -> None:
    backend = Script(BLUE)
    second = stage(backend)
    for other in (
        tracks((10, 10, 40, 40), label=CLASSES.index("never")),
        tracks((10, 10, 20, 20)),
        replace(tracks((10, 10, 40, 40)), missed=np.array([6])),
        Tracks.empty(),
    ):
        names, score = second.step(PICTURE, other)
        assert names == ("",) * len(other) and not score.any()
    assert backend.looks == 0


def test_ids_keep_their_votes_whatever_the_rows_and_a_cut_forgets() -> None:
    second = stage(Script(BLUE, RED, BLUE, RED), budget=2)
    a, b = (10.0, 10.0, 50.0, 50.0), (100.0, 10.0, 130.0, 40.0)
    second.step(PICTURE, tracks(a, b, ids=(7, 3)))
    assert second.step(PICTURE, tracks(a, b, ids=(7, 3)))[0] == ("blue", "red")
    assert second.step(PICTURE, tracks(b, ids=(3,)))[0] == ("red",)
    second.reset()
    assert second.step(PICTURE, tracks(b, ids=(3,)))[0] == ("",)


def test_no_first_class_named_means_all() -> None:
    second = SecondStage(SPEC, Script(BLUE), MODEL)
    second.step(PICTURE, tracks((10, 10, 40, 40), label=1))
    assert second.step(PICTURE, tracks((10, 10, 40, 40), label=1))[0] == ("blue",)


def test_a_crop_has_the_networks_shape_and_goes_on_beyond_the_border() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[40:60, 20:30] = 255
    got = crop(picture, np.array([20, 40, 30, 60]), 1.0, 0.0)
    assert got.shape == (20, 20, 3)
    assert (got[:, 5:15] == 255).all() and not got[:, :5].any() and not got[:, 15:].any()
    wide = crop(picture, np.array([20, 40, 30, 60]), 2.0, 0.1)
    assert wide.shape == (24, 48, 3)
    picture[:, 0] = 200
    assert (crop(picture, np.array([-10, 10, 10, 30]), 1.0, 0.0)[:, :10] == 200).all()


def test_a_measured_box_is_looked_at_and_not_the_filtered_one_that_lags() -> None:
    seen: list[NDArray[np.float32]] = []

    class Eye(Script):
        def __call__(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
            seen.append(feeds["picture"].copy())
            return super().__call__(feeds)

    picture = PICTURE.copy()
    picture[40:60, 60:80] = 255
    second = SecondStage(SPEC, Eye(BLUE), MODEL, settings=SecondSettings(margin=0.0))
    lags = tracks((40, 40, 60, 60))
    second.step(picture, lags, np.array([[60, 40, 80, 60]], np.float32))
    second.step(picture, lags, np.full((1, 4), np.nan, np.float32))
    assert (seen[0] == 255).all() and not seen[1].any()


def coloured(column: int, bgr: tuple[int, int, int]) -> NDArray[np.uint8]:
    picture = lamp_picture(column, 3)
    cell = picture[3 * STRIDE : 4 * STRIDE, column * STRIDE : (column + 1) * STRIDE]
    cell[:] = bgr
    return picture


def test_tracked_lamps_are_named_by_their_colour(tmp_path: Path) -> None:
    lamps, colours = make_bundle(tmp_path / "lamps"), make_classifier(tmp_path / "colours")
    second = open_second(colours, lamps, ("lamp",), threads=1)
    pipeline = Pipeline(MODEL, open_backend(lamps, threads=1), RunSettings(), fps=10, second=second)
    results = [pipeline.step(Frame(i, i * 10**8, coloured(3 + i // 3, (60, 60, 250)))) for i in range(9)]
    assert results[-1].names == ("red",) and results[-1].name_score[0] > 0.7
    assert "second" in results[-1].ns and results[0].names in ((), ("",))
    alone = Pipeline(MODEL, open_backend(lamps, threads=1), RunSettings(), fps=10)
    result = alone.step(results[0].frame)
    assert result.names == () and "second" not in result.ns


def test_the_command_writes_names_and_sums_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lamps, colours = make_bundle(tmp_path / "lamps"), make_classifier(tmp_path / "colours")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(9):
        picture = cv2.resize(coloured(3 + i // 3, (60, 250, 60)), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(pictures / f"{i}.png"), picture)
    arguments = ["edgecnn", "run", lamps.path, "--source", pictures, "--out", tmp_path / "out", "--json"]

    def run(*more: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(a) for a in (*arguments, *more)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert run("--second", colours.path, "--of", "lamp") == 0
    assert json.loads(capsys.readouterr().out)["names"] == {"green": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text("utf-8").splitlines()]
    rows = [row for line in lines if line["type"] == "frame" for row in line["tracks"]]
    assert rows[-1]["name"] == "green" and rows[-1]["name_score"] > 0.7
    assert rows[0]["name"] is None and 0 < rows[0]["name_score"] <= 1, "one look is not enough"

    assert run() == 0
    capsys.readouterr()
    text = (tmp_path / "out" / "events.jsonl").read_text("utf-8")
    assert '"name_score"' not in text

    for code, said, more in (
        (6, "knows no class 'stop sign'", ("--second", colours.path, "--of", "stop sign")),
        (6, "for 'detect'", ("--second", lamps.path)),
        (3, "there is nothing at", ("--second", tmp_path / "none")),
        (2, "--second", ("--of", "lamp")),
    ):
        assert run(*more) == code
        assert said in capsys.readouterr().err


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"knows no class 'sign'.*of lamp, never"):
        SecondStage(SPEC, Script(BLUE), MODEL, ("lamp", "sign"))
    with pytest.raises(ModelError, match="second network for 'embed'"):
        SecondStage(replace(SPEC, task="embed", decode="embedding"), Script(BLUE), MODEL)
