"""False alarms in hours of benign driving, without pictures: `python benchmarks/false_alarms.py --hours 10`.

Simulated traffic on motorways, country roads and in towns; everybody, and we, by the Intelligent Driver Model. The
true boxes, disturbed as benchmarks/detector_noise.py found roadnet's to be, go through the tracker and the scene
analysis in each of 25 frames a second, as the loop's windows see to what stands in our path. Our lane's course is given
as it is.

A forward-collision or pedestrian alarm is false where its object was no danger from 1 s before to 2 s after: less than
5 s from us at the closing speed of a moment, and within 0.5 m of our path then or on arrival. A headway alarm is false
where the true headway was above 0.9 s. `--scenarios N` plays the scenario tests N times each in the same way.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas import Camera, Lane, SceneAnalysis
from edgecnn.check.scenarios import Alert, judge_trial
from edgecnn.data.classes import PERSON
from edgecnn.data.scenario import Scenario, find_scenario, names
from edgecnn.data.simulator import camera as lens
from edgecnn.data.simulator.drive import shake
from edgecnn.data.simulator.paint import Thing
from edgecnn.data.simulator.road import make_layout
from edgecnn.data.simulator.staged import Stage, departing, layout_of, profile_of
from edgecnn.data.simulator.still import make_profile
from edgecnn.data.simulator.traffic import CAMERA_TO_BUMPER, EGO_WIDTH, Snapshot, World, drift, random_traffic
from edgecnn.progress import bar, columns
from edgecnn.scene import Detections, Tracks
from edgecnn.track import Settings, Tracker
from edgecnn.track.assign import intersection, iou
from edgecnn.track.flow import Growth
from edgecnn.track.motion import MOVING

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FPS, SCORE = 25.0, 0.3  # of the loop: recipes/adas.yaml
WIDTH, HEIGHT = 640, 384
DRIVE_S = 30.0
LANE_M = 35.0  # how far ahead our lane is taken to be seen
DANGER_S, ASIDE_M, BEFORE_S, AFTER_S, HEADWAY_S = 5.0, 0.5, 1.0, 2.0, 0.9


@dataclass(frozen=True)
class Noise:
    """How the loop's detections err: roadnet INT8 on 640 x 384 px, measured by benchmarks/detector_noise.py."""

    share: float = 0.037  # deviation of a side of a box, share of its size, at a score of 0.9 ...
    doubt: float = 1.9  # ... and times exp(this × (0.9 - score)) ...
    least_px: float = 0.7  # ... and at least this
    fresh: float = 0.5  # share of the variance that is new in each detection ...
    memory_s: float = 0.2  # ... the rest dies away with exp(-t / memory)
    bias_px: float = 1.2  # deviation of a side's own error, that stays: hypot(this, share × size)
    bias: float = 0.022
    # by height in px: boxes too wide and tall by so many px, and the mean score
    heights: tuple[float, ...] = (8, 11, 17, 25, 40, 70, 400)
    excess: tuple[float, ...] = (0.8, 0.8, 1.2, 0.6, 0.3, 0.6, 1.0)
    score: tuple[float, ...] = (0.0, 0.13, 0.3, 0.48, 0.5, 0.53, 0.55)
    # by size in px, of the growth from one frame to the next: its deviation; a person's is so many times as large
    sizes: tuple[float, ...] = (10, 13, 20, 32, 60, 400)
    growth: tuple[float, ...] = (0.02, 0.012, 0.008, 0.004, 0.003, 0.004)
    person: float = 2.5
    wild: float = 0.1  # share of measurements that are three times as bad
    least_side_px: float = 10.7  # of a box that flow can follow
    unsure: float = 0.25  # deviation of the score ...
    moods_s: float = 1.0  # ... which lasts
    ghosts_s: float = 0.6  # boxes on nobody that begin in a second: trees, signs, and the like
    ghost_s: float = 0.25  # how long one lasts


@dataclass
class Ghost:
    """A box on nobody: something beside or on the road that is no road user."""

    born: float
    end: float
    box: F64  # when it was born, px
    distance: float  # m, then
    label: int


class Detector:
    """Boxes with errors that last: each object has its own, which fade (Ornstein-Uhlenbeck processes)."""

    def __init__(self, noise: Noise, rng: np.random.Generator, camera: lens.Camera) -> None:
        self._noise, self._rng, self._camera = noise, rng, camera
        self._errors: dict[int, F64] = {}  # object → bias of 4 sides, passing errors of 4 sides and the score
        self._ghosts: list[Ghost] = []

    def __call__(self, ids: I64, xyxy: F64, label: I64, hidden: F64, t: float, dt: float, speed: float) -> Detections:
        """What is found of the objects `ids` (N,) at time `t`, `dt` after the last call; `speed` is our own."""
        n, rng = self._noise, self._rng
        fresh = rng.normal(size=(len(ids), 9))
        last = np.array([self._errors.get(i, e) for i, e in zip(ids.tolist(), fresh, strict=True)]).reshape(-1, 9)
        kept = np.exp(-dt / np.array([math.inf] * 4 + [n.memory_s] * 4 + [n.moods_s]))
        last = kept * last + np.sqrt(1 - kept * kept) * fresh
        self._errors.update(zip(ids.tolist(), last, strict=True))
        side = xyxy[:, 2:] - xyxy[:, :2]
        score = np.interp(side[:, 1], n.heights, n.score) + n.unsure * last[:, 8] - 0.5 * hidden
        size = np.sqrt(side.prod(axis=1))
        passing = np.maximum(n.least_px, n.share * size * np.exp(n.doubt * (0.9 - np.clip(score, 0.1, 0.9))))
        moving = math.sqrt(1 - n.fresh) * last[:, 4:8] + math.sqrt(n.fresh) * rng.normal(size=(len(ids), 4))
        sides = passing[:, None] * moving + np.hypot(n.bias_px, n.bias * size)[:, None] * last[:, :4]
        seen = (score > SCORE / 3) & (hidden < 0.6)
        grown = np.interp(side[:, 1], n.heights, n.excess)[:, None] * (-0.5, -0.5, 0.5, 0.5)
        ghosts = self._haunt(t, dt, speed)
        boxes = np.concatenate([(xyxy + sides + grown)[seen], np.array([box for box, _ in ghosts]).reshape(-1, 4)])
        score = np.concatenate([np.minimum(score[seen], 0.95), np.full(len(ghosts), 0.45)])
        label = np.concatenate([label[seen], np.array([label for _, label in ghosts], np.int64)])
        boxes = np.clip(boxes, 0, (WIDTH, HEIGHT) * 2)
        whole = (boxes[:, 2:] - boxes[:, :2] > 2).all(1)
        return Detections(boxes.astype(np.float32), score.astype(np.float32), label)[whole]

    def _haunt(self, t: float, dt: float, speed: float) -> list[tuple[F64, int]]:
        """Boxes of what stands still: they grow as we come nearer."""
        rng, n, cam = self._rng, self._noise, self._camera
        horizon = cam.cy - cam.fy * math.tan(cam.pitch_rad)
        self._ghosts = [ghost for ghost in self._ghosts if ghost.end > t]
        if rng.uniform() < n.ghosts_s * dt:
            wide, tall = rng.uniform(10, 60, 2)
            x, down = rng.uniform(0, WIDTH - wide), rng.uniform(6, 0.3 * HEIGHT)
            box = np.array([x, horizon + down - tall, x + wide, horizon + down])
            distance = cam.fy * cam.height_m / down
            self._ghosts.append(Ghost(t, t + rng.exponential(n.ghost_s), box, distance, int(rng.integers(4))))
        centre = np.array([cam.cx, horizon] * 2)
        found = []
        for g in self._ghosts:
            scale = g.distance / max(g.distance - speed * (t - g.born), 2.0)
            found.append((centre + (g.box - centre) * scale + rng.normal(0, n.bias_px, 4), g.label))
        return found


class Flow:
    """What optical flow tells of each track's growth: that of the thing under its box, disturbed."""

    def __init__(self, noise: Noise, rng: np.random.Generator) -> None:
        self._noise, self._rng = noise, rng
        self._before: dict[int, float] = {}  # thing → distance, m

    def __call__(self, tracks: Tracks, things: list[Thing], boxes: F64, snap: Snapshot) -> Growth:
        n, rng = self._noise, self._rng
        overlap = iou(tracks.xyxy, boxes)
        whose = overlap.argmax(1) if overlap.size else np.zeros(len(tracks), int)
        now = {thing.id: thing.near() - snap.s for thing in things}
        grown = [
            math.log(self._before[things[k].id] / now[things[k].id])
            if overlap.size and overlap[i, k] > 0.3 and things[k].id in self._before
            else math.nan
            for i, k in enumerate(whose.tolist())
        ]
        self._before = now
        side = np.maximum(tracks.xyxy[:, 2:] - tracks.xyxy[:, :2], 1.0)
        sigma = np.interp(np.sqrt(side.prod(1)), n.sizes, n.growth) * np.where(tracks.label == PERSON, n.person, 1.0)
        error = sigma * rng.normal(size=len(tracks)) * np.where(rng.uniform(size=len(tracks)) < n.wild, 3.0, 1.0)
        log = np.where(side.min(1) >= n.least_side_px, np.array(grown) + error, np.nan)
        return Growth(tracks.id, log.astype(np.float32), sigma.astype(np.float32))


def true_boxes(view: lens.View, things: tuple[Thing, ...]) -> tuple[list[Thing], F64, F64]:
    """Those in sight, their boxes (N, 4) px, clipped, and the shares (N,) that nearer ones hide. They are cuboids."""
    cam = view.camera
    ahead = [t for t in things if 2.0 < t.near() - view.s < 130.0]
    if not ahead:
        return [], np.zeros((0, 4)), np.zeros(0)
    ahead.sort(key=lambda t: t.s)
    s, d, yaw, long, wide, high = np.array(
        [(t.s, t.d, t.yaw, t.model.length, t.model.width, t.model.height) for t in ahead]
    ).T
    angle = yaw + view.profile.heading(view.s, s - view.s) - view.yaw
    unit = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)])
    local = unit * np.stack((long, wide, high), 1)[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = np.stack(
        (local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos, local[..., 2]), -1
    )
    axes = view.camera_axes((turned + view.place(s, d)[:, None]).reshape(-1, 3))
    axes[:, 0] = np.maximum(axes[:, 0], 0.5)
    corners = view.pixels(axes).reshape(-1, 8, 2)
    boxes = np.clip(np.concatenate([corners.min(1), corners.max(1)], 1), 0, (cam.width, cam.height) * 2)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1.0)
    hidden = (np.tril(intersection(boxes, boxes), -1) / area[:, None]).max(1)
    kept = (boxes[:, 2:] - boxes[:, :2] > (3, 8)).all(1)
    return [t for t, k in zip(ahead, kept, strict=True) if k], boxes[kept], hidden[kept]


@dataclass
class Moment:
    """What was true of one object at one time."""

    t: float
    ttc_s: float
    aside_m: float  # between its side and our path's, now or on arrival; negative = in our path


def moment(thing: Thing, snap: Snapshot, t: float, sideways: float) -> Moment:
    gap = thing.near() - snap.s - CAMERA_TO_BUMPER
    closing = snap.speed - thing.speed
    ttc = max(gap, 0.0) / closing if closing > 0.1 else math.inf
    wide = abs(math.cos(thing.yaw)) * thing.model.width + abs(math.sin(thing.yaw)) * thing.model.length
    room = 0.5 * (wide + EGO_WIDTH)
    then = thing.d + sideways * min(ttc, 5.0)
    return Moment(t, ttc, min(abs(thing.d - snap.d), abs(then - snap.d)) - room)


@dataclass
class Alarm:
    kind: str
    t: float
    object: int  # id of the object; 0 = nobody
    ttc_s: float  # as estimated
    headway_s: float  # true
    gap_m: float  # true


class Logic:
    """Tracker and scene analysis on one drive's disturbed truth."""

    def __init__(
        self,
        world: World | Stage,
        profile: lens.Profile,
        camera: lens.Camera,
        seed: int,
        wander_m: float,
        seconds: float,
    ) -> None:
        self.world, self._profile, self._camera, self._seed = world, profile, camera, seed
        rng = np.random.default_rng((seed, 5))
        self._detector = Detector(Noise(), rng, camera)
        self.times = np.arange(0, seconds + 0.5 / FPS, 1 / FPS)
        self.wander, self.yaw = drift(rng, self.times, world.ego.speed, wander_m)
        self._shake = shake(rng, self.times)
        self._tracker = Tracker(Settings(high=SCORE, low=SCORE / 3, birth=SCORE, noise=MOVING), FPS)
        known = Camera(
            camera.fx, camera.fy, camera.cx, camera.cy, camera.height_m, camera.pitch_rad, bumper_m=CAMERA_TO_BUMPER
        )
        self._analysis = SceneAnalysis(None, known, (WIDTH, HEIGHT))

    def _lane(self, view: lens.View) -> Lane:
        """The course of our lane, as it is."""
        bend = self._profile.curvature(view.s)
        return Lane(math.nan, math.nan, -math.tan(view.yaw), bend, LANE_M)

    def __iter__(self) -> Iterator[tuple[float, Snapshot, list[Alarm]]]:
        """Time, truth and the alarms that began, of every frame."""
        tracks, before = Tracks.empty(), -1.0
        flow = Flow(Noise(), np.random.default_rng((self._seed, 6)))
        for k, t in enumerate(self.times.tolist()):
            snap = self.world.snapshot((float(self.wander[k]), float(self.yaw[k])))
            pitch, roll, lift = self._shake[k]
            view = lens.View(
                self._camera, self._profile, snap.s, snap.d, snap.yaw, float(pitch), float(roll), float(lift)
            )
            things, boxes, hidden = true_boxes(view, snap.things)
            ids = np.array([thing.id for thing in things], np.int64)
            label = np.array([thing.model.label for thing in things], np.int64)
            found = self._detector(ids, boxes, label, hidden, t, t - before, snap.speed)
            t_ns = round(t * 1e9)
            growth = flow(tracks, things, boxes, snap)  # of the tracks of the frame before
            tracks = self._tracker.step(found, t_ns, frame_size=(WIDTH, HEIGHT))
            scene = self._analysis.step(
                tracks,
                t_ns,
                measured=self._tracker.measured,
                frame=k,
                lane=self._lane(view),
                speed_mps=snap.speed,
                growth=growth,
            )
            alarms = []
            for event in scene.warnings:
                if event.kind.endswith("_on"):
                    about = tracks.xyxy[tracks.id == event.track]
                    overlap = iou(about, boxes)
                    whose = int(ids[overlap.argmax()]) if overlap.size and overlap.max() > 0.2 else 0
                    thing = next((thing for thing in things if thing.id == whose), None)
                    gap = thing.near() - snap.s - CAMERA_TO_BUMPER if thing else math.nan
                    headway = gap / snap.speed if snap.speed > 0 else math.inf
                    alarms.append(Alarm(event.kind.removesuffix("_on"), t, whose, event.ttc_s, headway, gap))
            yield t, snap, alarms
            before = t
            self.world.step(1 / FPS)


def drive(seed: int) -> dict[str, object]:
    """DRIVE_S seconds of traffic: alarms by kind, and those of them that were false."""
    rng = np.random.default_rng((seed, 77))
    kind = ("motorway", "country", "town")[seed % 3]
    focal = WIDTH / 2 / math.tan(math.radians(rng.uniform(50, 72)) / 2)
    pitch = math.atan(rng.uniform(-0.05, 0.1) * HEIGHT / focal)
    camera = lens.Camera(focal, focal, WIDTH / 2, HEIGHT / 2, rng.uniform(1.2, 1.6), pitch, WIDTH, HEIGHT)
    layout, profile = make_layout(rng, kind), make_profile(rng, kind)
    zebras = tuple(np.cumsum(rng.uniform(45, 170, 9))) if kind == "town" else ()
    logic = Logic(random_traffic(rng, layout, zebras, DRIVE_S), profile, camera, seed, 0.12, DRIVE_S)
    history: dict[int, list[Moment]] = defaultdict(list)
    last: dict[int, tuple[float, float]] = {}
    alarms: list[Alarm] = []
    for t, snap, began in logic:
        alarms += began
        for thing in snap.things:
            if -5 < thing.s - snap.s < 80:
                before = last.get(thing.id)
                sideways = (thing.d - before[1]) / (t - before[0]) if before and t > before[0] else 0.0
                last[thing.id] = (t, thing.d)
                history[thing.id].append(moment(thing, snap, t, sideways))
    result = {"seed": seed, "road": kind, "seconds": DRIVE_S, "alarms": Counter(a.kind for a in alarms), "false": []}
    for alarm in alarms:
        near = [m for m in history[alarm.object] if alarm.t - BEFORE_S <= m.t <= alarm.t + AFTER_S]
        true = any(m.ttc_s < DANGER_S and m.aside_m < ASIDE_M for m in near)
        if alarm.kind == "headway":
            true = alarm.headway_s < HEADWAY_S
        if not true:
            worst = min((m.ttc_s for m in near), default=math.inf)
            aside = min((m.aside_m for m in near), default=math.inf)
            result["false"].append({"drive": f"{kind} {seed}", **asdict(alarm), "true_ttc_s": worst, "aside_m": aside})
    return result


def trial(scenario: Scenario, seed: int) -> list[Alert]:
    """A scenario test without pictures."""
    rng = np.random.default_rng((seed, 78))
    focal = WIDTH / 2 / math.tan(math.radians(rng.uniform(52, 64)) / 2)
    pitch = math.atan(rng.uniform(-0.02, 0.05) * HEIGHT / focal)
    camera = lens.Camera(focal, focal, WIDTH / 2, HEIGHT / 2, rng.uniform(1.25, 1.5), pitch, WIDTH, HEIGHT)
    stage = Stage(scenario, layout_of(scenario, rng), rng)
    logic = Logic(stage, profile_of(scenario), camera, seed, scenario.ego.wander_m, scenario.length_s)
    aside, turned = departing(scenario, logic.times, stage.ego.speed)
    logic.wander, logic.yaw = logic.wander + aside, logic.yaw + turned
    alerts = []
    for t, _, began in logic:
        danger = stage.danger()
        for alarm in began:
            meant = danger is not None and alarm.object == danger.id
            figure = math.nan if danger is None else alarm.headway_s if alarm.kind == "headway" else danger.ttc_s
            alerts.append(Alert(alarm.kind, t, figure, meant))
    return alerts


def play(args: argparse.Namespace) -> None:
    rows = [("scenario", "expected", "passes", "figure at the alert, 10 % / median", "false alarms")]
    for name in args.only or names():
        scenario = find_scenario(name)
        if set(scenario.expect.warning) & {"ldw_left", "ldw_right"}:
            continue  # lines are seen in pictures alone
        seeds = range(args.seed, args.seed + args.scenarios)
        trials = [judge_trial(k, trial(scenario, k), scenario.expect) for k in seeds]
        figures = [t.figure for t in trials if not math.isnan(t.figure)]
        false = Counter(name for t in trials for name in t.false_alarms)
        text = f"{np.quantile(figures, 0.1):.2f} / {np.median(figures):.2f}" if figures else "–"
        wanted = " or ".join(scenario.expect.warning) + (
            str(list(scenario.expect.window)) if scenario.expect.window else "none"
        )
        rows.append(
            (name, wanted, f"{sum(t.ok for t in trials)}/{len(trials)}", text, str(dict(false)) if false else "–")
        )
    print(columns(rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=20000, help="of the first drive; 0 to 9999 were for development")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scenarios", type=int, default=0, metavar="N", help="play the scenario tests, N trials each")
    parser.add_argument("--only", nargs="+")
    args = parser.parse_args()
    if args.scenarios:
        play(args)
        return
    seeds = range(args.seed, args.seed + max(1, round(args.hours * 3600 / DRIVE_S)))
    with bar("drives", len(seeds)) as advance, ProcessPoolExecutor(args.jobs) as pool:
        results = []
        for result in pool.map(drive, seeds, chunksize=4) if args.jobs > 1 else map(drive, seeds):
            results.append(result)
            advance(1)
    hours = len(results) * DRIVE_S / 3600
    if args.json:
        print(json.dumps({"hours": hours, "drives": results}, indent=1, default=str))
        return
    rows = [("warning", "alarms", "false", "false in 10 hours")]
    false = [f for r in results for f in r["false"]]
    for kind in sorted({"fcw"} | {k for r in results for k in r["alarms"]}):
        count = sum(f["kind"] == kind for f in false)
        rows.append((kind, str(sum(r["alarms"][kind] for r in results)), str(count), f"{10 * count / hours:.2f}"))
    print(f"{hours:.2f} hours in {len(results)} drives of {DRIVE_S:g} s, seeds {seeds[0]} to {seeds[-1]}\n")
    print(columns(rows))
    for f in false:
        print(
            f"{f['drive']}: {f['kind']} at {f['t']:.1f} s, object {f['object']} {f['gap_m']:.0f} m ahead; said "
            f"{f['ttc_s']:.1f} s, truly {f['true_ttc_s']:.1f} s and {f['aside_m']:.1f} m aside"
        )


if __name__ == "__main__":
    main()
