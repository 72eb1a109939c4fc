"""The zoo: `build(spec) -> nn.Module`, one file a family. torch is imported when a network is built, not before."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import ModelSpec, TensorSpec, atomic
from edgecnn.errors import InputError, MissingDependency, ModelError
from edgecnn.recipe import ModelSection
from edgecnn.zoo.models import IMAGENET_MEAN, IMAGENET_STD, MODELS, Entry

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    grey = entry.channels == "grey"
    return ModelSpec(
        arch=section.arch or "",
        task="classify",
        classes=classes,
        input=TensorSpec("picture", (1, 1 if grey else 3, height, width)),
        outputs=(TensorSpec("logits", (1, len(classes))),),
        mean=(33.3,) * 3 if grey else IMAGENET_MEAN,  # grey: MNIST's
        std=(78.6,) * 3 if grey else IMAGENET_STD,
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

    With `aux`, a family that has auxiliary heads gets them: in training mode it then returns (logits, *auxiliary).
    Raises ModelError for an unknown architecture, MissingDependency without torch.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependency("torch is not installed", do="Run: pip install 'edgecnn[desk]'") from error
    from edgecnn.zoo.layers import apply_replaced
    from edgecnn.zoo.widths import apply_widths

    family = "roadnet" if spec.arch == "roadnet" else entry_of(spec.arch).family
    made = importlib.import_module(f"edgecnn.zoo.{family}").build
    net: nn.Module = made(spec.arch, len(spec.classes), aux=True) if aux else made(spec.arch, len(spec.classes))
    apply_replaced(net, spec.replaced)
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
        spec = replace(spec, widths=own.widths, replaced=own.replaced)
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
