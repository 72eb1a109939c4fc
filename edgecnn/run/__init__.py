"""The board's side: frames from a source, through detector, tracker and scene analysis, into sinks."""

from edgecnn.run.loop import FrameResult, Pipeline, RunSettings
from edgecnn.run.runner import StreamEnd, run, run_streams
from edgecnn.run.second import SecondStage, open_second
from edgecnn.run.sources import Source, open_source
from edgecnn.run.stream import Outputs, Setup
from edgecnn.run.tally import RunSummary

__all__ = [
    "FrameResult",
    "Outputs",
    "Pipeline",
    "RunSettings",
    "RunSummary",
    "SecondStage",
    "Setup",
    "Source",
    "StreamEnd",
    "open_second",
    "open_source",
    "run",
    "run_streams",
]
