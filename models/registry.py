"""What a network is, as data, and how it is built from that.

spec = ModelSpec("resnet20", "paralif", classes=10, image_shape=(3, 32, 32), mean=..., std=...)
model = build(spec)
model(pixels)                                          # (batch, classes), one draw
model.decoder(model.encoder(pixels), draws=20)         # (20, batch, classes)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from models import declared
from models.decoder import Decoder, DecoderConfig, build_decoder, variants
from models.encoder import Encoder
from models.noise import Generator
from models.normalize import Normalize
from models.quantisation import PRECISIONS
from models.resnet import STEMS
from models.surrogate import refuse_unknown, refuse_unknown_keys

LARGEST_IMAGE = 1024
MOST_CLASSES = 100_000


@dataclass(frozen=True)
class ModelSpec:
    """Everything that determines a network but its weights. Raises ValueError where it cannot be built.

    image_shape: (channels, height, width) of the images as they come, pixels in [0, 1]. mean, std: one number a
    channel of the network's input; three for a grey image repeat its channel. image_size: side to resize to
    inside the model, None for none. resize: shorter side before a crop of the middle to image_size, None for no
    crop. stem: "imagenet" or "cifar", of resnet18 and resnet50. decoder: None for the
    default variant; the spiking ones take the default settings where it is None. precision: "float32" or "int8".
    """

    architecture: str
    variant: str
    classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None = None
    stem: str = "cifar"
    decoder: DecoderConfig | None = None
    resize: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        refuse_unknown(self.architecture, allowed=declared.names("ENCODERS"), what="architecture")
        refuse_unknown(self.variant, allowed=variants(), what="variant")
        refuse_unknown(self.stem, allowed=STEMS, what="stem")
        refuse_unknown(self.precision, allowed=PRECISIONS, what="precision")
        for name in ("image_shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.decoder, DecoderConfig | None):
            raise ValueError(f"not a model specification: decoder must be settings or null, got {self.decoder!r}")
        settings = self.decoder or DecoderConfig()
        object.__setattr__(self, "decoder", None if self.variant == "default" else settings)
        _check_classes(self.classes)
        _check_images(self.image_shape, self.image_size)
        _check_resize(self.resize, self.image_size)
        _check_channels(self.image_shape[0], self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and None only: safe for JSON, and the same after a round trip.

        `precision` only where it is not float32: files written before there was a choice keep their sha256.
        """
        values = asdict(self) | {"decoder": None if self.decoder is None else self.decoder.to_dict()}
        if self.precision == "float32":
            del values["precision"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_dict`. Raises ValueError for unknown or missing keys and for bad values."""
        refuse_unknown_keys(values, allowed=tuple(field.name for field in fields(cls)), what="model setting")
        given = dict(values)
        if isinstance(given.get("decoder"), Mapping):
            given["decoder"] = DecoderConfig.from_dict(given["decoder"])
        try:
            return cls(**given)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a model specification: {error}") from error


def _is_integer(value: object, *, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _check_classes(classes: int) -> None:
    if not _is_integer(classes, low=2, high=MOST_CLASSES):
        raise ValueError(f"classes must be 2 to {MOST_CLASSES}, got {classes!r}")


def _check_images(shape: Sequence[int], size: int | None) -> None:
    if len(shape) != 3 or not _is_integer(shape[0], low=1, high=3):
        raise ValueError(f"image_shape must be (1 to 3 channels, height, width), got {tuple(shape)!r}")
    sides = [*shape[1:], *([] if size is None else [size])]
    if not all(_is_integer(side, low=8, high=LARGEST_IMAGE) for side in sides):
        raise ValueError(f"images must have sides of 8 to {LARGEST_IMAGE} pixels, got {sides}")


def _check_resize(resize: int | None, image_size: int | None) -> None:
    if resize is not None and (image_size is None or not _is_integer(resize, low=image_size, high=LARGEST_IMAGE)):
        raise ValueError(f"resize must be image_size to {LARGEST_IMAGE} pixels, got {resize!r} for {image_size!r}")


def _check_channels(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or len(mean) not in {channels, 3} or (len(mean) != channels and channels != 1):
        raise ValueError(f"{channels} channels do not go with {len(mean)} means and {len(std)} stds")
    numbers = [*mean, *std]
    if not all(isinstance(value, int | float) and abs(value) < 1e6 for value in numbers) or min(std) <= 0:
        raise ValueError(f"mean and std must be finite numbers, std positive, got {mean} and {std}")


class Classifier(nn.Module):
    """An encoder, a decoder, and the specification they were built from. Pixels (batch, C, H, W) in [0, 1]."""

    def __init__(self, spec: ModelSpec, *, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.decoder = decoder

    @property
    def stochastic(self) -> bool:
        """Whether two draws on one image may differ."""
        return self.decoder.stochastic

    def forward(self, pixels: Tensor, generator: Generator = None) -> Tensor:
        """Logits (batch, classes) of one draw."""
        logits: Tensor = self.decoder(self.encoder(pixels), generator=generator)[0]
        return logits


def build(spec: ModelSpec) -> Classifier:
    """A freshly initialised network; the initial weights come from torch's global generator."""
    if spec.precision == "int8":
        from models.quantised_network import prepared, quantise  # here: it takes networks, and this makes them

        return quantise(prepared(build(replace(spec, precision="float32")).eval()))
    normalize = Normalize(spec.mean, spec.std, image_size=spec.image_size, resize=spec.resize)
    encoder: Encoder = declared.find("ENCODERS", spec.architecture)(normalize, stem=spec.stem)
    return Classifier(spec, encoder=encoder, decoder=_decoder(spec, encoder))


def branch(parent: Classifier, variant: str, decoder: DecoderConfig | None = None) -> Classifier:
    """A copy of the parent's encoder with a new decoder of `variant`; the parent stays as it is.

    `decoder` None: the variant's default settings. The new decoder's weights come from torch's global generator.
    """
    if parent.spec.precision != "float32":
        raise ValueError(f"a branch is made of a float32 network, not of {parent.spec.precision}")
    spec = replace(parent.spec, variant=variant, decoder=decoder)
    encoder = copy.deepcopy(parent.encoder)
    return Classifier(spec, encoder=encoder, decoder=_decoder(spec, encoder))


def _decoder(spec: ModelSpec, encoder: Encoder) -> Decoder:
    return build_decoder(spec.variant, features=encoder.features, classes=spec.classes, config=spec.decoder)
