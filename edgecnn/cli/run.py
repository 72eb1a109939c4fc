"""Detect and track on what comes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.common import BundlePath, Json, Precision, Signed, app, show, trusted

if TYPE_CHECKING:
    from edgecnn.run import StreamEnd
    from edgecnn.run.stream import SinkName


@app.command()
def run(
    bundle: BundlePath,
    source: Annotated[
        list[str],
        typer.Option(
            help="FILE, FOLDER, sim:SEED, sim:SCENARIO:SEED, /dev/videoN, csi://N, rtsp://... or http://...; cameras "
            "take fields: '/dev/video0?width=1280&height=720&fps=30'. Given again: side by side, in one process."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For what the sinks write; runs/NAME-SOURCE, or runs/NAME/SOURCE of several."),
    ] = None,
    sink: Annotated[
        str, typer.Option(help="video,json,mot: an annotated video, events.jsonl, tracks.txt; some of them; or none.")
    ] = "video,json",
    every: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Detect in every k-th frame; the recipe's unless given.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            help="auto: the engine if it runs here, else INT8 or FP32, as suits the CPU; openvino: INT8 by OpenVINO."
        ),
    ] = Precision.auto,
    threads: Annotated[int, typer.Option(min=0, help="Of inference on a CPU; 0: every core but one.")] = 0,
    camera: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML or JSON: the camera's figures, as in docs/geometry.md.")
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON: thresholds other than the shipped, docs/warnings.md.")
    ] = None,
    second: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="A classifier, to name what the tracked boxes show.")
    ] = None,
    of: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="That --second looks at; may be given again; all unless.")
    ] = None,
    reid: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Embeds: objects are known again by their looks.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(metavar="MS", min=0.1, help="Frames that take longer are late: counted, and acted on."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Record what `edgecnn replay` needs to run the same again.")
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Show a page on 127.0.0.1:PORT; 0: any free port."),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(metavar="HOST", envvar="EDGECNN_MQTT_HOST", help="Send events to this broker (extra: mqtt)."),
    ] = None,
    mqtt_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, envvar="EDGECNN_MQTT_PORT", help="Of the broker.")
    ] = 1883,
    mqtt_topic: Annotated[
        str, typer.Option(metavar="TOPIC", envvar="EDGECNN_MQTT_TOPIC", help="Under which they are sent.")
    ] = "edgecnn",
    mqtt_user: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            envvar="EDGECNN_MQTT_USERNAME",
            help="At the broker; the password comes from EDGECNN_MQTT_PASSWORD alone.",
        ),
    ] = "",
    allow_gstreamer_string: Annotated[
        bool, typer.Option("--allow-gstreamer-string", help="Allow the source gst:PIPELINE, which runs as it stands.")
    ] = False,
    require_signature: Signed = None,
    as_json: Json = False,
) -> None:
    """Detect and track on videos, cameras, drives."""
    sinks = _sinks(sink)
    if of and second is None:
        raise typer.BadParameter("it says what --second looks at, which is missing", param_hint="--of")
    import os
    from contextlib import ExitStack, closing
    from dataclasses import asdict
    from functools import partial

    from edgecnn.adas import SceneSettings
    from edgecnn.cli.camera import read_camera
    from edgecnn.progress import note
    from edgecnn.run import Outputs, RunSettings, Setup, open_second, open_source, run_streams
    from edgecnn.run.mqtt import Mqtt, MqttSettings
    from edgecnn.run.preview import Preview
    from edgecnn.run.recorded import open_looks

    opened = trusted(bundle, require_signature)
    settings = RunSettings.of(
        opened, detect_every=every, precision=precision.value, threads=threads, deadline_ms=deadline
    )
    setup = Setup(
        read_camera(camera) if camera else None,
        SceneSettings.read(thresholds) if thresholds else None,
        partial(open_second, trusted(second, require_signature), opened, of or (), threads=threads) if second else None,
        partial(open_looks, trusted(reid, require_signature)) if reid else None,
    )
    broker = (
        MqttSettings(mqtt, mqtt_port, mqtt_topic, mqtt_user, os.environ.get("EDGECNN_MQTT_PASSWORD", ""))
        if mqtt is not None
        else None
    )
    streams = [open_source(text, gst_strings=allow_gstreamer_string) for text in source]
    names = _names([stream.name for stream in streams])
    several = len(streams) > 1
    root = Path("runs") / opened.name
    folders = [(out or root) / name if several else out or root.with_name(f"{opened.name}-{name}") for name in names]
    tapes = [record and (record / name if several else record) for name in names]
    with ExitStack() as stack:
        page = stack.enter_context(closing(Preview(preview))) if preview is not None else None
        client = stack.enter_context(closing(Mqtt(broker))) if broker else None
        if page:
            note(f"preview: {page.url}")
        ends = run_streams(
            opened,
            [
                (stream, Outputs(name, folder if sinks else None, tuple(sinks), page, client, tape))
                for stream, name, folder, tape in zip(streams, names, folders, tapes, strict=True)
            ],
            settings,
            setup,
        )
    if not several and ends[0].error is not None:
        raise ends[0].error
    summaries = [asdict(end.summary) for end in ends]
    show(as_json, (summaries if several else summaries[0], "\n".join(_line(end, several) for end in ends)))
    failed = [end.error for end in ends if end.error is not None]
    if failed:
        raise failed[0]


def _line(end: StreamEnd, several: bool) -> str:
    s = end.summary
    counted = (("dropped", s.dropped), ("late", s.late), ("invalid", s.invalid), ("reconnects", s.reconnects))
    modes = [f"{seconds:.1f} s {mode}" for mode, seconds in s.mode_seconds.items() if mode != "NORMAL" and seconds]
    words = [
        f"{s.frames} frames in {s.seconds:.1f} s ({s.fps:.1f}/s) with {s.role}; detector in {s.detector_frames}",
        f"{s.tracks} tracks, {s.cuts} cuts, {len(s.events)} events",
        *(f"{count} {what}" for what, count in counted if count),
        *modes,
    ]
    line = ", ".join(words)
    if s.names:
        line += "\nnamed: " + ", ".join(f"{name} {count}" for name, count in s.names.items())
    made = [str(path) for path in s.files.values() if isinstance(path, str)]
    failed = [f"failed: {end.error}"] if several and end.error else []
    return "\n".join([f"{s.source}: {line}" if several else line, *failed, *made])


def _names(sources: list[str]) -> list[str]:
    """A short name for each source, fit for a folder and a topic, no two alike."""
    import re

    names: list[str] = []
    for source in sources:
        name = re.sub(r"[^\w.-]+", "-", Path(source).stem).strip("-.") or "stream"
        taken = sum(name == other or re.fullmatch(rf"{re.escape(name)}-\d+", other) is not None for other in names)
        names.append(f"{name}-{taken + 1}" if taken else name)
    return names


def _sinks(text: str) -> list[SinkName]:
    names: dict[str, list[SinkName]] = {"video": ["video"], "json": ["events"], "mot": ["mot"], "none": []}
    if unknown := [name for name in text.split(",") if name not in names]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(names)}", param_hint="--sink")
    return [sink for name in text.split(",") for sink in names[name]]
