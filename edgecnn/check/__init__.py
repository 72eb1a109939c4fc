"""Is the bundle as good as it must be? Accuracy of FP32 and INT8 on the same pictures, held against gates."""

from __future__ import annotations

from edgecnn.bundle import Bundle, sha256
from edgecnn.check.accuracy import measure
from edgecnn.check.gates import CheckReport, Gate, judge
from edgecnn.check.measured import Measured, history, read_baseline, write_baseline
from edgecnn.errors import InputError
from edgecnn.recipe import CheckSection

__all__ = ["CheckReport", "Gate", "Measured", "check", "judge"]


def check(bundle: Bundle, section: CheckSection | None = None, *, update: str = "") -> CheckReport:
    """Measure what the CPU runs, FP32 and INT8, and apply the gates of `section` (the recipe's own unless given).

    `update`: why the figures are to be the baseline from now on. The other gates are applied then, and the baseline is
    written only if all of them are passed.

    Missed gates raise nothing: look at `ok`. Raises InputError for data or a baseline that is not there, RecipeError
    for a gate on a figure that is not measured, BundleError and ModelError where the bundle does not run.
    """
    section = section or CheckSection.model_validate(bundle.settings.get("check", {}))
    if update and not section.baseline:
        raise InputError("there is no baseline to update", wanted="`check.baseline: FILE` in the recipe")
    earlier = history(section.baseline) if section.baseline and update else []
    baseline = read_baseline(section.baseline) if section.baseline and not update else None
    ships = "int8_cpu" if bundle.has("int8_cpu") else "fp32"
    found = measure(bundle, section.data, ["fp32", "int8"] if ships == "int8_cpu" else ["fp32"])
    data = section.data.model_dump(mode="json", exclude_none=True)
    report = CheckReport(bundle.name, data, found.samples, found.figures, tuple(judge(found, section, baseline)))
    if update and section.baseline and report.ok:
        write_baseline(section.baseline, bundle.name, data, sha256(bundle.file(ships)), found, earlier, update)
    return report
