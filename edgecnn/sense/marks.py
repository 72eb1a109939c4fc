"""What the network is worth with any set of its units in float: each evaluation is made once, and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from edgecnn.bundle import Bundle, sha256
from edgecnn.errors import BundleError, ModelError
from edgecnn.memo import Memo
from edgecnn.progress import Advance
from edgecnn.quantize.correct import measure
from edgecnn.quantize.graph import load
from edgecnn.quantize.insert import plan
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import DataSection
from edgecnn.report.sense import FOLDER
from edgecnn.run.loop import RunSettings
from edgecnn.sense.exam import Exam
from edgecnn.sense.network import Names, Network
from edgecnn.sense.prefixes import ROOM, Prefixes, Values
from edgecnn.sense.search import Mark

VERSION = 1  # raised when the same bundle and pictures would give other figures
TOLD = 16  # pictures on which each kernel's own rounding is measured


class Marks:
    """Marks of sets of units in float: from the memo, or evaluated now."""

    def __init__(self, exam: Exam, network: Network, prefixes: Prefixes, bundle: Bundle, memo: Memo) -> None:
        self.exam, self.network, self.prefixes, self.bundle, self.memo = exam, network, prefixes, bundle, memo
        self.seen: dict[Names, Mark] = {}
        self.made = 0
        self.advance: Advance = lambda _n, _text="": None

    @classmethod
    def open(cls, bundle: Bundle, data: DataSection, pictures: int, room: int = ROOM) -> Marks:
        """On at most so many pictures of `data`; `room`: bytes of activations to keep.

        Raises BundleError where the bundle is not quantised, and as `Exam.open`.
        """
        model, files = bundle.require_model(), [bundle.file(role) for role in ("int8", "fp32", "ranges")]
        exam = Exam.open(model, data, pictures, RunSettings.of(bundle).iou)
        network = Network(load(files[0]), _correction(json.loads(files[2].read_text("utf-8"))), exam.inputs[0])
        key = hashlib.sha256(json.dumps([VERSION, *map(sha256, files), exam.digest()]).encode()).hexdigest()
        memo = Memo.open(bundle.path / FOLDER / "evaluations.json", key)
        return cls(exam, network, Prefixes(network, exam.inputs, room), bundle, memo)

    def __call__(self, floats: Names) -> Mark:
        if floats not in self.seen:
            name = json.dumps(self.network.ordered(floats))
            self.made += name not in self.memo.values
            self.seen[floats] = Mark(**self.memo.get(name, lambda: self._mark(self.prefixes.run(floats))))
            self.advance(1)
        return self.seen[floats]

    def whole(self) -> Mark:
        """FP32's, of the bundle's own file. Raises ModelError where it finds nothing: nothing could be lost."""
        mark = Mark(**self.memo.get("fp32", lambda: self._mark(self._answers)))
        if not mark.metric > 0:
            raise ModelError(
                f"{self.exam.metric} of the FP32 network is {mark.metric:g} on these pictures",
                wanted="more than 0: what finds nothing can lose nothing",
                do="Name other data under `check:` in the recipe, or raise --pictures",
            )
        return mark

    def sqnr(self) -> dict[str, float]:
        """Unit → dB of its output over its own rounding noise, its input exact."""

        def find() -> dict[str, float]:
            model = self.network.model
            chosen = plan(model, self.network.floats)
            rounding = measure(model, chosen, self.network.scale, self.exam.inputs[:TOLD])
            return {name: round(rounding[name].sqnr_db, 2) for name in chosen.kernels}

        return dict(self.memo.get("sqnr", find))

    def points(self, chosen: Names) -> dict[str, list[tuple[float, float]]]:
        """(share of multiply-adds in float, metric) of all that was evaluated, by kind."""
        kinds: dict[str, list[tuple[float, float]]] = {"one unit in float or INT8": [], "searched": [], "chosen": []}
        every = len(self.network.units)
        for names, mark in self.seen.items():
            ends = len(names) in (0, 1, every - 1, every)
            kind = "chosen" if names == chosen else "one unit in float or INT8" if ends else "searched"
            kinds[kind].append((self.network.share(names), mark.metric))
        return kinds

    @cached_property
    def _answers(self) -> Values:
        session = tapped(load(self.bundle.file("fp32")), ())
        names, feed = self.prefixes.outputs, session.get_inputs()[0].name
        return [dict(zip(names, session.run(names, {feed: x}), strict=True)) for x in self.exam.inputs]

    def _mark(self, answers: Values) -> dict[str, float]:
        return {"metric": self.exam.score(answers), "divergence": self.exam.divergence(self._answers, answers)}


def _correction(ranges: Mapping[str, Any]) -> dict[str, list[float]]:
    if "bias_correction" not in ranges:
        raise BundleError(
            "the bundle was quantised by an earlier edgecnn, which did not write down the corrections of biases",
            do="Run: edgecnn quantize RECIPE",
        )
    return dict(ranges["bias_correction"])
