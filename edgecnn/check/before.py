"""The network as it was before slimming, on the CPU, to be measured beside what became of it."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from edgecnn.backends import Backend, TwoSizes
from edgecnn.bundle import Bundle
from edgecnn.errors import MissingDependency, ModelError
from edgecnn.progress import note


def unslimmed(bundle: Bundle, *, asked: bool) -> Backend | None:
    """None where nothing was slimmed; where `asked` is false, also where it can't be shown, and a note says why.

    Raises MissingDependency without torch, ModelError where slimming changed the classes or the input.
    """
    if "slim" not in bundle.stages:
        return None
    try:
        return _opened(bundle)
    except (MissingDependency, ModelError) as error:
        if asked:
            raise
        note(f"Not measured before slimming: {error}")
        return None


def _opened(bundle: Bundle) -> Backend:
    if importlib.util.find_spec("torch") is None:
        raise MissingDependency(
            "torch is not installed, and the network before slimming is one of torch",
            do="Run: pip install 'edgecnn[desk]'; or on a board: edgecnn check --shipped",
        )
    from edgecnn.backends.ort import OnnxRuntime
    from edgecnn.export import before_slimming

    model = bundle.require_model()
    with tempfile.TemporaryDirectory() as folder:
        frame, *regions = before_slimming(bundle, Path(folder))
        if not regions:
            return OnnxRuntime(frame, model)
        return TwoSizes(model, OnnxRuntime(frame, model), OnnxRuntime(regions[0], model.at_regions))
