"""What a board tells of itself: clocks, temperatures, power, memory and power mode, from `tegrastats`, sysfs and
`nvpmodel`. What a machine does not tell is absent; nothing is guessed.

The forms of tegrastats are those of JetPack 4 to 6 (tests/fixtures/tegrastats); sysfs as the Linux kernel documents it
(thermal, cpufreq, devfreq, hwmon/ina3221). Not yet tried on a board.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SYS = Path("/sys")
PROC = Path("/proc")
# The rails that add up to the whole module, in the order of trust; the first that is complete is taken.
WHOLE = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin has no rail for all
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier neither
)
COLDEST_C = -40.0  # a sensor that is switched off says -256
FIXED = {"pmic"}  # says the same at any time

RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
CORES = re.compile(r"\bCPU \[([^\]]*)\]")
CORE = re.compile(r"\d+%@(\d+)")
GPU = re.compile(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+)\]?)?")
MEMORY = re.compile(r"\bEMC_FREQ \d+%@(\d+)")
TEMPERATURE = re.compile(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b")
RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|/|$)")


@dataclass(frozen=True)
class Reading:
    """One look at the board; what it does not tell is empty."""

    mhz: dict[str, float] = field(default_factory=dict)  # clock: cpu (the fastest core), gpu, memory
    celsius: dict[str, float] = field(default_factory=dict)  # zone
    watts: dict[str, float] = field(default_factory=dict)  # rail
    load: dict[str, float] = field(default_factory=dict)  # 0 to 1: gpu
    ram_mib: float | None = None  # taken by all programs; on a Jetson the GPU's too

    @property
    def hottest(self) -> float | None:
        return max(self.celsius.values(), default=None)

    @property
    def power(self) -> float | None:
        """Of the whole module, W; None where its rails are not all there."""
        for rails in WHOLE:
            if all(rail in self.watts for rail in rails):
                return sum(self.watts[rail] for rail in rails)
        return None

    def __or__(self, other: Reading) -> Reading:
        """Both together; where both tell, `other`."""
        return Reading(
            {**self.mhz, **other.mhz},
            {**self.celsius, **other.celsius},
            {**self.watts, **other.watts},
            {**self.load, **other.load},
            self.ram_mib if other.ram_mib is None else other.ram_mib,
        )


def parse_tegrastats(line: str) -> Reading | None:
    """A line of tegrastats; None where it is none."""
    ram = RAM.search(line)
    if ram is None:
        return None
    mhz, load = {}, {}
    cores = CORES.search(line)
    if cores and (clocks := [float(clock) for clock in CORE.findall(cores[1])]):
        mhz["cpu"] = max(clocks)
    gpu = GPU.search(line)
    if gpu and gpu[1]:
        load["gpu"] = int(gpu[1]) / 100
    if gpu and gpu[2] and (clock := max(float(part) for part in gpu[2].split(",") if part)):
        mhz["gpu"] = clock  # 0: it is switched off
    if memory := MEMORY.search(line):
        mhz["memory"] = float(memory[1])
    celsius = {
        name.lower(): float(value)
        for name, value in TEMPERATURE.findall(line)
        if name.lower() not in FIXED and float(value) > COLDEST_C
    }
    after = line[gpu.end() if gpu else ram.end() :]  # before it stand RAM and SWAP, which look alike
    watts = {name: int(value) / 1000 for name, value in RAIL.findall(after) if name != "NC"}
    return Reading(mhz, celsius, watts, load, float(ram[1]))


def read_sysfs(sys: Path = SYS) -> Reading:
    """Clocks, temperatures and power as the kernel tells them."""
    mhz, celsius, watts = {}, {}, {}
    cpus = [_number(path) for path in sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]  # kHz
    if known := [value for value in cpus if value]:
        mhz["cpu"] = max(known) / 1e3
    for path in sys.glob("class/devfreq/*/cur_freq"):  # Hz
        if re.search(r"gpu|gv11b|ga10b|gp10b|gm20b", path.parent.name) and (value := _number(path)):
            mhz["gpu"] = value / 1e6
    for zone in sys.glob("class/thermal/thermal_zone*"):
        name, value = _text(zone / "type"), _number(zone / "temp")  # thousandths of a degree
        if name and value is not None and value / 1e3 > COLDEST_C:
            name = re.sub(r"[-_](therm(al)?)$", "", name.lower())
            if name not in FIXED:
                celsius[name] = value / 1e3
    for label in sys.glob("class/hwmon/hwmon*/in[1-3]_label"):
        number, rail = label.name[2], _text(label)
        volts, amps = _number(label.with_name(f"in{number}_input")), _number(label.with_name(f"curr{number}_input"))
        if rail and rail != "NC" and volts is not None and amps is not None:
            watts[rail] = volts * amps / 1e6  # mV, mA
    return Reading(mhz, celsius, watts)


def cpu_clock(proc: Path = PROC) -> Reading:
    """The fastest core by /proc/cpuinfo, which an x86 tells also where it has no cpufreq."""
    found = re.findall(r"(?m)^cpu MHz\s*: ([\d.]+)$", _text(proc / "cpuinfo") or "")
    return Reading({"cpu": max(map(float, found))}) if found else Reading()


def power_mode() -> str | None:
    """The name that `nvpmodel -q` tells; None off a Jetson, or where it may not be asked."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_power_mode(done.stdout)


def parse_power_mode(text: str) -> str | None:
    found = re.search(r"NV Power Mode: *(\S+)", text)
    return found[1] if found else None


def peak_mib(proc: Path = PROC) -> float | None:
    """The most memory that this process has had at once (VmHWM), MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", _text(proc / "self" / "status") or "")
    return round(int(found[1]) / 1024, 1) if found else None


def summary(readings: Iterable[Reading]) -> dict[str, Any]:
    """Least, mean and most of all that was read; JSON-able. Nothing read: an empty one."""
    told: dict[str, Any] = {}
    rows = list(readings)
    for kind in ("mhz", "celsius", "watts", "load"):
        names = dict.fromkeys(name for row in rows for name in getattr(row, kind))
        values = {name: [getattr(row, kind)[name] for row in rows if name in getattr(row, kind)] for name in names}
        if values:
            told[kind] = {name: _range(column) for name, column in values.items()}
    for key, column in (
        ("power_w", [row.power for row in rows]),
        ("hottest_c", [row.hottest for row in rows]),
        ("ram_mib", [row.ram_mib for row in rows]),
    ):
        if known := [value for value in column if value is not None]:
            told[key] = _range(known)
    return told


def _range(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "mean": round(sum(values) / len(values), 3),
        "max": round(max(values), 3),
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:  # a sensor that is switched off answers with an error
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
