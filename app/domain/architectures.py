"""Facts about the architectures and variants a request may name. The networks are in `models`."""

from dataclasses import dataclass
from typing import Literal

Variant = Literal["default", "lif", "paralif"]
VARIANTS: tuple[Variant, ...] = ("default", "lif", "paralif")
SPIKING: tuple[Variant, ...] = ("lif", "paralif")
_VARIANT_NAMES = {"default": "default", "lif": "LIF", "paralif": "ParaLIF"}


def variant_name(variant: str) -> str:
    """As people write it, in prose and in tables; addresses, JSON and CSV have the id: `"paralif"` -> `"ParaLIF"`."""
    return _VARIANT_NAMES.get(variant, variant)


@dataclass(frozen=True)
class Weights:
    """Pretrained weights on offer, with their ImageNet top-1 accuracy as a fraction.

    `sha256_prefix`: how the sha256 of torchvision's own file begins. `resize`: the side, in pixels, to which
    torchvision resizes before it crops the middle 224.
    """

    name: str
    title: str
    imagenet_accuracy: float
    sha256_prefix: str
    resize: int


@dataclass(frozen=True)
class Architecture:
    """`depths`: how many residual groups can be frozen; `features`: width after the average pool; `stems`: what may
    come first, a 7x7 convolution of stride 2 with a max pool ("imagenet"), or a 3x3 convolution ("cifar")."""

    name: str
    title: str
    reference: str
    depths: int
    features: int
    minimum_size: int
    stems: tuple[str, ...]
    weights: tuple[Weights, ...] = ()


ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(
            "resnet20", "ResNet-20 for CIFAR", "He et al. 2016, arXiv:1512.03385, section 4.2", 3, 64, 8, ("cifar",),
        ),
        Architecture(
            "resnet18", "ResNet-18", "He et al. 2016, arXiv:1512.03385", 4, 512, 8, ("imagenet", "cifar"),
            (Weights("imagenet", "torchvision ResNet18_Weights.IMAGENET1K_V1", 0.69758, "f37072fd", 256),),
        ),
        Architecture(
            "resnet50", "ResNet-50", "He et al. 2016, arXiv:1512.03385", 4, 2048, 8, ("imagenet", "cifar"),
            (Weights("imagenet", "torchvision ResNet50_Weights.IMAGENET1K_V2", 0.80858, "11ad3fa6", 232),),
        ),
    )
}
