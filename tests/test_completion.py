"""What a shell offers after TAB, asked for as bash asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_detector import make_bundle

ROOT = Path(__file__).resolve().parents[1]


def offered(line: str, folder: Path) -> list[str]:
    """For a line whose last word is not yet finished."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_EDGECNN_COMPLETE": "complete_bash"}
    code = "import sys\nfrom edgecnn.cli import main\nsys.argv = ['edgecnn']\nmain()"
    env = os.environ | words | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("edgecnn calib", ["calibrate"]),
        ("edgecnn compile ad", ["adas"]),
        ("edgecnn compile zoo/vgg19", ["zoo/vgg19", "zoo/vgg19_bn"]),
        ("edgecnn compile mi", ["mine.yaml"]),
        ("edgecnn compile nothing", []),  # the shell offers files
        ("edgecnn bench runs/", ["runs/lamps.bundle"]),
        ("edgecnn targets tho", ["thor"]),
        ("edgecnn build adas --target orin-nx", ["orin-nx", "orin-nx-8"]),
        ("edgecnn run x --precision fp", ["fp32"]),
    ],
)
def test_what_is_offered(line: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    make_bundle(tmp_path / "runs" / "lamps.bundle")
    assert offered(line, tmp_path) == words
