"""From pixels to network input, inside the model: so an attack's epsilon is in pixels, and goes through here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """(x - mean) / std per channel, after resizing and after repeating one grey channel where asked.

    mean, std: one number a channel of the *network's* input, for pixels in [0, 1]. image_size: side to resize
    to (bilinear, antialiased), None to keep the image's own. resize: then the shorter side is first resized to
    this, and the middle of image_size x image_size is kept, as torchvision does for its ImageNet weights. Takes
    (batch, C, H, W) in [0, 1]; where C is 1 and there are more means, the channel is repeated. Differentiable
    throughout; nothing is clipped.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, image_size: int | None = None, resize: int | None = None
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(f"mean and std need one number a channel, std positive, got {mean} and {std}")
        # Not persistent: they belong to the specification, not to what was learned.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None], persistent=False)
        if resize is not None and (image_size is None or resize < image_size):
            raise ValueError(f"resize {resize} comes before a crop to image_size, got {image_size}")
        self.image_size = image_size
        self.resize = resize

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, C, H, W) to (batch, channels, image_size, image_size)."""
        pixels = self._resized(pixels)
        if pixels.shape[1] not in (1, len(self.mean)):
            raise ValueError(f"expected 1 or {len(self.mean)} channels, got {pixels.shape[1]}")
        return (pixels - self.mean) / self.std  # one channel broadcasts to all

    def _resized(self, pixels: Tensor) -> Tensor:
        if self.image_size is None:
            return pixels
        size = [self.image_size, self.image_size]
        if self.resize is not None:
            shorter = min(pixels.shape[-2:])
            size = [self.resize * side // shorter for side in pixels.shape[-2:]]
        if list(pixels.shape[-2:]) != size:
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        top, left = (round((side - self.image_size) / 2) for side in size)
        return pixels[..., top : top + self.image_size, left : left + self.image_size]
