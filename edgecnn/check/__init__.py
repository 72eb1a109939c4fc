"""Is the bundle as good as it must be? Accuracy before slimming, in FP32 and in INT8 on the same pictures, held against
gates."""

from __future__ import annotations

from edgecnn.backends import Backend, Precision, open_backend
from edgecnn.bundle import Bundle, sha256
from edgecnn.check.accuracy import measured
from edgecnn.check.before import unslimmed
from edgecnn.check.gates import UNSLIMMED, CheckReport, Gate, judge
from edgecnn.check.measured import Measured, history, read_baseline, write_baseline
from edgecnn.check.warned import with_warnings
from edgecnn.errors import InputError
from edgecnn.recipe import CheckSection
from edgecnn.run import RunSettings

__all__ = ["CheckReport", "Gate", "Measured", "check", "judge", "section_of"]


def check(
    bundle: Bundle, section: CheckSection | None = None, *, update: str = "", shipped: bool = False
) -> CheckReport:
    """Measure what the CPU runs, and apply the gates of `section` (the recipe's own unless given).

    `update`: why the figures are to be the baseline from now on. The other gates are applied then, and the baseline is
    written only if all of them are passed. `shipped`: leave out the network before slimming, and its gates.

    Missed gates raise nothing: look at `ok`. Raises InputError for data or a baseline that is not there, RecipeError
    for a gate on a figure that is not measured, BundleError and ModelError where the bundle does not run,
    MissingDependency where the network before slimming has a gate and torch is not installed.
    """
    section = section or section_of(bundle)
    if update and not section.baseline:
        raise InputError("there is no baseline to update", wanted="`check.baseline: FILE` in the recipe")
    earlier = history(section.baseline) if section.baseline and update else []
    baseline = read_baseline(section.baseline) if section.baseline and not update else None
    precisions: list[Precision] = ["fp32", "int8"] if bundle.has("int8_cpu") else ["fp32"]
    backends: dict[str, Backend] = {p: open_backend(bundle, p) for p in precisions}
    if not shipped and (before := unslimmed(bundle, asked=bool(section.max_slim_drop))):
        backends = {UNSLIMMED: before, **backends}
    settings = RunSettings.of(bundle)
    found = measured(bundle.require_model(), backends, section.data, settings)
    if section.scenarios:
        found = with_warnings(found, bundle, backends, section.scenarios, settings)
    data = section.data.model_dump(mode="json", exclude_none=True)
    report = CheckReport(bundle.name, data, found.samples, found.figures, tuple(judge(found, section, baseline)))
    if update and section.baseline and report.ok:
        model = sha256(bundle.file("int8_cpu" if "int8" in backends else "fp32"))
        write_baseline(section.baseline, bundle.name, data, model, found, earlier, update)
    return report


def section_of(bundle: Bundle) -> CheckSection:
    """`check:` of the recipe that the bundle was made by."""
    return CheckSection.model_validate(bundle.settings.get("check", {}))
