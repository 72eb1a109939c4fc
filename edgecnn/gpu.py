"""The CUDA devices that this machine can use, asked of the driver itself: no package of CUDA's is needed."""

from __future__ import annotations

import ctypes

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def sms() -> tuple[int, ...]:
    """Compute capability of each device, major * 10 + minor; empty where no driver or no device is here."""
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
