"""What the board tells: tegrastats of nine boards, a made-up sysfs, nvpmodel; and what is absent stays so."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from edgecnn.bench import sampler, sensors
from edgecnn.bench.sensors import Reading, cpu_clock, parse_power_mode, parse_tegrastats, peak_mib, read_sysfs, summary

FIXTURES = Path(__file__).parent / "fixtures" / "tegrastats"
# file -> clocks of cpu, gpu, memory; hottest °C; W of the module; GPU load; RAM MiB. Read off the lines by eye.
EXPECTED = {
    "nano-jp4": ({"cpu": 204, "gpu": 76, "memory": 204}, 39.5, 1.022, 0.0, 534),
    "tx2-jp4": ({"cpu": 345, "gpu": 624, "memory": 1600}, 37.5, 3.056, 0.0, 2344),
    "agx-xavier-jp4": ({"cpu": 1190, "gpu": 318, "memory": 665}, 40.0, 3.346, 0.0, 721),
    "xavier-nx-jp4": ({"cpu": 1267, "gpu": 306, "memory": 1600}, 43.5, 4.067, 0.62, 4412),
    "xavier-nx-jp5": ({"cpu": 1397, "gpu": 114, "memory": 204}, 46.5, 2.763, 0.0, 3168),
    "agx-orin-jp5": ({"cpu": 729, "memory": 2133}, 44.562, 6.755, 0.0, 4321),
    "orin-nx-jp5": ({"cpu": 729, "gpu": 611, "memory": 2133}, 48.875, 5.299, 0.0, 6334),
    "agx-orin-jp6": ({"cpu": 2201, "gpu": 305, "memory": 2133}, 53.062, 12.377, 0.0, 29114),
    "orin-nano-jp6": ({"cpu": 1497, "gpu": 305, "memory": 204}, 49.625, 5.251, 0.0, 1343),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_line_of_each_board(name: str) -> None:
    reading = parse_tegrastats((FIXTURES / f"{name}.txt").read_text("utf-8").splitlines()[0])
    assert reading is not None
    mhz, hottest, watts, load, ram = EXPECTED[name]
    assert reading.mhz == mhz and reading.hottest == hottest and reading.ram_mib == ram
    assert reading.power == pytest.approx(watts) and reading.load == {"gpu": load}
    assert "pmic" not in reading.celsius and min(reading.celsius.values()) > 0


def test_every_fixture_is_expected_and_what_is_no_line_is_none() -> None:
    assert {path.stem for path in FIXTURES.glob("*.txt")} == set(EXPECTED)
    assert parse_tegrastats("") is None and parse_tegrastats("tegrastats: not found") is None


def test_busy_beside_idle_in_the_summary() -> None:
    lines = (FIXTURES / "orin-nano-jp6.txt").read_text("utf-8").splitlines()
    told = summary(row for line in lines if (row := parse_tegrastats(line)))
    assert told["power_w"] == {"min": 5.251, "mean": 10.786, "max": 16.321}
    assert told["mhz"]["gpu"]["max"] == 612 and told["ram_mib"]["max"] == 6712
    assert summary([]) == {} and "power_w" not in summary([Reading(watts={"VDD_SOC": 1.0})])


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    files = {
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1420800",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1984000",
        "class/devfreq/17000000.ga10b/cur_freq": "1300500000",
        "class/devfreq/15340000.vic/cur_freq": "115200000",
        "class/thermal/thermal_zone0/type": "CPU-therm",
        "class/thermal/thermal_zone0/temp": "51500",
        "class/thermal/thermal_zone1/type": "cv0-thermal",
        "class/thermal/thermal_zone1/temp": "-256000",
        "class/thermal/thermal_zone2/type": "PMIC-Die",
        "class/hwmon/hwmon3/in1_label": "VDD_IN",
        "class/hwmon/hwmon3/in1_input": "5000",
        "class/hwmon/hwmon3/curr1_input": "1040",
        "class/hwmon/hwmon3/in2_label": "VDD_SOC",
    }
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", "utf-8")
    return tmp_path / "sys"


def test_sysfs(sys: Path, tmp_path: Path) -> None:
    reading = read_sysfs(sys)
    assert reading.mhz == {"cpu": 1984.0, "gpu": 1300.5}  # vic is no GPU
    assert reading.celsius == {"cpu": 51.5}  # one is switched off, one has no value
    assert reading.watts == {"VDD_IN": 5.2} and reading.power == 5.2
    assert read_sysfs(tmp_path / "none") == Reading()


def test_proc_and_power_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2596.130\ncpu MHz\t\t: 3100.5\n", "utf-8")
    assert cpu_clock(tmp_path) == Reading({"cpu": 3100.5}) and cpu_clock(tmp_path / "none") == Reading()
    assert parse_power_mode("NV Power Mode: MODE_15W_6CORE\n2\n") == "MODE_15W_6CORE"
    assert parse_power_mode("permission denied") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sensors.power_mode() is None
    executable(tmp_path / "nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    assert sensors.power_mode() == "MAXN"


def test_the_peak_counts_what_was_given_back() -> None:
    before = peak_mib()
    assert before
    block = b"x" * (int(before) + 64) * 2**20
    del block
    assert (peak_mib() or 0) >= before + 60


def test_the_sampler_reads_a_tegrastats_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (FIXTURES / "orin-nx-jp5.txt").read_text("utf-8").strip()
    executable(tmp_path / "tegrastats", f"echo '{line}'; exec sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    threads = threading.active_count()
    with sampler.Sampler(0.05) as found:
        until = time.monotonic() + 20
        while not any(reading.power for reading in found.readings) and time.monotonic() < until:
            time.sleep(0.02)
        tool = found._tool
    assert tool is not None and tool.poll() is not None and threading.active_count() == threads
    assert found.readings[-1].power == 5.299 and found.readings[-1].mhz["gpu"] == 611


def executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
