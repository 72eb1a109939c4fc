"""Fields of a camera's address, `/dev/video0?width=1280&height=720`: each is known, typed and within its range.

What is not checked here never reaches FFmpeg or GStreamer.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from edgecnn.errors import InputError

SIZE = {"width": range(16, 16385), "height": range(16, 16385), "fps": range(1, 1001)}
V4L2_FORMATS = ("mjpeg", "yuyv422", "nv12", "yuv420p", "uyvy422", "bgr24", "rgb24", "h264", "grey")
V4L2: Mapping[str, range | tuple[str, ...]] = {**SIZE, "format": V4L2_FORMATS}


def split_fields(text: str) -> tuple[str, str]:
    """An address and what stands behind its `?`."""
    address, _, given = text.partition("?")
    return address, given


def read_fields(text: str, given: str, known: Mapping[str, range | tuple[str, ...]]) -> dict[str, str]:
    """`a=1&b=x` as a dict. `known` holds the numbers or the words that each field takes.

    Raises InputError for a field that is unknown, given twice, empty, or not one of those.
    """
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(given, keep_blank_values=True, strict_parsing=bool(given))
    except ValueError as error:
        raise InputError(f"source {text}", wanted="fields as name=value, with & between them") from error
    for name, value in pairs:
        if name not in known:
            raise InputError(f"source {text} has a field '{name}'", wanted=f"one of {', '.join(known)}")
        if name in found:
            raise InputError(f"source {text} gives '{name}' twice", wanted="once")
        allowed = known[name]
        if isinstance(allowed, range):
            if not (value.isascii() and value.isdecimal() and int(value) in allowed):
                raise InputError(
                    f"source {text}, {name} '{value}'", wanted=f"a whole number, {allowed[0]} to {allowed[-1]}"
                )
            value = str(int(value))
        elif value not in allowed:
            raise InputError(f"source {text}, {name} '{value}'", wanted=f"one of {', '.join(allowed)}")
        found[name] = value
    if ("width" in found) != ("height" in found):
        raise InputError(f"source {text} gives one side of the picture", wanted="width and height, or neither")
    return found


def camera_options(text: str, given: str) -> dict[str, str]:
    """Fields of a V4L2 camera as FFmpeg's options for its v4l2 device."""
    found = read_fields(text, given, V4L2)
    options = {}
    if "width" in found:
        options["video_size"] = f"{found['width']}x{found['height']}"
    if "fps" in found:
        options["framerate"] = found["fps"]
    if "format" in found:
        options["input_format"] = {"grey": "gray"}.get(found["format"], found["format"])
    return options
