"""The zoo: `build(spec) -> nn.Module`, one file a family. torch is imported when a network is built, not before."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import ModelSpec, TensorSpec, atomic
from edgecnn.errors import InputError, MissingDependency, ModelError
from edgecnn.recipe import ModelSection

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0-255 scale
SHIPPED = Path(__file__).parents[1] / "weights"

NAMES = {
    "roadnet": "the board's own nano detector: anchor-free, conv-BN-ReLU, 416x256",
    "lenet5": "LeNet-5 with ReLU and max pooling, 32x32 grey",
    "resnet18": "ResNet-18, torchvision's checkpoint names, 224x224",
}


def spec_for(section: ModelSection) -> ModelSpec:
    """The ModelSpec of a recipe's `model:` section, before training and slimming."""
    classes = section.classes
    match section.arch:
        case "roadnet":
            if section.height % 32 or section.width % 32:
                raise ModelError(
                    f"roadnet with an input of {section.width}x{section.height}", wanted="multiples of 32 px"
                )
            strides = (8, 16, 32)
            anchors = sum(section.height // s * (section.width // s) for s in strides)
            return ModelSpec(
                arch="roadnet",
                task="detect",
                classes=classes,
                input=TensorSpec("picture", (1, 3, section.height, section.width)),
                outputs=(TensorSpec("boxes", (1, anchors, 4)), TensorSpec("scores", (1, anchors, len(classes)))),
                decode="roadnet",
                strides=strides,
                mean=(128.0, 128.0, 128.0),  # u8 less 128 is s8: the quantised picture loses nothing
            )
        case "lenet5":
            return ModelSpec(
                arch="lenet5",
                task="classify",
                classes=classes,
                input=TensorSpec("picture", (1, 1, 32, 32)),
                outputs=(TensorSpec("logits", (1, len(classes))),),
                mean=(33.3,) * 3,  # MNIST's
                std=(78.6,) * 3,
                channels="grey",
                pad=0,
            )
        case "resnet18":
            return ModelSpec(
                arch="resnet18",
                task="classify",
                classes=classes,
                input=TensorSpec("picture", (1, 3, 224, 224)),
                outputs=(TensorSpec("logits", (1, len(classes))),),
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
                channels="rgb",
                fit="crop",
            )
        case other:
            raise ModelError(f"the zoo has no '{other}'", wanted=", ".join(NAMES))


def build(spec: ModelSpec) -> nn.Module:
    """The network that a spec describes, with the widths that slimming left; random weights.

    Raises ModelError for an unknown architecture, MissingDependency without torch.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependency("torch is not installed", do="Run: pip install 'edgecnn[desk]'") from error
    from edgecnn.zoo.widths import apply_widths

    net: nn.Module
    match spec.arch:
        case "roadnet":
            from edgecnn.zoo.roadnet import RoadNet, init_scores

            net = RoadNet(len(spec.classes))
            init_scores(net)
        case "lenet5":
            from edgecnn.zoo.lenet import LeNet5

            net = LeNet5(len(spec.classes), gap=spec.gap)
        case "resnet18":
            from edgecnn.zoo.resnet import ResNet

            net = ResNet(spec.arch, len(spec.classes))
        case other:
            raise ModelError(f"the zoo has no '{other}'", wanted=", ".join(NAMES))
    apply_widths(net, spec.widths)
    return net.eval()


def save_weights(path: Path, net: nn.Module, spec: ModelSpec) -> None:
    """Write safetensors that describe themselves: the ModelSpec is in their header. Atomic."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary, {"edgecnn": json.dumps(asdict(spec))})


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    """A checkpoint's tensors, and its ModelSpec if edgecnn wrote it: safetensors, or a torch state dict (.pth, .pt).

    Raises InputError if the file is missing, truncated, of another kind, or would need unpickling of objects.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no weights at {path}", do="Give a .safetensors file or a torch state dict (.pth)")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                note = (file.metadata() or {}).get("edgecnn")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is no complete safetensors file ({error})", do="Copy or train it again"
            ) from error
        return state, ModelSpec.from_json(json.loads(note)) if note else None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: truncated zip, wrong magic, objects that need unpickling
        reason = str(error).splitlines()[0][:120]
        raise InputError(
            f"{path} is no plain torch state dict ({type(error).__name__}: {reason})",
            wanted="tensors by name, loadable with weights_only=True",
        ) from error
    inner: Any = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(inner, dict) or not all(isinstance(v, torch.Tensor) for v in inner.values()):
        raise InputError(f"{path} holds a {type(loaded).__name__}", wanted="a state dict: tensors by name")
    return inner, None


def load(path: Path, spec: ModelSpec) -> tuple[nn.Module, ModelSpec]:
    """A network with a checkpoint's weights; where the checkpoint was slimmed, with its widths.

    Raises InputError for a damaged file, ModelError naming the first key or shape that does not fit.
    """
    state, own = read_weights(path)
    if own is not None:
        if (own.arch, own.classes) != (spec.arch, spec.classes):
            raise ModelError(
                f"{path} is a {own.arch} for {', '.join(own.classes)}",
                wanted=f"a {spec.arch} for {', '.join(spec.classes)}",
                do="Change model.arch or model.classes in the recipe",
            )
        spec = replace(spec, widths=own.widths, gap=own.gap)
    net = build(spec)
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    came = {name: tuple(tensor.shape) for name, tensor in state.items()}
    # old torch checkpoints lack the counters of batch normalisation; nothing reads them
    missing = [n for n in wanted if n not in came and not n.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} tensors of {spec.arch}", wanted=f"'{missing[0]}' among them")
    for name, shape in came.items():
        if name not in wanted:
            raise ModelError(f"{path} holds '{name}'", wanted=f"only names of {spec.arch}")
        if shape != wanted[name]:
            raise ModelError(
                f"{path}: '{name}' has shape {shape}",
                wanted=f"{wanted[name]} for {spec.arch} with {len(spec.classes)} classes",
            )
    net.load_state_dict(state, strict=False)
    return net, spec


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
