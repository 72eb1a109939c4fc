"""A camera's figures from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.errors import InputError

if TYPE_CHECKING:
    from edgecnn.adas import Camera


def read_camera(path: Path) -> Camera:
    """From YAML or JSON, which is YAML as well. Raises InputError, one line, for what is missing, unknown or absurd."""
    import yaml

    from edgecnn.adas import Camera

    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"no camera file at {path} ({error.strerror})", wanted="a YAML or JSON file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0]
        raise InputError(
            f"{path.name} is neither YAML nor JSON ({line})", wanted="keys as in docs/geometry.md"
        ) from None
    return Camera.from_json(data, path.name)
