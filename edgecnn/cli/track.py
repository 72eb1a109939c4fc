"""Recorded detections into tracks."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecnn.cli.common import Json, app, columns, show


class Method(str, Enum):
    """How detections are associated: the names of edgecnn.track.METHODS."""

    bytetrack = "bytetrack"
    sort = "sort"
    ocsort = "ocsort"


class Camera(str, Enum):
    """What the recording was made with."""

    fixed = "fixed"
    moving = "moving"


SHARES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
FPS = {"mot": 25.0, "kitti": 10.0}  # where neither --fps nor a seqinfo.ini says it


@app.command()
def track(
    detections: Annotated[
        Path, typer.Argument(metavar="DET.txt", help="MOTChallenge (det.txt), KITTI tracking or AB3DMOT's format.")
    ],
    out: Annotated[Path, typer.Option(metavar="TRACKS.txt", help="Written in the format of the detections.")],
    method: Annotated[Method, typer.Option(help="How detections are associated.")] = Method.bytetrack,
    fps: Annotated[
        float | None, typer.Option(min=0.1, help="Frames a second; from seqinfo.ini, else 25 (MOT) or 10 (KITTI).")
    ] = None,
    camera: Annotated[
        Camera | None, typer.Option(help="Boxes change faster before a moving one; KITTI's moves, MOT's does not.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="GT.txt", help="Print HOTA, MOTA and IDF1 against gt.txt or label_02.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(metavar="FILE", help="What was detected in: the camera's own motion is taken off.")
    ] = None,
    reid: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Embeds; with --video: objects are known again by their looks."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Number the objects of recorded detections."""
    if reid and not video:
        raise typer.BadParameter("looks are in pictures: give --video as well", param_hint="--reid")
    from edgecnn.data.recorded import read_detections, read_truth, write_tracks
    from edgecnn.track import METHODS, MOVING
    from edgecnn.track.offline import follow

    recording = read_detections(detections)
    rate = fps or _rate(detections) or FPS[recording.format]
    true = None if truth is None else read_truth(truth, recording)
    frames = list(recording.frames)
    frames += [frames[0][:0]] * (0 if true is None else len(true) - len(frames))
    moving = recording.format == "kitti" if camera is None else camera is Camera.moving
    settings = METHODS[method.value]
    settings = replace(settings, noise=MOVING) if moving else settings
    crops = 0
    if video:
        from edgecnn.bundle import Bundle
        from edgecnn.run import open_source
        from edgecnn.run.recorded import follow_video, open_looks

        looks = open_looks(Bundle.read(reid)) if reid else None
        tracks = follow_video(frames, open_source(video), settings, rate, looks)
        crops = looks.crops if looks else 0
    else:
        tracks = follow(frames, settings, rate)
    write_tracks(out, tracks, recording)
    ids = {int(i) for frame in tracks for i in frame.id}
    data: dict[str, Any] = {"frames": len(frames), "fps": rate, "method": method.value, "tracks": len(ids), "out": out}
    text = f"{len(ids)} tracks in {len(frames)} frames at {rate:g} fps: {out}"
    if reid:
        data["crops"] = crops
        text += f"\n{crops / len(frames):.1f} crops a frame looked at"
    if true is not None:
        from edgecnn.metrics.tracking import evaluate_tracks

        figures = evaluate_tracks([zip(tracks, true, strict=True)])
        data["figures"] = figures
        row = [*(f"{100 * figures[key]:.1f}" for key in SHARES), f"{figures['switches']:.0f}"]
        text += "\n" + columns([(*SHARES, "switches"), row])
    show(as_json, (data, text))


def _rate(path: Path) -> float | None:
    """Frames a second by the seqinfo.ini beside the file or its folder."""
    from edgecnn.data.mot import read_seqinfo

    for folder in (path.parent, path.parent.parent):
        if (folder / "seqinfo.ini").is_file():
            return read_seqinfo(folder).fps
    return None
