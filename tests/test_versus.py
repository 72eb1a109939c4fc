"""Two bundles side by side: ratios by hand, how often the interval is wrong, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import called
from tiny_detector import MODEL, make_bundle

from edgecnn import bench as bench_module
from edgecnn import versus
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError, ModelError
from edgecnn.versus import compare, faster, verdict, versus_table


@pytest.fixture(autouse=True)
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is installed or not."""
    monkeypatch.setattr(bench_module, "find_spec", lambda name: None)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Bundle, Bundle]:
    return make_bundle(tmp_path / "a.bundle", int8=True), make_bundle(tmp_path / "b.bundle")


def test_twice_as_fast_in_every_frame() -> None:
    ms = np.random.default_rng(1).uniform(5, 20, 100)
    row = faster(ms, ms / 2)
    assert row == {"ratio": 2.0, "low": 2.0, "high": 2.0} and verdict(row) == "faster"
    assert verdict(faster(ms, ms * 1.5)) == "slower" and verdict(faster(ms, ms)) == "no difference shown"


def test_one_stretch_tells_no_interval() -> None:
    row = faster(np.full(5, 2.0), np.full(5, 1.0))
    assert row["ratio"] == 2 and np.isnan(row["low"]) and verdict(row) == "no difference shown"


@pytest.mark.parametrize(("factor", "least", "most"), [(1.0, 0.88, 1.0), (1.1, 0.0, 0.02)])
def test_how_often_no_difference_is_shown(factor: float, least: float, most: float) -> None:
    """Noise of 10 % a frame, half of it lasting over 5 frames; 200 runs of 200 frames."""
    rng, same = np.random.default_rng(3), 0

    def noise() -> Any:
        return 1 + 0.05 * rng.normal(size=200) + 0.05 * np.repeat(rng.normal(size=40), 5)

    for _ in range(200):
        same += verdict(faster(10 * noise(), 10 * factor * noise())) == "no difference shown"
    assert least <= same / 200 <= most


def test_what_both_can_run_is_compared(pair: tuple[Bundle, Bundle]) -> None:
    found = compare(*pair, "sim:3", frames=20)
    assert list(found["lanes"]) == ["fp32"]  # the second has no INT8
    lane = found["lanes"]["fp32"]
    assert lane["ours"]["n"] == lane["other"]["n"] == 20
    assert lane["frame"]["low"] <= lane["frame"]["ratio"] <= lane["frame"]["high"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert versus_table(found).row_count == 1


def test_a_slower_network_is_found_out(pair: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = iter([4_000_000, 6_000_000])  # ns, of ours and of the other

    def lanes(*_: Any) -> dict[str, Any]:
        ns = {"infer": next(fixed)}
        return {"fp32": lambda frame: ns}

    monkeypatch.setattr(versus, "lanes_of", lanes)
    lane = compare(*pair, "sim:3", frames=20)["lanes"]["fp32"]
    assert lane["frame"]["ratio"] == pytest.approx(4 / 6, abs=1e-4) and verdict(lane["frame"]) == "slower"


def test_what_cannot_be_compared(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted 15 or more"):
        compare(*pair, str(still(tmp_path)))
    other = Bundle(pair[1].path, "c", MODEL.__class__(**{**vars(MODEL), "task": "classify"}), pair[1].stages)
    with pytest.raises(ModelError, match="a network to detect beside one to classify"):
        compare(pair[0], other)


def still(folder: Path) -> Path:
    import cv2

    path = folder / "pictures"
    path.mkdir()
    cv2.imwrite(str(path / "0.png"), np.zeros((64, 96, 3), np.uint8))
    return path


def test_the_command(
    pair: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = (bundle.path for bundle in pair)
    assert called(monkeypatch, "bench", one, "--compare", two, "--source", "sim:3", "--frames", 20, "--json") == 0
    assert set(json.loads(capfd.readouterr().out)["lanes"]) == {"fp32"}
    assert called(monkeypatch, "bench", one, "--compare", one / "nowhere", "--source", "sim:3") == 3
