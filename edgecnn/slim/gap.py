"""Global average pooling in place of the fully connected layers (Lin et al. 2013, arXiv:1312.4400, section 3.2)."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.zoo import build


def with_gap(net: nn.Module, spec: ModelSpec) -> tuple[nn.Module, ModelSpec]:
    """A copy whose FC layers are one 1x1 convolution and global average pooling; the convolutions keep their weights.

    The new layer starts anew, so the network needs fine-tuning. Raises ModelError for a network with no FC to replace.
    """
    if spec.gap or spec.arch != "lenet5":
        raise ModelError(
            f"{spec.arch} has no fully connected layers before its output",
            wanted="a network such as lenet5",
            do="Leave slim.gap out of the recipe",
        )
    spec = replace(spec, gap=True, widths={})
    slim = build(spec)
    kept = {name: tensor for name, tensor in net.state_dict().items() if name.startswith("features.")}
    slim.load_state_dict(kept, strict=False)
    return slim, spec
