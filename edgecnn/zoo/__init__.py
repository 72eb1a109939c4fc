"""The zoo: `build(spec) -> nn.Module`, one file a family. torch is imported when a network is built, not before."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import ModelSpec, TensorSpec
from edgecnn.errors import InputError, MissingDependency, ModelError
from edgecnn.recipe import ModelSection
from edgecnn.zoo.models import MODELS, Entry
from edgecnn.zoo.weights import auxiliary, fitting, read_weights, save_weights, shapes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NAMES", "build", "entry_of", "load", "read_weights", "save_weights", "spec_for", "weights_path"]

SHIPPED = Path(__file__).parents[1] / "weights"
ROADNET = "the board's own nano detector: anchor-free, conv-BN-ReLU, 416x256"
NAMES = {"roadnet": ROADNET, **{name: entry.about for name, entry in MODELS.items()}}


def spec_for(section: ModelSection) -> ModelSpec:
    """The ModelSpec of a recipe's `model:` section, before training and slimming.

    Raises ModelError for an unknown architecture, or an input that it can't take.
    """
    classes = section.classes
    if section.arch == "roadnet":
        height, width = section.height or 256, section.width or 416
        if height % 32 or width % 32:
            raise ModelError(f"roadnet with an input of {width}x{height}", wanted="multiples of 32 px")
        strides = (8, 16, 32)
        anchors = sum(height // s * (width // s) for s in strides)
        return ModelSpec(
            arch="roadnet",
            task="detect",
            classes=classes,
            input=TensorSpec("picture", (1, 3, height, width)),
            outputs=(TensorSpec("boxes", (1, anchors, 4)), TensorSpec("scores", (1, anchors, len(classes)))),
            decode="roadnet",
            strides=strides,
            mean=(128.0, 128.0, 128.0),  # u8 less 128 is s8: the quantised picture loses nothing
        )
    entry = entry_of(section.arch)
    height, width = section.height or entry.side, section.width or entry.side
    if entry.family == "lenet" and (height, width) != (32, 32):
        raise ModelError(f"{section.arch} with an input of {width}x{height}", wanted="32x32")
    if min(height, width) < entry.least:
        raise ModelError(f"{section.arch} with an input of {width}x{height}", wanted=f"{entry.least} px or more")
    grey = entry.channels == "grey"
    return ModelSpec(
        arch=section.arch or "",
        task="classify",
        classes=classes,
        input=TensorSpec("picture", (1, 1 if grey else 3, height, width)),
        outputs=(TensorSpec("logits", (1, len(classes))),),
        mean=(33.3,) * 3 if grey else entry.mean,  # grey: MNIST's
        std=(78.6,) * 3 if grey else entry.std,
        channels=entry.channels,
        fit="letterbox" if grey else "crop",
        pad=0 if grey else 114,
    )


def entry_of(arch: str | None) -> Entry:
    """Raises ModelError for a name that the zoo does not have."""
    if arch not in MODELS:
        raise ModelError(f"the zoo has no '{arch}'", wanted=", ".join(NAMES))
    return MODELS[arch]


def build(spec: ModelSpec, *, aux: bool = False) -> nn.Module:
    """The network that a spec describes, with the layers and widths that slimming left; random weights.

    With `aux`, an architecture that has auxiliary heads gets them: in training mode it then returns
    (logits, *auxiliary logits). A slimmed network gets none: they would read other widths. Raises ModelError for an
    unknown architecture, MissingDependency without torch.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependency("torch is not installed", do="Run: pip install 'edgecnn[desk]'") from error
    from edgecnn.zoo.layers import apply_replaced
    from edgecnn.zoo.widths import apply_widths

    family = "roadnet" if spec.arch == "roadnet" else entry_of(spec.arch).family
    made = importlib.import_module(f"edgecnn.zoo.{family}").build
    heads = {"aux": True} if aux and auxiliary(spec) and not (spec.widths or spec.replaced) else {}
    net: nn.Module = made(spec.arch, len(spec.classes), **heads)
    apply_replaced(net, spec.replaced)
    apply_widths(net, spec.widths)
    return net.eval()


def load(path: Path, spec: ModelSpec, *, aux: bool = False, new_head: bool = False) -> tuple[nn.Module, ModelSpec]:
    """A network with a checkpoint's weights; where the checkpoint was slimmed, with its widths.

    With `aux` it has auxiliary heads, which start anew where the checkpoint has none. With `new_head`, for training
    that follows, a checkpoint of another's for another number of classes fits as well: its last layer starts anew.
    A note says what starts anew. Raises InputError for a damaged file, ModelError listing the keys and shapes that do
    not fit, or naming the classes of a checkpoint that edgecnn wrote for others.
    """
    state, own = read_weights(path)
    if own is not None:
        if (own.arch, own.classes) != (spec.arch, spec.classes):
            raise ModelError(
                f"{path} is a {own.arch} for {', '.join(own.classes)}",
                wanted=f"a {spec.arch} for {', '.join(spec.classes)}",
                do="Change model.arch or model.classes in the recipe",
            )
        spec = replace(spec, widths=own.widths, replaced=own.replaced)
    net = build(spec, aux=aux)
    head = _head(spec, aux) if new_head else set()
    net.load_state_dict(fitting(path, spec, state, shapes(net.state_dict()), head), strict=False)
    return net, spec


def _head(spec: ModelSpec, aux: bool) -> set[str]:
    """The tensors whose shapes depend on the number of classes."""
    import torch

    with torch.device("meta"):
        ours, other = (
            shapes(build(replace(spec, classes=names), aux=aux).state_dict())
            for names in (spec.classes, (*spec.classes, "one more"))
        )
    return {name for name, shape in ours.items() if other[name] != shape}


def weights_path(section: ModelSection) -> Path | None:
    """Where the recipe's weights lie; None to train from scratch. Raises InputError if `shipped` are not there."""
    if section.weights is None:
        return None
    if section.weights != "shipped":
        return Path(section.weights)
    path = SHIPPED / f"{section.arch}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none"
        raise InputError(
            f"edgecnn ships no weights for {section.arch} (it ships: {shipped})",
            do="Name a file under model.weights, or leave it out to train from scratch",
        )
    return path
