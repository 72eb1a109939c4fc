"""How the values of quantised tensors are spread, and where their ranges cut: the tensors that this costs most."""

from __future__ import annotations

import json

from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.report.html import section, table
from edgecnn.report.svg import histograms

WORST = 8  # tensors that are drawn


def ranges(bundle: Bundle) -> str:
    """A section; "" for a bundle that is not quantised. Raises BundleError where the file was changed."""
    if not bundle.has("histograms"):
        return ""
    path = bundle.file("histograms")
    try:
        found = json.loads(path.read_text("utf-8"))
        names = sorted(found, key=lambda name: float(found[name]["sqnr_db"]))
        drawn = {
            name: (found[name]["counts"], float(found[name]["reach"]), float(found[name]["amax"]))
            for name in names[:WORST]
        }
        figures = [(name, found[name]) for name in names]
        rows = [
            [name, f"{row['amax']:.4g}", f"{row['max']:.4g}", f"{row['clipped']:.3%}", f"{row['sqnr_db']:.1f}"]
            for name, row in figures
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not readable ({error!r})", do="Run it again: edgecnn quantize RECIPE") from error
    words = (
        f"Magnitudes in the {len(drawn)} of {len(names)} quantised tensors that rounding and clipping cost most, over "
        "the calibration pictures; counts on a logarithmic scale. The line is the range: what becomes level 127. dB: "
        "power of the tensor over power of its error."
    )
    whole = table(["tensor", "range", "largest", "clipped", "dB"], rows)
    plot = histograms(drawn, "Magnitudes and ranges")
    return section("Ranges", f"<p>{words}</p>{plot}<details><summary>All tensors</summary>{whole}</details>")
