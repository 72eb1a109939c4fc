"""Weights on disk: what edgecnn writes, what it reads of others, and whether it fits. Tensors alone are unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgecnn.bundle import ModelSpec, atomic
from edgecnn.errors import InputError, ModelError
from edgecnn.progress import note
from edgecnn.zoo.models import MODELS

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes: TypeAlias = dict[str, tuple[int, ...]]
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
LISTED = 8  # names that an error spells out


def auxiliary(spec: ModelSpec) -> tuple[str, ...]:
    """How the names of the architecture's auxiliary heads begin, if it has any."""
    return AUXILIARY if spec.arch in MODELS and MODELS[spec.arch].aux else ()


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def save_weights(path: Path, net: nn.Module, spec: ModelSpec) -> None:
    """Write safetensors that describe themselves: the ModelSpec is in their header. Atomic.

    Auxiliary heads are left out: they serve training alone.
    """
    from safetensors.torch import save

    kept = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith(auxiliary(spec))}
    state = {name: tensor.detach().contiguous() for name, tensor in kept.items()}
    with atomic(path) as temporary:
        # not save_file: of a full disk it tells in words alone, Python's own writing with errno
        temporary.write_bytes(save(state, {"edgecnn": json.dumps(asdict(spec))}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    """A checkpoint's tensors, and its ModelSpec if edgecnn wrote it: safetensors, or a torch state dict (.pth, .pt).

    The state dict may lie under "state_dict" or "model", and every name may begin with "module.": so training scripts
    and DistributedDataParallel leave them. Raises InputError if the file is missing, truncated, of another kind, or
    would need unpickling of objects.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no weights at {path}", do="Give a .safetensors file or a torch state dict (.pth)")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                header = (file.metadata() or {}).get("edgecnn")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is no complete safetensors file ({error})", do="Copy or train it again"
            ) from error
        return _unwrapped(state), ModelSpec.from_json(json.loads(header)) if header else None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: truncated zip, wrong magic, objects that need unpickling
        reason = str(error).splitlines()[0][:120]
        raise InputError(
            f"{path} is no plain torch state dict ({type(error).__name__}: {reason})",
            wanted="tensors by name, loadable with weights_only=True",
        ) from error
    inner: Any = loaded
    if isinstance(loaded, dict):
        inner = next((loaded[key] for key in ("state_dict", "model") if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(inner, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in inner.items()
    ):
        raise InputError(f"{path} holds a {type(inner).__name__}", wanted="a state dict: tensors by name")
    return _unwrapped(inner), None


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "module."
    wrapped = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()} if wrapped else state


def fitting(path: Path, spec: ModelSpec, state: dict[str, Tensor], wanted: Shapes, head: set[str]) -> dict[str, Tensor]:
    """The checkpoint's tensors that the network takes; layers without one start anew, and a note says so.

    Those are auxiliary heads that the checkpoint lacks, and the tensors of `head` if it has them for another number of
    classes. Auxiliary heads that the network lacks are left out. Raises ModelError listing the names and shapes that
    do not fit.
    """
    aux = auxiliary(spec)
    came = {name: shape for name, shape in shapes(state).items() if name in wanted or not name.startswith(aux)}
    heads = {name for name in wanted if name.startswith(aux)}
    anew = heads if heads.isdisjoint(came) else set()
    if anew:
        note(f"{path.name} has no auxiliary heads: theirs start anew")
    other = {n for n in head & came.keys() if came[n] != wanted[n] and came[n][1:] == wanted[n][1:]}
    if other:
        classes = came[next(iter(other))][0]
        note(f"{path.name} is for {classes} classes, not {len(spec.classes)}: {_layers(other)} starts anew")
    anew = anew | other
    # old torch checkpoints lack the counters of batch normalisation; nothing reads them
    lacks = [n for n in wanted if n not in came and n not in anew and not n.endswith("num_batches_tracked")]
    besides = [n for n in came if n not in wanted]
    shaped = [n for n in came if n in wanted and n not in anew and came[n] != wanted[n]]
    faults = (
        ("lacks", [f"'{n}'" for n in lacks]),
        ("holds besides", [f"'{n}'" for n in besides]),
        ("has other shapes:", [f"'{n}' {came[n]} for {wanted[n]}" for n in shaped]),
    )
    if said := [f"it {how} {_listed(names)}" for how, names in faults if names]:
        raise ModelError(
            f"{path} does not fit {spec.arch} with {len(spec.classes)} classes: {'; '.join(said)}",
            do="Change model.arch or model.classes; with train.epochs, a checkpoint for other classes fits too",
        )
    return {name: state[name] for name in came if name not in anew}


def _layers(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[0] for name in names}))


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
