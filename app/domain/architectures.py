"""Facts about the architectures and variants a request may name. The networks are in `models`, whose modules declare
under the same names how each is built: `models.declared`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.domain.plugins import Catalogue


@dataclass(frozen=True)
class VariantFacts:
    """A decoder. `head` describes it in a model card; `settings`: what of an experiment's `decoder` it reads. All but
    `default` are branches of a continuous network."""

    name: str
    title: str
    head: str
    settings: frozenset[str] = frozenset()


_COMMON = frozenset({"timesteps", "readout", "surrogate", "learn_threshold", "learn_time_constants", "normalisation",
                     "encoding_gradient"})  # fmt: skip
VARIANT_FACTS = Catalogue(
    "variants", VariantFacts,
    (
        VariantFacts("default", "default", "a linear layer on the encoder's features"),
        VariantFacts(
            "lif", "LIF", "leaky integrate-and-fire neurons, simulated step by step", _COMMON | {"hidden", "beta"},
        ),
        VariantFacts(
            "paralif", "ParaLIF", "ParaLIF neurons: all steps at once, spikes drawn at random",
            _COMMON | {"gain", "spike_mode", "tau_mem", "tau_syn", "kernel", "estimator"},
        ),
    ),
)  # fmt: skip
VARIANTS: tuple[str, ...] = tuple(VARIANT_FACTS)
SPIKING: tuple[str, ...] = tuple(name for name in VARIANTS if name != "default")


def variant_name(variant: str) -> str:
    """As people write it, in prose and in tables; addresses, JSON and CSV have the id: `"paralif"` -> `"ParaLIF"`."""
    return VARIANT_FACTS[variant].title if variant in VARIANT_FACTS else variant


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


ARCHITECTURES = Catalogue(
    "architectures", Architecture,
    (
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
    ),
)
# What a request may name: pydantic reads these when the service starts.
if TYPE_CHECKING:
    Variant = str
    ArchitectureName = str
else:
    Variant = Literal[VARIANTS]
    ArchitectureName = Literal[tuple(ARCHITECTURES)]
