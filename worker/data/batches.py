"""Some images of a split, as a network takes them."""

import numpy as np
import torch
from torch import Tensor

from worker.data.arrays import Split


def batch_of(split: Split, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images uint8 (b, C, H, W) and labels (b,) of these places."""
    images = torch.from_numpy(np.ascontiguousarray(split.images[index]))
    return images.permute(0, 3, 1, 2), torch.from_numpy(split.labels[index])


def to_pixels(images: Tensor, device: torch.device | str) -> Tensor:
    """uint8 (b, C, H, W) -> float32 in [0, 1] on the device."""
    return images.to(device).to(torch.float32).div(255).contiguous()


class Images:
    """`images[index]`: uint8 (b, C, H, W) of a split, on the device. They lie there from the start where they take at
    most `memory` bytes; on a CPU they stay where they are, mapped."""

    def __init__(self, split: Split, device: torch.device, memory: int) -> None:
        self.split, self.device = split, device
        held = device.type != "cpu" and split.images.nbytes <= memory
        self._there = torch.from_numpy(np.array(split.images)).to(device) if held else None

    def __getitem__(self, index: Tensor) -> Tensor:
        if self._there is None:
            return batch_of(self.split, index.numpy())[0].to(self.device)
        return self._there[index.to(self.device)].permute(0, 3, 1, 2)
