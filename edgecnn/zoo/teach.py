"""Distillation: a network teaches another by its answers (Hinton et al. 2015, arXiv:1503.02531) and by its maps.

Maps are matched as FitNets does (Romero et al. 2014, arXiv:1412.6550), but through what each place of a map holds over
all its channels (attention transfer, Zagoruyko & Komodakis 2016, arXiv:1612.03928): so a pruned student, whose channels
are fewer and stand for other things, needs no regressor to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.zoo.roadnet import RoadNet

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

ATTENTION = 1e3  # weight of the maps; the paper's beta, section 4.1

Outputs = Tensor | Sequence[Tensor]


class Teacher:
    """A network whose answers are targets. It runs in evaluation mode and gets no gradient.

    `spec` is the student's; `own` the teacher's, where it has other classes: then those of the student are compared, by
    name. With `features`, the maps at the ends of stages are targets too; the student is hooked, so give it as it will
    be trained, and `close()` afterwards (or use the teacher as a context manager).
    Raises ModelError where the teacher lacks a class of the student, can't take its input, or has no stage in common.
    """

    def __init__(
        self, net: nn.Module, student: nn.Module, spec: ModelSpec, features: bool, own: ModelSpec | None = None
    ) -> None:
        taught = (own or spec).classes
        if missing := [name for name in spec.classes if name not in taught]:
            raise ModelError(f"the teacher does not know '{missing[0]}'", wanted=f"classes of {', '.join(taught)}")
        self.net, self.spec = net.eval(), spec
        self.columns = [taught.index(name) for name in spec.classes]
        self.stages = common_stages(net, student, spec.input.shape) if features else ()
        if features and not self.stages:
            raise ModelError(
                "teacher and student have no stage of equal name and size",
                wanted="maps to compare",
                do="Set distill to logits",
            )
        self._hers: dict[str, Tensor] = {}
        self._mine: dict[str, Tensor] = {}
        self._hooks = [
            *(_keep(net, name, self._mine) for name in self.stages),
            *(_keep(student, name, self._hers) for name in self.stages),
        ]

    def __enter__(self) -> Teacher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._mine.clear()
        self._hers.clear()

    def loss(self, x: Tensor, outputs: Outputs) -> Tensor:
        """How far the student, which just answered `x` (B, C, H, W) with `outputs`, is from the teacher: a scalar.

        `outputs` are a classifier's logits (B, classes), first where auxiliary ones follow, or a RoadNet's
        (box, objectness, class) logits.
        """
        if self.spec.task == "classify":
            total = self._logits(x, outputs if isinstance(outputs, Tensor) else outputs[0])
        else:
            total = self._detection(x, outputs)
        for name in self.stages:
            total = total + ATTENTION / 2 * (attention(self._hers[name]) - attention(self._mine[name])).square().mean()
        return total

    def _logits(self, x: Tensor, logits: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.net(x)[:, self.columns].softmax(1)
        return F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean")

    def _detection(self, x: Tensor, outputs: Outputs) -> Tensor:
        assert isinstance(self.net, RoadNet)
        with torch.no_grad():
            box, obj, cls = self.net.logits(self.net.features(x))
            # what is most of all of a class that the student does not have is nothing to it
            known = torch.isin(cls.argmax(2, keepdim=True), torch.tensor(self.columns, device=cls.device))
            sure = obj.sigmoid() * known
            classes = cls[..., self.columns].sigmoid()
            weight = sure * classes.amax(2, keepdim=True)  # what the teacher is sure of counts
        total = F.binary_cross_entropy_with_logits(outputs[1], sure, reduction="sum") / (40 * len(box))
        total = total + (weight * (outputs[0] - box).abs()).sum() / (weight.sum() * 4 + 1)
        return total + (weight * (outputs[2].sigmoid() - classes).square()).sum() / (weight.sum() + 1)


def attention(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H·W): sums of squares over channels, each picture's of length 1 (arXiv:1612.03928, eq. 2)."""
    return F.normalize(maps.square().sum(1).flatten(1))


def common_stages(net: nn.Module, student: nn.Module, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the layers that end a stage of the student, where the teacher has a layer of that name and map size.

    A stage is a run of layers whose maps have one size; its end is the layer that finishes last.
    """
    theirs = dict(map_sizes(net, shape))
    mine = map_sizes(student, shape)
    shared = [(name, side) for name, side in mine if theirs.get(name) == side and side != (1, 1)]
    ends = [i for i in range(len(shared)) if i + 1 == len(shared) or shared[i + 1][1] != shared[i][1]]
    return tuple(shared[i][0] for i in ends)


def map_sizes(net: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, int]]]:
    """(height, width) of what each layer puts out for an input of `shape`, in the order in which they finish."""
    found: list[tuple[str, tuple[int, int]]] = []

    def note(name: str) -> RemovableHandle:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                found.append((name, (output.shape[2], output.shape[3])))

        return net.get_submodule(name).register_forward_hook(hook)

    hooks = [note(name) for name, _ in net.named_modules() if name]
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(shape, device=next(net.parameters()).device))
    except RuntimeError as error:
        raise ModelError(f"the teacher can't take an input of {tuple(shape)} ({str(error).splitlines()[0]})") from error
    finally:
        net.train(training)
        for handle in hooks:
            handle.remove()
    return found


def _keep(net: nn.Module, name: str, into: dict[str, Tensor]) -> RemovableHandle:
    def hook(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        into[name] = output

    return net.get_submodule(name).register_forward_hook(hook)
