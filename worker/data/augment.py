"""Random crops and mirror images, for a whole batch at once, from a generator of one's own."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from app.domain.datasets import Augmentation


def crop_and_flip(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Images (n, C, H, W) shifted by up to `crop_padding` pixels (black fills the edge), half of them mirrored.

    On the images' device; the generator is one of the CPU, so that a GPU crops as a CPU does.
    """
    count, _, height, width = images.shape
    margin = augmentation.crop_padding
    padded = pad(images, (margin, margin, margin, margin))
    rows = _offsets(count, margin, height, generator)  # (n, H)
    columns = _offsets(count, margin, width, generator)  # (n, W)
    if augmentation.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Indices around the channel slice put it last: (n, H, W, C).
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _offsets(count: int, margin: int, side: int, generator: torch.Generator) -> Tensor:
    start = torch.randint(0, 2 * margin + 1, (count, 1), generator=generator)
    return start + torch.arange(side)


def rand_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """torchvision's RandAugment (Cubuk et al. 2020, arXiv:1909.13719) on uint8 (n, C, H, W), image by image.

    It draws from the global generator; that is seeded from `generator` here and put back after.
    """
    from torchvision.transforms.v2 import RandAugment

    augment = RandAugment()
    seed = int(torch.randint(0, 2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([augment(image) for image in images])
