"""Is the bundle as good as it must be? Accuracy of FP32 and INT8 on the same pictures, held against gates."""

from __future__ import annotations

from edgecnn.bundle import Bundle
from edgecnn.check.accuracy import measure
from edgecnn.check.gates import CheckReport, Gate, judge, read_baseline
from edgecnn.recipe import CheckSection

__all__ = ["CheckReport", "Gate", "check", "judge"]


def check(bundle: Bundle, section: CheckSection | None = None) -> CheckReport:
    """Measure what the CPU runs, FP32 and INT8, and apply the gates of `section` (the recipe's own unless given).

    Missed gates raise nothing: look at `ok`. Raises InputError for data or a baseline that is not there, RecipeError
    for a gate on a figure that is not measured, BundleError and ModelError where the bundle does not run.
    """
    section = section or CheckSection.model_validate(bundle.settings.get("check", {}))
    baseline = read_baseline(section.baseline) if section.baseline else {}
    figures, samples = measure(bundle, section.data, ["fp32", "int8"] if bundle.has("int8_cpu") else ["fp32"])
    gates = judge(figures, section, baseline)
    data = section.data.model_dump(mode="json", exclude_none=True)
    return CheckReport(bundle.name, data, samples, figures, tuple(gates))
