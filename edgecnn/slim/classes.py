"""Functional reduction: only the classes, and only the input, that the scene needs."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from edgecnn import zoo
from edgecnn.bundle import LayerSpec, ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import ClassesStep, ModelSection
from edgecnn.slim.pick import line
from edgecnn.zoo.count import Size, size
from edgecnn.zoo.lenet import Rbf
from edgecnn.zoo.roadnet import Head


def with_classes(net: nn.Module, spec: ModelSpec, step: ClassesStep) -> tuple[nn.Module, ModelSpec, str]:
    """A copy that tells only the kept classes apart, in the order of the step, on an input of the step's size.

    The rows of the last layer that served other classes go; what it says of the kept ones does not change. Nor does
    anything before it: channels that served only what went still run. The report line counts the inputs of the last
    layer that weigh more on what went than on what stayed (root mean square over the classes). `prune` afterwards
    takes such channels, since its criteria ask what a channel does to the loss on the kept classes.

    Raises ModelError for a class that the network does not have, a step that changes nothing, or an input that the
    architecture can't take.
    """
    rows = _rows(spec, step)
    described = _described(net, spec, step)
    if (described.classes, described.input) == (spec.classes, spec.input):
        raise ModelError(f"the step keeps all classes and the input of {spec.arch}", do="Leave it out of slim.steps")
    outputs = output_layers(net)
    slim = zoo.build(described)
    slim.load_state_dict(
        {
            name: tensor[rows] if name.rpartition(".")[0] in outputs else tensor
            for name, tensor in net.state_dict().items()
        }
    )
    slim.train(net.training)
    what = f"{len(rows)} of {len(spec.classes)} classes stay{_removable(net, rows)}"
    if described.input != spec.input:
        what += f", the input is {described.width}x{described.height} and was {spec.width}x{spec.height}"
    return slim, described, line("classes", what, size(net, spec.input.shape), _size(slim, described))


def _size(net: nn.Module, spec: ModelSpec) -> Size:
    """Raises ModelError where the input leaves nothing of the maps."""
    try:
        return size(net, spec.input.shape)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{spec.arch} can't take {spec.width}x{spec.height} ({reason})", wanted="a larger input"
        ) from error


def output_layers(net: nn.Module) -> list[str]:
    """Names of the layers with a row for each class: the last one of a classifier, one a level of a detector."""
    heads = [f"{name}.cls" for name, layer in net.named_modules() if isinstance(layer, Head)]
    return heads or [n for n, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear | Rbf)][-1:]


def _rows(spec: ModelSpec, step: ClassesStep) -> list[int]:
    """Places of the kept classes among the model's."""
    unknown = [name for name in step.keep if name not in spec.classes]
    if unknown or not step.keep:
        raise ModelError(
            f"{spec.arch} has no class '{unknown[0]}'" if unknown else "the step keeps no class",
            wanted=f"some of {', '.join(spec.classes)}",
        )
    if len(set(step.keep)) < len(step.keep):
        raise ModelError(f"the step keeps a class twice ({', '.join(step.keep)})", wanted="each once")
    return [spec.classes.index(name) for name in step.keep]


def _described(net: nn.Module, spec: ModelSpec, step: ClassesStep) -> ModelSpec:
    """The new spec; `spec_for` knows what sizes an architecture takes. What slimming noted of its outputs follows."""
    section = {
        "arch": spec.arch,
        "classes": step.keep,
        "height": step.height or spec.height,
        "width": step.width or spec.width,
    }
    fresh = zoo.spec_for(ModelSection.model_validate(section))
    replaced, widths = dict(spec.replaced), dict(spec.widths)
    for name in output_layers(net):
        place, _, index = name.rpartition(".")
        if name in widths:
            widths[name] = widths[name][0], len(step.keep)
        if place in replaced:
            layers: list[LayerSpec] = list(replaced[place])
            layers[int(index)] = replace(layers[int(index)], outputs=len(step.keep))
            replaced[place] = tuple(layers)
    return replace(spec, classes=step.keep, input=fresh.input, outputs=fresh.outputs, replaced=replaced, widths=widths)


def _removable(net: nn.Module, rows: list[int]) -> str:
    """What `prune` may look at next, for the report line."""
    loose = total = 0
    for name in output_layers(net):
        layer = net.get_submodule(name)
        if isinstance(layer, Rbf):
            continue
        weight = layer.get_parameter("weight").detach().flatten(1)
        gone = [i for i in range(len(weight)) if i not in rows]
        if gone:
            loose += int((weight[gone].square().mean(0) > weight[rows].square().mean(0)).sum())
            total += weight.shape[1]
    return f" ({loose} of {total} inputs of the last layer served what went more: prune next)" if total else ""
