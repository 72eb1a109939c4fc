from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.bundle import Bundle
from edgecnn.recipe import DataSection


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pictures, videos and tracks beside the checkout; they are never part of the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the optional data folder ../shared/data is not beside this checkout")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Of the detector of lamps, FP32; files that need another have their own."""
    from tiny_detector import make_bundle

    return make_bundle(tmp_path / "lamps.bundle")


@pytest.fixture(scope="session")
def dark_and_light(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], DataSection]:
    """So many pictures a class, noise around 60 and around 190, in a folder a class."""

    def drawn(each: int) -> DataSection:
        folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
        for name, level in (("dark", 60), ("light", 190)):
            (folder / name).mkdir()
            for i in range(each):
                noise = rng.normal(level, 20, (32, 32, 3)).clip(0, 255)
                cv2.imwrite(str(folder / name / f"{i}.png"), noise.astype(np.uint8))
        return DataSection(kind="classes", path=folder, pictures=2 * each)

    return drawn
