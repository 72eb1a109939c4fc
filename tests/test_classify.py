"""`edgecnn classify`: the answers of a bundle's network, likeliest first; what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_detector import make_bundle

from edgecnn import zoo
from edgecnn.bundle import Bundle
from edgecnn.classify import classify
from edgecnn.errors import InputError, ModelError
from edgecnn.recipe import ModelSection
from edgecnn.vision import Preprocess


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    spec = zoo.spec_for(ModelSection(arch="lenet5", classes=tuple("abcdefg")))
    torch.manual_seed(0)
    bundle = Bundle(tmp_path / "l.bundle", "l")
    bundle.path.mkdir()
    zoo.save_weights(bundle.path / "w.safetensors", zoo.build(spec), spec)
    return bundle.with_stage(
        "train", settings={}, version=1, files={"weights": "w.safetensors"}, facts={}, tools={}, model=spec
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    return path


def test_the_five_likeliest_first(bundle: Bundle, picture: Path) -> None:
    (row,) = classify(bundle, [picture], "centre")
    net, spec = zoo.load(bundle.file("weights"), bundle.require_model())
    bgr = cv2.imread(str(picture))
    assert bgr is not None
    with torch.no_grad():
        wanted = net(torch.from_numpy(Preprocess(spec)(np.asarray(bgr, np.uint8))[0])).softmax(1)[0]
    values, order = wanted.sort(descending=True)
    assert [c["name"] for c in row["classes"]] == [spec.classes[i] for i in order[:5]]
    assert [c["probability"] for c in row["classes"]] == pytest.approx(values[:5].tolist(), abs=1e-4)


@pytest.mark.parametrize("method", ["ten_crop", "dense"])
def test_other_methods_give_other_probabilities(bundle: Bundle, picture: Path, method: str) -> None:
    one, other = (classify(bundle, [picture], m)[0]["classes"] for m in ("centre", method))  # type: ignore[arg-type]
    assert {c["name"]: c["probability"] for c in one} != {c["name"]: c["probability"] for c in other}


def test_what_is_refused(bundle: Bundle, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds a detector"):
        classify(make_bundle(tmp_path / "lamps.bundle", int8=False), [picture], "centre")
    with pytest.raises(InputError, match=r"none\.png"):
        classify(bundle, [tmp_path / "none.png"], "centre")
