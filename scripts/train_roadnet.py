"""How the shipped RoadNet weights were made. Runs for a given time, keeps a checkpoint, and goes on from it.

    python scripts/train_roadnet.py --data ../shared/data --minutes 90 --out out/roadnet

1. RoadNet starts as YOLOX-Nano (same topology); ReLU takes the place of SiLU, and each layer is solved anew.
2. Each batch: 5 real pictures (four-picture mosaics half of the time) and 11 of the road simulator.
3. Losses: SimOTA detection losses on all; on the real ones also the distance to the teacher's features, block by block,
   and to its answers, so that what COCO taught is not forgotten on a few hundred pictures.
Batch normalisation is folded throughout (fine-tuning at half the cost), and written back as an identity at the end.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import queue
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from roadnet_pool import HEIGHT, TWO_WHEELER, WIDTH, Picture, compose, load_real, make
from roadnet_teacher import COCO_ROWS, reconstruct, student, swap, teacher, with_batchnorm
from torch import Tensor, nn

from edgecnn import zoo
from edgecnn.bundle import atomic
from edgecnn.recipe import ModelSection
from edgecnn.zoo.loss import Grid, Target, detection_loss
from edgecnn.zoo.roadnet import RoadNet

REAL, SIM = 5, 11  # pictures of a batch
SHARES = {"openimages": 0.4, "carla": 0.15, "photos": 0.25, "dashcam": 0.2}
FITTED = 48  # pictures on which ReLU is fitted in place of SiLU
WARMUP, DECAY, CLIP = 200, 1e-4, 5.0
EMA = 0.998
MIMIC = 4.0


def simulator_pool(folder: Path, have: list[Picture], wanted: list[float], seen: set[str]) -> None:
    """Take in what the pictures' writer has finished since last time. Wanted most: people and two-wheelers, which
    the network learns last."""
    for path in sorted(folder.glob("*.npz")):
        if path.name in seen or path.name.startswith("."):  # hidden: still being written
            continue
        seen.add(path.name)
        with np.load(path) as pack:
            rows = np.split(np.arange(len(pack["label"])), np.cumsum(pack["count"])[:-1])
            for bgr, mine in zip(pack["bgr"], rows, strict=True):
                skip = pack["ignore"][mine]
                picture = make(bgr, pack["xyxy"][mine][~skip], pack["label"][mine][~skip])
                picture.ignore = pack["xyxy"][mine][skip]
                have.append(picture)
                wanted.append(1.0 + min(int((picture.label >= TWO_WHEELER).sum()), 8))


class Taps:
    """Outputs of the blocks in which teacher and student are compared."""

    def __init__(self, net: RoadNet) -> None:
        self.heard: list[Tensor] = []
        parts = [*net.stages, net.top_middle, net.top_small, net.out_middle, net.out_large]
        parts += [branch for head in net.heads for branch in (head.cls_mix, head.box_mix)]
        for part in parts:
            part.register_forward_hook(lambda _part, _inputs, y: self.heard.append(y))

    def pop_all(self) -> list[Tensor]:
        heard, self.heard = self.heard, []
        return heard


def answer_loss(box: Tensor, obj: Tensor, cls: Tensor, *taught: Tensor) -> Tensor:
    """Distance to the teacher's answers, where it sees road users: scores by cross entropy, boxes by L1."""
    box_t, obj_t, cls_t = taught
    score = torch.stack([cls_t[..., list(rows)].sigmoid().amax(2) for rows in COCO_ROWS], 2)
    sure = obj_t.sigmoid() * score.amax(2, keepdim=True)
    entropy = nn.functional.binary_cross_entropy_with_logits
    loss = entropy(obj, sure.sqrt() * obj_t.sigmoid().sqrt(), reduction="sum")
    loss = loss + entropy(cls, score, weight=sure.expand_as(cls), reduction="sum")
    loss = loss + (sure * (box - box_t).abs()).sum()
    return loss / sure.sum().clamp(min=1)


def batches(pools: dict[str, list[Picture]], sim_folder: Path, seed: int, out: queue.Queue) -> None:
    rng, sim, wanted, seen = np.random.default_rng(seed), [], [], set()  # type: ignore[var-annotated]
    names, shares = list(SHARES), list(SHARES.values())
    while True:
        simulator_pool(sim_folder, sim, wanted, seen)
        share = np.cumsum(wanted) / sum(wanted)
        pictures, targets = [], []
        for k in range(REAL + SIM):
            of_sim = k >= REAL
            mosaic = rng.random() < (0.1 if of_sim else 0.5)
            chosen = []
            for _ in range(4 if mosaic else 1):
                if of_sim:
                    chosen.append(sim[int(np.searchsorted(share, rng.random()))])
                else:
                    pool = pools[str(rng.choice(names, p=shares))]
                    chosen.append(pool[int(rng.integers(len(pool)))])
            bgr, xyxy, label, ignore = compose(chosen, rng, (0.8, 1.8) if of_sim else (0.5, 2.2))
            pictures.append(bgr)
            targets.append(Target(torch.from_numpy(xyxy), torch.from_numpy(label), torch.from_numpy(ignore)))
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
        out.put((x.contiguous(memory_format=torch.channels_last), targets))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sim", type=Path, required=True, help="folder of simulator pictures (scripts/roadnet_sim.py)")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--rate", type=float, default=1.5e-4, help="the highest learning rate")
    parser.add_argument(
        "--start", type=Path, help="checkpoint.pt of an earlier run, whose averaged weights begin this one"
    )
    parser.add_argument("--out", type=Path, default=Path("out/roadnet"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    torch.manual_seed(0)

    guide = teacher(args.data / "weights/yolox_nano_coco80_416.onnx").to(memory_format=torch.channels_last)
    net = student(guide)
    swap(net, nn.SiLU, nn.ReLU, inplace=True)
    average = student(guide)
    swap(average, nn.SiLU, nn.ReLU)
    cache = args.out / "pools.pkl"  # our own file, written two lines below
    if not cache.exists():
        with atomic(cache) as temporary:
            temporary.write_bytes(pickle.dumps(load_real(args.data, guide)))
    pools = pickle.loads(cache.read_bytes())
    rng = np.random.default_rng(0)
    some = [pools[name][int(rng.integers(len(pools[name])))] for name in list(pools) * (FITTED // len(pools))]
    fitted = torch.from_numpy(np.stack([compose([p], rng)[0] for p in some])).permute(0, 3, 1, 2).float() - 128
    reconstruct(net, student(guide), fitted)
    if args.start:
        net.load_state_dict(torch.load(args.start, weights_only=True)["average"])
    average.load_state_dict(net.state_dict())
    net = net.to(memory_format=torch.channels_last).train()
    heard, heard_guide = Taps(net), Taps(guide)
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": DECAY}, {"params": biases, "weight_decay": 0}], args.rate
    )
    done, step = 0.0, 0  # minutes, steps
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, step = state["minutes"], state["step"]

    feed: queue.Queue = queue.Queue(4)
    threading.Thread(target=batches, args=(pools, args.sim, step, feed), daemon=True).start()

    grid = Grid.of(HEIGHT, WIDTH, (8, 16, 32))
    start, sums = time.monotonic(), {}
    while (minutes := done + (time.monotonic() - start) / 60) < args.minutes:
        x, targets = feed.get()
        rate = (
            args.rate
            * min(1, (step + 1) / WARMUP)
            * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * minutes / args.minutes)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        box, obj, cls = net.logits(net.features(x - 128))
        losses = detection_loss(box, obj, cls, targets, grid)
        with torch.no_grad():
            taught = guide.logits(guide.features(x[:REAL]))
        pairs = zip(heard.pop_all(), heard_guide.pop_all(), strict=True)
        gaps = [nn.functional.mse_loss(ours[:REAL], theirs) / theirs.var() for ours, theirs in pairs]
        losses["mimic"] = MIMIC * torch.stack(gaps).mean()
        losses["answers"] = answer_loss(box[:REAL], obj[:REAL], cls[:REAL], *taught)
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(EMA, step / (step + 20))
            for a, p in zip(average.parameters(), net.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
        for name, value in losses.items():
            sums[name] = 0.98 * sums.get(name, float(value.detach())) + 0.02 * float(value.detach())
        if step % 20 == 0:
            shown = " ".join(f"{k} {v:.3f}" for k, v in sums.items())
            print(f"step {step} {minutes:.1f} min lr {rate:.2e} {shown}", flush=True)
        if step % 200 == 0:
            save(checkpoint, net, average, optimizer, minutes, step, fitted)
    save(checkpoint, net, average, optimizer, args.minutes, step, fitted)
    print(f"done: {step} steps, {step * (REAL + SIM)} pictures", flush=True)


def save(
    path: Path,
    net: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    minutes: float,
    step: int,
    some: Tensor,
) -> None:
    with atomic(path) as temporary:
        torch.save(
            {
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "minutes": minutes,
                "step": step,
            },
            temporary,
        )
    spec = zoo.spec_for(ModelSection(arch="roadnet"))
    zoo.save_weights(path.parent / "roadnet.safetensors", with_batchnorm(average, some), spec)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
