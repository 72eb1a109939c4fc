"""Is a calibration set good for this network? Each check has a verdict; each finding says what to do.

The pictures by themselves: too few, twice the same, nearly the same. Against the pictures of the recipe's `check`,
which stand for what the camera will see: classes, light, statistics of the input. With the network: whether another
preprocess, or the other order of channels, tells it more, and how much the chosen ranges clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.data import Dataset
from edgecnn.data.alike import Look, copies, near_copies
from edgecnn.errors import InputError
from edgecnn.progress import bar
from edgecnn.quantize.graph import load
from edgecnn.quantize.insert import removed
from edgecnn.quantize.ranges import Histogram, amax, collect, tapped
from edgecnn.quantize.stage import FEW
from edgecnn.scene import F32, Picture
from edgecnn.vision import DecodeDetections, Preprocess

BINS = 2048
UNSETTLED = 0.15  # halves of the set whose ranges differ more, in the median tensor, are too few
CLIPPED = 0.01  # a tensor that clips more than this share of its values
LUMA = 24.0  # grey levels between a picture and the nearest calibration picture: light never seen
SHARE = 0.05  # of the pictures to check on; fewer are exceptions
SHIFTED = 0.75  # of a channel's standard deviation, between the means of both sets
STRETCHED = 2.0  # between the standard deviations of both sets
TRIED = 32  # pictures on which other preprocesses are tried,
LEAST_TRIED = 8  # at least; over fewer, chance decides
GAIN, SURE = 1.1, 3.0  # another one is better if it tells this many times more, so many standard errors away from 0

Three = tuple[float, float, float]
CUSTOMARY: dict[str, tuple[Three, Three]] = {  # mean and deviation, red first
    "0-255": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0-1": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "-1 to 1": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "-128 to 127": ((128.0, 128.0, 128.0), (1.0, 1.0, 1.0)),
    "ImageNet's mean and deviation": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


@dataclass(frozen=True)
class Check:
    """One check: `finding` where something is wrong, with what to do."""

    name: str
    saw: str
    do: str = ""

    @property
    def finding(self) -> bool:
        return bool(self.do)


@dataclass(frozen=True)
class Audit:
    """All checks of a calibration set."""

    pictures: int
    checks: tuple[Check, ...]
    clipped: Mapping[str, float]  # tensor -> share of its values beyond the chosen range

    @property
    def findings(self) -> list[Check]:
        return [check for check in self.checks if check.finding]

    def json(self) -> dict[str, Any]:
        checks = [asdict(check) | {"finding": check.finding} for check in self.checks]
        return {"pictures": self.pictures, "findings": len(self.findings), "checks": checks, "clipped": self.clipped}

    def table(self) -> list[list[str]]:
        rows = [[check.name, "FINDING" if check.finding else "ok", _sentence(check)] for check in self.checks]
        return [["check", "", "what was seen, and what to do"], *rows]


def _sentence(check: Check) -> str:
    return f"{check.saw}. {check.do}" if check.do else check.saw


def audit(bundle: Bundle, data: Dataset, reference: Dataset | None) -> Audit:
    """Audit `data` for a quantised bundle; `reference`: pictures like those that it will run on.

    Raises BundleError without an INT8 file, InputError for an empty set or an unreadable picture.
    """
    if not len(data):
        raise InputError("the calibration set is empty", wanted="at least one picture, better 64 or more")
    spec = bundle.require_model()
    network, ranges = removed(load(bundle.file("int8")))
    seen, halves = _Seen(spec, data), []
    for rows in (range(0, len(data), 2), range(1, len(data), 2)):
        if len(rows):
            halves.append(collect(network, list(ranges), seen.feeds(rows, "look at"), BINS))
    clipped = {name: float(np.mean([half[name].clipped(clip) for half in halves])) for name, clip in ranges.items()}
    checks = [_enough(len(data), halves), *_repeats(seen.looks)]
    if reference is None:
        checks.append(Check("light and input", "not looked at: no pictures to check on"))
    else:
        there = _Seen(spec, reference)
        every = max(1, len(reference) // 64)
        for _ in there.feeds(range(0, len(reference), every), "compare with"):
            pass
        checks += [_light(seen.looks, there.looks), _input(spec, seen, there)]
    checks += [_classes(spec, data, seen.looks), *_preprocess(bundle, spec, data), _clipping(clipped)]
    return Audit(len(data), tuple(checks), clipped)


@dataclass
class _Seen:
    """Looks and input statistics of the pictures that went by."""

    spec: ModelSpec
    data: Dataset
    by_row: dict[int, Look] = field(default_factory=dict)
    means: list[NDArray[np.float64]] = field(default_factory=list)  # a picture each, (channels,)
    squares: list[NDArray[np.float64]] = field(default_factory=list)

    def feeds(self, rows: Sequence[int], label: str) -> Iterator[F32]:
        preprocess = Preprocess(self.spec)
        with bar(label, len(rows)) as advance:
            for row in rows:
                sample = self.data[row]
                x, _ = preprocess(sample.bgr)
                self.by_row[row] = Look.of(sample)
                self.means.append(x[0].mean((1, 2), dtype=np.float64))
                self.squares.append(np.square(x[0], dtype=np.float64).mean((1, 2)))
                yield x
                advance(1)

    @property
    def looks(self) -> list[Look]:
        return [self.by_row[row] for row in sorted(self.by_row)]

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each input channel."""
        mean = np.mean(self.means, axis=0)
        return mean, np.sqrt(np.maximum(np.mean(self.squares, axis=0) - mean**2, 1e-12))


def _enough(count: int, halves: Sequence[Mapping[str, Histogram]]) -> Check:
    name, differ = "enough", float("nan")
    if len(halves) == 2:
        pairs = [(amax(halves[0][key], "percentile"), amax(halves[1][key], "percentile")) for key in halves[0]]
        differ = float(np.median([max(pair) / max(min(pair), 1e-12) - 1 for pair in pairs if max(pair) > 0] or [0.0]))
    saw = f"{count} pictures; in the median tensor, the ranges of one half and of the other differ by {differ:.0%}"
    if count >= FEW and differ <= UNSETTLED:
        return Check(name, saw)
    if count == 1:
        saw = "1 picture"
    return Check(
        name, saw, "Take 64 or more, of different places and hours: with fewer, chance decides what is clipped"
    )


def _repeats(looks: Sequence[Look]) -> list[Check]:
    same, near = copies(looks), near_copies(looks)
    checks = []
    for name, pairs, do in (
        ("duplicates", same, "List each picture once: a copy counts twice and shows nothing new"),
        ("near-duplicates", near, "Keep one of each pair, such as one frame a second: the others show nothing new"),
    ):
        if pairs:
            shown = ", ".join(f"{a} = {b}" for a, b in pairs[:3]) + (", ..." if len(pairs) > 3 else "")
            checks.append(Check(name, f"{len(pairs)} of {len(looks)} pictures ({shown})", do))
        else:
            checks.append(Check(name, "none"))
    return checks


def _light(looks: Sequence[Look], there: Sequence[Look]) -> Check:
    ours, theirs = (np.sort([look.brightness for look in group]) for group in (looks, there))
    unseen = theirs[np.abs(theirs[:, None] - ours[None]).min(1) > LUMA]
    spans = [f"{group[0]:.0f}-{group[-1]:.0f}" for group in (ours, theirs)]
    saw = f"mean brightness {spans[0]} of 255, that of the pictures to check on {spans[1]}"
    if len(unseen) <= SHARE * len(theirs):
        return Check("light", saw)
    kind = "darker" if np.median(unseen) < ours[0] else "brighter" if np.median(unseen) > ours[-1] else "in between"
    saw += f"; {len(unseen)} of {len(theirs)} are {kind}, as no calibration picture is"
    return Check("light", saw, f"Add pictures of mean brightness {unseen[0]:.0f} to {unseen[-1]:.0f}")


def _input(spec: ModelSpec, seen: _Seen, there: _Seen) -> Check:
    (mean, std), (wanted, spread) = seen.moments(), there.moments()
    off = np.abs(mean - wanted) / spread
    ratio = np.maximum(std / spread, spread / std)
    told = [f"{_figures(a)} ± {_figures(b)}" for a, b in ((mean, std), (wanted, spread))]
    saw = f"channels {spec.channels}: {told[0]}; pictures to check on: {told[1]}"
    if off.max() <= SHIFTED and ratio.max() <= STRETCHED:
        return Check("input", saw)
    return Check("input", saw, "Store pictures as the camera gives them (0-255, BGR files), not normalised or rescaled")


def _figures(values: NDArray[np.float64]) -> str:
    return "/".join(f"{value:.3g}" for value in values)


def _classes(spec: ModelSpec, data: Dataset, looks: Sequence[Look]) -> Check:
    if spec.task == "embed":
        return Check("classes", "not looked at: the network tells none")
    seen = {data.classes[label] for look in looks for label in look.labels if label < len(data.classes)}
    if not seen:
        return Check("classes", "not looked at: the pictures have no labels")
    told = spec.classes if spec.task == "classify" else [name for name in spec.classes if name in data.classes]
    if missing := [name for name in told if name not in seen]:
        names = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        return Check("classes", f"{len(missing)} of {len(told)} never seen: {names}", "Add pictures of them")
    return Check("classes", f"all {len(told)} seen")


def _preprocess(bundle: Bundle, spec: ModelSpec, data: Dataset) -> list[Check]:
    """Does another preprocess, or the other order of channels, tell the network more?"""
    names = ("channel order", "preprocess")
    if len(data) < LEAST_TRIED or spec.task == "embed":
        lacking = "a vector names nothing" if spec.task == "embed" else f"fewer than {LEAST_TRIED} pictures"
        return [Check(name, f"not looked at: {lacking}") for name in names]
    rows = range(0, len(data), -(-len(data) // TRIED))
    told = trial(bundle, [data[row].bgr for row in rows], {"": spec} | variants(spec))
    own = told.pop("")
    checks = []
    for name, mine in zip(names, (["the other"], [key for key in told if key != "the other"]), strict=True):
        best = max((key for key in mine if key in told), key=lambda key: float(told[key].mean()), default="")
        if not best:
            checks.append(Check(name, "grey: there is no other"))
            continue
        gain = told[best] - own
        error = max(float(gain.std(ddof=1)) / np.sqrt(len(gain)), 1e-12)
        saw = f"the network tells {own.mean():.3g} as it is, {told[best].mean():.3g} with {best}"
        wrong = told[best].mean() > GAIN * own.mean() and gain.mean() > SURE * error
        do = "Set model.channels" if best == "the other" else "Set model.mean and model.std"
        do += " in the recipe to what the network was trained with, or store the pictures rightly"
        checks.append(Check(name, saw, do if wrong else ""))
    return checks


def variants(spec: ModelSpec) -> dict[str, ModelSpec]:
    """Preprocesses that are often meant: the other order of channels, and the customary means and deviations."""
    found: dict[str, ModelSpec] = {}
    if spec.channels != "grey":
        other = replace(spec, channels="rgb" if spec.channels == "bgr" else "bgr")
        found["the other"] = replace(other, mean=spec.mean[::-1], std=spec.std[::-1])
    for name, (mean, std) in CUSTOMARY.items():
        if spec.channels == "bgr":
            mean, std = mean[::-1], std[::-1]
        if (mean, std) != (spec.mean, spec.std):
            found[name] = replace(spec, mean=mean, std=std)
    return found


def trial(bundle: Bundle, pictures: Sequence[Picture], specs: Mapping[str, ModelSpec]) -> dict[str, F32]:
    """How much the FP32 network's answer to each picture tells, under each preprocess: name → (pictures,).

    A classifier: bits, the divergence of a picture's probabilities from their mean over all pictures; on average that
    is the mutual information of picture and class. A detector: by how much its ten strongest scores exceed the mean of
    the same places. Confidence alone would not do: an input a hundred times too large makes a network very sure of the
    same thing everywhere.
    """
    session = tapped(load(bundle.file("fp32")), ())
    feed = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    told = {}
    for name, spec in specs.items():
        preprocess = Preprocess(spec)
        answers = []
        for bgr in pictures:
            outputs = dict(zip(names, session.run(names, {feed: preprocess(bgr)[0]}), strict=True))
            answers.append(_answer(spec, outputs))
        told[name] = information(np.stack(answers), classify=spec.task == "classify")
    return told


def _answer(spec: ModelSpec, outputs: dict[str, F32]) -> F32:
    """(classes,) probabilities, or the best score at each place."""
    if spec.task == "detect":
        best: F32 = DecodeDetections(spec).split(list(outputs.values()))[1].max(1)
        return best
    logits: F32 = next(iter(outputs.values()))[0]
    if logits.min() >= 0 and abs(float(logits.sum()) - 1) < 1e-3:
        return logits  # probabilities already
    exponent = np.exp(logits - logits.max())
    return np.asarray(exponent / exponent.sum(), np.float32)


def information(answers: F32, *, classify: bool) -> F32:
    """(pictures, classes or places) → (pictures,)."""
    usual = answers.mean(0)
    if classify:
        tiny = 1e-12
        bits = answers * np.log2(np.maximum(answers, tiny) / np.maximum(usual, tiny))
        return np.asarray(bits.sum(1), np.float32)
    return np.asarray(np.sort(answers - usual, axis=1)[:, -10:].mean(1), np.float32)


def _clipping(clipped: Mapping[str, float]) -> Check:
    worst = sorted(clipped, key=lambda name: -clipped[name])
    much = [name for name in worst if clipped[name] > CLIPPED]
    shown = ", ".join(f"{name} {clipped[name]:.2%}" for name in worst[:3])
    saw = f"{len(much)} of {len(clipped)} tensors clip more than {CLIPPED:.0%} of their values; most: {shown}"
    if not much:
        return Check("clipped", saw)
    return Check("clipped", saw, 'Set `ranges: {default: ..., "TENSOR": max}` for these, or calibrate on such pictures')
