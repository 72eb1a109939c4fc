"""The board's side: frames from a source, through detector, tracker and scene analysis, into sinks."""

from edgecnn.run.loop import FrameResult, Pipeline, RunSettings
from edgecnn.run.runner import RunSummary, run
from edgecnn.run.second import SecondStage, open_second
from edgecnn.run.sources import Source, open_source

__all__ = [
    "FrameResult",
    "Pipeline",
    "RunSettings",
    "RunSummary",
    "SecondStage",
    "Source",
    "open_second",
    "open_source",
    "run",
]
