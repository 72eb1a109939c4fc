"""Which K pictures of a folder calibrate like the whole folder does.

A range is where the tail of a tensor's magnitudes is cut, so what a picture has to say about ranges is its share of the
values beyond each of a few cuts. One pass over the folder notes these shares; then pictures are taken one by one, each
time the one with which the shares of those taken come closest to the shares of all (greedy moment matching, as in
Welling 2009, "Herding dynamical weights to learn", ICML, but on ratios, since the cuts are far out).

Taking the pictures that differ most from one another instead would gather the extremes of the folder: right for
`ranges: max`, and too wide for every other method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import Bundle, sha256
from edgecnn.data.calibration import Entry, list_files, write_list
from edgecnn.data.files import SUFFIXES, read_picture
from edgecnn.errors import InputError
from edgecnn.progress import tracked
from edgecnn.quantize.graph import load, prepare
from edgecnn.quantize.insert import plan
from edgecnn.quantize.ranges import tapped
from edgecnn.scene import F32
from edgecnn.vision import Preprocess

SHIFT = 21  # of a float32's bits: the exponent and two bits of the fraction stay, so four bins an octave
FIRST = 97 << 2  # the bin of 2**-30
BINS = 50 << 2  # up to 2**20
CUTS = (1e-2, 1e-3, 1e-4)  # shares of a tensor's values beyond a cut, over the whole folder
SLACK = 0.3  # of a folder's share: what is added to both sides of a ratio, so that none is infinite


@dataclass(frozen=True)
class Picked:
    """Some pictures of a folder, in the order in which they were taken: any first of them are a good choice too."""

    entries: tuple[Entry, ...]
    among: int  # pictures in the folder, copies left out
    apart: float  # median over tensors: |range of the picked / range of all - 1|, at percentile 99.99


def pick_list(bundle: Bundle, folder: Path, count: int, out: Path) -> Picked:
    """Pick `count` pictures of a folder and its folders, and write them to `out` as a calibration list.

    Raises InputError where there is no folder, a picture does not open, or there are fewer than `count`.
    """
    files = different(folder)
    if len(files) < count:
        raise InputError(f"{folder} holds {len(files)} different pictures", wanted=f"at least {count}")
    shares = spread(bundle, files)
    rows = choose(shares, count)
    entries = list_files(out.parent, [files[row] for row in rows], folder.name)
    write_list(out, entries, f"{count} of the {len(files)} pictures of {folder.name}, picked for {bundle.name}.")
    return Picked(tuple(entries), len(files), apart(shares, rows))


def different(folder: Path) -> list[Path]:
    """The picture files below a folder, by name, files of the same bytes once. Raises InputError if there is none."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", wanted="a folder of pictures")
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    first: dict[str, Path] = {}
    for file in found:
        first.setdefault(sha256(file), file)
    if not first:
        raise InputError(f"no picture in {folder}", wanted=", ".join(suffix[1:] for suffix in SUFFIXES))
    return list(first.values())


def spread(bundle: Bundle, files: Sequence[Path]) -> F32:
    """(pictures, tensors, BINS): the share of a tensor's magnitudes in each bin, in the FP32 network.

    800 bytes a picture and tensor: 1000 pictures of a network with 100 tensors take 80 MB.
    """
    preprocess, model = Preprocess(bundle.require_model()), prepare(load(bundle.file("fp32")))
    tensors = plan(model).tensors
    session = tapped(model, tensors)
    feed = session.get_inputs()[0].name
    inner = [name for name in tensors if name != feed]
    shares = np.zeros((len(files), len(tensors), BINS), np.float32)
    for row, file in enumerate(tracked(files, "look at", len(files))):
        x = preprocess(read_picture(file))[0]
        values = dict(zip(inner, session.run(inner, {feed: x}), strict=True)) | {feed: x}
        shares[row] = [binned(values[name]) for name in tensors]
    return shares


def binned(values: F32) -> NDArray[np.float64]:
    """(BINS,) share of the magnitudes in each bin. The bits of a positive float grow with it."""
    code = (np.abs(values).ravel().view(np.int32) >> SHIFT) - FIRST
    counts: NDArray[np.float64] = np.bincount(np.clip(code, 0, BINS - 1), minlength=BINS) / values.size
    return counts


def choose(shares: F32, count: int) -> list[int]:
    """(pictures, tensors, BINS) → the rows of `count` pictures, the most useful first."""
    beyond = np.cumsum(shares[..., ::-1], axis=2)[..., ::-1]  # share at or above each bin's lower edge
    whole = beyond.mean(0)
    tensors = np.arange(whole.shape[0])
    columns = []
    for cut in CUTS:
        at = np.abs(np.log(np.maximum(whole, 1e-12)) - np.log(cut)).argmin(1)
        columns.append(beyond[:, tensors, at] / np.maximum(whole[tensors, at], 1e-12))
    ratio = np.concatenate(columns, axis=1)  # (pictures, tensors x CUTS), on average 1
    taken: list[int] = []
    total = np.zeros(ratio.shape[1])
    for number in range(1, count + 1):
        misses = np.square(np.log(((total + ratio) / number + SLACK) / (1 + SLACK))).sum(1)
        misses[taken] = np.inf
        taken.append(int(misses.argmin()))
        total += ratio[taken[-1]]
    return taken


def apart(shares: F32, rows: Sequence[int]) -> float:
    """Median over tensors of |range of these pictures / range of all - 1|, ranges at percentile 99.99."""
    ours, all_of = (_cut(group.mean(0)) for group in (shares[list(rows)], shares))
    return float(np.median(np.abs(ours / all_of - 1)))


def _cut(shares: F32) -> NDArray[np.float64]:
    """(tensors, BINS) → (tensors,) the magnitude that 1 value of 10 000 exceeds, linear within a bin."""
    edges = ((np.arange(BINS + 1) + FIRST) << SHIFT).astype(np.int32).view(np.float32).astype(np.float64)
    beyond = np.concatenate([np.cumsum(shares[:, ::-1], axis=1)[:, ::-1], np.zeros((len(shares), 1))], axis=1)
    return np.array([np.interp(CUTS[-1], row[::-1], edges[::-1]) for row in beyond])
