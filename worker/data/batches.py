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
