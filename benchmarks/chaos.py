"""Faults, what is promised, and what happened: `make chaos`. Markdown; exit code 1 if a promise was broken.

Everything runs as users run it, as processes, in a temporary folder: a small recipe is compiled and driven while the
machine does its worst. Moments are drawn with a fixed seed, but how far a process is at such a moment is the machine's.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av

from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError
from edgecnn.progress import note

RECIPE = """\
name: chaos
model: {arch: roadnet, weights: shipped, height: 96, width: 160}
quantize: {data: {kind: sim, seed: 1, pictures: 8}}
build: null
"""
MIB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    fault: str
    promise: str
    happened: str
    kept: bool


class Bench:
    """A folder, and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "chaos.yaml"
        self.recipe.write_text(RECIPE, "utf-8")

    def start(self, *words: object, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgecnn", *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=pipe, preexec_fn=limit)

    def compile(self, out: Path, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        return self.start("compile", self.recipe, "--out", out, limit=limit)

    def drive(self, bundle: Path, out: Path) -> subprocess.Popen[str]:
        return self.start("run", bundle, "--source", "sim:7", "--out", out, "--precision", "fp32", "--threads", 1)


def whole(folder: Path) -> bool:
    """Whether a bundle, if there is one, has all the files that it names, byte for byte."""
    try:
        bundle = Bundle.read(folder)
    except BundleError:
        return not (folder / "manifest.json").exists()  # no manifest yet: nothing is promised to be there
    return all(bundle.intact(stage) for stage in bundle.stages)


def hashes(folder: Path) -> dict[str, str]:
    return {role: digest for s in Bundle.read(folder).stages.values() for role, (_, digest) in s.files.items()}


def frames_of(video: Path) -> int:
    with av.open(str(video), format="mp4") as container:
        return sum(1 for _ in container.decode(video=0))


def told(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and last line of a process that ends by itself."""
    _, text = process.communicate(timeout=600)
    return process.returncode, (text.strip().splitlines() or [""])[-1]


def killed_compiles(bench: Bench, good: Path, times: int) -> Outcome:
    rng, folder, broken = random.Random(0), bench.folder / "killed", 0
    began = time.perf_counter()
    told(bench.compile(bench.folder / "timed"))
    lasts = time.perf_counter() - began
    for i in range(times):
        if i % 10 == 0:  # anew, so that early stages are hit too
            subprocess.run(["rm", "-rf", str(folder)], check=True)
        process = bench.compile(folder)
        time.sleep(rng.uniform(0, lasts))
        process.kill()
        process.communicate()
        broken += folder.exists() and not whole(folder)
    code, line = told(bench.compile(folder))
    same = code == 0 and hashes(folder) == hashes(good)
    left = [path.name for path in folder.glob(".*") if path.name != ".lock"] if folder.exists() else []
    return Outcome(
        f"`kill -9` at {times} random moments of a compile",
        "what the manifest names is whole at any moment; the next compile ends with the same bytes",
        f"{broken} times not whole; then exit code {code}, {'the same bytes' if same else 'OTHER bytes: ' + line}; "
        f"{len(left)} temporary files left behind",
        broken == 0 and same,
    )


def two_compiles(bench: Bench, good: Path) -> Outcome:
    folder = bench.folder / "twice"
    both = [bench.compile(folder), bench.compile(folder)]
    ends = sorted(told(process) for process in both)
    kept = [code for code, _ in ends] == [0, 5] and hashes(folder) == hashes(good)
    return Outcome(
        "two compiles into one folder at once",
        "one is made, the other refused in one line",
        f"exit codes {[code for code, _ in ends]}; “{ends[1][1]}”",
        kept,
    )


def starved(bench: Bench, good: Path, name: str, fault: str, limit: Callable[[], None]) -> Outcome:
    """A compile under a limit of the kernel's, and one without it after that. 1 would be a failure nobody foresaw."""
    folder = bench.folder / name
    code, line = told(bench.compile(folder, limit))
    sound = not folder.exists() or whole(folder)
    again, _ = told(bench.compile(folder))
    said = code not in (0, 1) or "not enough memory" in line
    return Outcome(
        fault,
        "one line; the bundle stays whole; without the limit the next compile ends well",
        f"exit code {code}, “{line[:120]}”; then {again}",
        said and sound and again == 0 and hashes(folder) == hashes(good),
    )


def small_disk() -> None:
    """Writes fail as on a full disk, without one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write() then fails with an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 4, MIB // 4))


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1536 * MIB, 1536 * MIB))


def recorded(folder: Path) -> Iterator[Path]:
    """The video that is being written, once two fragments or so of it are on the disk."""
    return (path for path in folder.glob(".annotated.mp4.part") if path.stat().st_size > 500_000)


def stopped_recording(bench: Bench, good: Path, how: signal.Signals) -> Outcome:
    folder = bench.folder / f"drive{how.value}"
    process = bench.drive(good, folder)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and not any(recorded(folder)):
        time.sleep(0.02)
    running = process.poll() is None
    process.send_signal(how)
    process.communicate(timeout=60)
    count = max((frames_of(video) for video in folder.glob("*annotated.mp4*")), default=0)
    texts = [path.read_text("utf-8") for path in folder.glob("*events.jsonl*")]
    lines = [line for text in texts for line in text.splitlines()[:-1]]
    sound = all(isinstance(json.loads(line), dict) for line in lines)
    return Outcome(
        f"{how.name} while a drive is recorded",
        "the video plays up to about then; every line of events but the last is JSON",
        f"exit code {process.returncode}; {count} of 250 frames play; {len(lines)} lines read",
        running and count > 10 and sound and len(lines) > 10,
    )


def paused(bench: Bench, good: Path) -> Outcome:
    folder = bench.folder / "paused"
    process = bench.drive(good, folder)
    time.sleep(3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    process.send_signal(signal.SIGCONT)
    code, _ = told(process)
    frames = json.loads((folder / "summary.json").read_text("utf-8"))["frames"] if code == 0 else 0
    return Outcome(
        "SIGSTOP for 5 s, then SIGCONT, while driving",
        "it goes on; no frame of a file is lost",
        f"exit code {code}, {frames} of 250 frames",
        code == 0 and frames == 250,
    )


def trials(bench: Bench, good: Path, kills: int) -> Iterator[Outcome]:
    yield killed_compiles(bench, good, kills)
    yield two_compiles(bench, good)
    yield starved(bench, good, "small", "a disk on which files end at 256 KiB", small_disk)
    yield starved(bench, good, "memory", "1.5 GiB of address space for a compile", little_memory)
    yield stopped_recording(bench, good, signal.SIGTERM)
    yield stopped_recording(bench, good, signal.SIGKILL)
    yield paused(bench, good)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    args = parser.parse_args()
    broken = 0
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch))
        good = bench.folder / "good"
        code, line = told(bench.compile(good))
        if code:
            sys.exit(f"the recipe does not compile undisturbed: {line}")
        print("| fault | promise | what happened | kept |\n|---|---|---|---|")
        for outcome in trials(bench, good, args.kills):
            broken += not outcome.kept
            happened = outcome.happened.replace(scratch, "DIR").replace("|", "/")
            print(
                f"| {outcome.fault} | {outcome.promise} | {happened} | {'yes' if outcome.kept else '**no**'} |",
                flush=True,
            )
            note(outcome.fault)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
