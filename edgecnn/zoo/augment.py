"""Random changes of training pictures: shift, scale jitter and crop, mirror, colour, noise (Krizhevsky et al. 2012,
section 4.1, and Simonyan & Zisserman 2014, arXiv:1409.1556, section 3.1, have the ideas).

What happens to a batch is drawn first and done afterwards: so several processes, each with its share of one batch, draw
the same and do the same as one process alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgecnn.recipe import AugmentSection

COPY_NOISE = 8.0  # standard deviation, grey levels, on the copies that balance classes
LUMA = {"rgb": (0.299, 0.587, 0.114), "bgr": (0.114, 0.587, 0.299)}  # ITU-R BT.601


@dataclass(frozen=True)
class Jitter:
    """What happens to each picture of one batch; None: nothing of the kind."""

    mirror: Tensor | None = None  # (B,) bool
    affine: Tensor | None = None  # (B, 2, 3): place in the result → place in the picture, both -1 to 1
    colour: Tensor | None = None  # (B, 3): factors of brightness, contrast, saturation
    noise: Tensor | None = None  # (B, C, H, W) grey levels

    @classmethod
    def draw(cls, section: AugmentSection, shape: tuple[int, ...], copied: Tensor, dice: torch.Generator) -> Jitter:
        """For a batch of `shape` (B, C, H, W); the pictures that are `copied` (B,) get noise in any case.

        Shift is uniform, the factor of scale log-uniform, both as AugmentSection says; noise is normal.
        """
        count = shape[0]

        def uniform(columns: int) -> Tensor:
            return torch.rand(count, columns, generator=dice) * 2 - 1

        mirror = torch.rand(count, generator=dice) < 0.5 if section.mirror else None
        affine = None
        if section.shift or section.scale:
            scale = (1 - section.scale) ** uniform(1)
            shift = uniform(2) * section.shift * 2  # the side is 2 long in affine_grid
            affine = torch.cat([torch.diag_embed(1 / scale.expand(-1, 2)), (-shift / scale)[:, :, None]], 2)
        colour = 1 + uniform(3) * section.colour if section.colour else None
        noise = None
        if section.noise or bool(copied.any()):
            deviation = torch.where(copied, max(COPY_NOISE, section.noise), section.noise)
            noise = torch.randn(shape, generator=dice) * deviation[:, None, None, None]
        return cls(mirror, affine, colour, noise)

    def of(self, rows: Tensor) -> Jitter:
        """Some rows of the batch."""
        parts = (self.mirror, self.affine, self.colour, self.noise)
        return Jitter(*(None if part is None else part[rows] for part in parts))

    def __call__(self, pictures: Tensor, channels: str, pad: float) -> Tensor:
        """(B, C, H, W) uint8 → float32, 0 to 255; `pad` is the grey that comes in from outside."""
        x = pictures.float()
        if self.mirror is not None:
            x = torch.where(self.mirror[:, None, None, None], x.flip(3), x)
        if self.affine is not None:
            grid = F.affine_grid(self.affine, list(x.shape), align_corners=False)
            x = F.grid_sample(x - pad, grid, padding_mode="zeros", align_corners=False) + pad
        if self.colour is not None:
            brightness, contrast, saturation = self.colour.T[..., None, None, None]
            x = x * brightness
            mean = x.mean((1, 2, 3), keepdim=True)
            x = mean + (x - mean) * contrast
            if channels in LUMA:
                grey = (x * torch.tensor(LUMA[channels])[:, None, None]).sum(1, keepdim=True)
                x = grey + (x - grey) * saturation
        if self.noise is not None:
            x = x + self.noise
        return x.clamp(0, 255)
