"""What an engine is tied to: the network it was made from, one TensorRT, one GPU generation, and the builder's flags.

A board must know this before it loads an engine, and `edgecnn build` before it keeps one.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from edgecnn.errors import MissingDependency

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def tie(onnx: str, runtime: str, version: str, sm: int, flags: Sequence[str]) -> dict[str, Any]:
    """All that an engine depends on, for the manifest, and its hash: engines of one key are interchangeable.

    `onnx`: sha256 of the network; `runtime`: tensorrt or tensorrt_rtx.
    """
    parts = {"onnx": onnx, "runtime": runtime, "version": version, "sm": sm, "flags": list(flags)}
    return {"key": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16], **parts}


def misfit(tied: Mapping[str, Any], version: str, here: Sequence[int] = ()) -> str:
    """Why an engine does not fit a TensorRT of this version, or any of the GPUs `here`; "" if it does."""
    if not _loads(tied["version"], version, tied["flags"]):
        return f"it was built by {tied['runtime']} {tied['version']}, and {version} is here"
    if here and tied["sm"] not in here:
        return f"it was built for SM {tied['sm']}, and the GPU here is SM {here[0]}"
    return ""


def _loads(built: str, here: str, flags: Sequence[str]) -> bool:
    """Whether one version loads another's engine. 10.3.0 and 10.3.0.26 are one version, told in less detail."""
    old, new = ([int(part) for part in text.split(".") if part.isdecimal()] for text in (built, here))
    return all(a == b for a, b in zip(old, new, strict=False)) or ("VERSION_COMPATIBLE" in flags and new >= old)


def installed(runtime: str) -> str:
    """The version of TensorRT's binding here; "" where there is none. Raises MissingDependency for a broken one."""
    try:
        return metadata.version(runtime)
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec(runtime) is None:
            return ""
    try:
        return str(importlib.import_module(runtime).__version__)
    except ImportError as error:
        raise MissingDependency(f"{runtime} does not import ({error})", do="Look at `edgecnn doctor`") from error


def sms() -> tuple[int, ...]:
    """Compute capability of each CUDA device, major * 10 + minor, asked of the driver itself; empty where none is."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(10 * _ask(driver, MAJOR, device) + _ask(driver, MINOR, device) for device in range(count.value))


def _ask(driver: ctypes.CDLL, attribute: int, device: int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
