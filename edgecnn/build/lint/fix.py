"""`edgecnn lint --fix`: every repair that changes no answer beyond rounding, held against the network as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from edgecnn.build.lint import Finding, check_model
from edgecnn.build.lint.parity import EXACT_DB, ROUNDING_DB, STRIPPED_DB, Feeds, Parity, compare, random_feeds
from edgecnn.build.lint.repair_pairs import Repair, float_bias, in_float32, one_scale, outputs_first, symmetric
from edgecnn.build.lint.repair_placement import convert, fuse, pooled, skips, strip
from edgecnn.build.lint.target import Profile
from edgecnn.bundle import atomic
from edgecnn.errors import InputError, ModelError
from edgecnn.onnxfile import sweep


@dataclass(frozen=True)
class Fixed:
    """A repaired network and what is to be said about it."""

    model: ModelProto
    repairs: tuple[Repair, ...]
    remaining: tuple[Finding, ...]
    parity: Parity | None  # None: nothing was repaired


def fix(model: ModelProto, target: Profile, feeds: Sequence[Feeds] = ()) -> Fixed:
    """A repaired copy. Raises ModelError where its answers differ by more than rounding, or can't be compared."""
    result = ModelProto()
    result.CopyFrom(model)
    done = in_float32(result)
    stripped: list[Repair] = []
    if not target.int8 or target.sm75 or target.dla:
        stripped = strip(result, "dla-qdq" if target.dla else "sm75" if target.sm75 else "no-int8")
        done += stripped
    else:
        for repair in (float_bias, outputs_first, symmetric, one_scale, fuse, skips, pooled):
            done += repair(result)
            sweep(result)
    done += convert(result, target)
    sweep(result)
    if not done:
        return Fixed(result, (), tuple(check_model(model, target)), None)
    onnx.checker.check_model(result)
    wanted = STRIPPED_DB if stripped else EXACT_DB if all(repair.exact for repair in done) else ROUNDING_DB
    parity = compare(model, result, feeds or random_feeds(model), wanted)
    if not parity.ok:
        raise ModelError(
            f"the repaired network answers otherwise ({parity}), after {len(done)} repairs, the last {done[-1]}",
            do="Nothing was written; "
            + ("" if feeds else "compare them on pictures with --inputs, or ")
            + "quantise the float network with edgecnn",
        )
    return Fixed(result, tuple(done), tuple(check_model(result, target)), parity)


def write(fixed: Fixed, source: Path, out: Path) -> None:
    """Raises InputError where `out` is the network that came."""
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the network itself", wanted="another file to write to")
    with atomic(out) as temporary:
        temporary.write_bytes(fixed.model.SerializeToString(deterministic=True))
