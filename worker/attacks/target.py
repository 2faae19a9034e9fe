"""The classifier as an attack sees it: cut into encoder and decoder, in evaluation mode, in [0, 1] pixels.

A stochastic model's noise lives in the decoder alone, so `draws` answers cost one encoder pass, `draws`
batched decoder passes and one encoder backward pass: not `draws` full passes. An attack may differentiate a
spiking model in another way than the model's own (`models.gradients`), and always through the exact estimator,
also where the model was trained with the published one.

    with frozen(model):
        target = Target(model, batch_size=128)
        target.forward(x, draws=32, noise=KeyedNoise(image_keys(seed, "selection", ids))).logits
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from app.domain.attacks import OWN_GRADIENT
from models.encoder import Encoder
from models.encoding import differentiable
from models.folding import folded
from models.gradients import AsTrained, Gradient, gradient_named
from models.noise import KeyedNoise


class Classifier(Protocol):
    """What a model must offer; `models` builds such, and so may a test."""

    @property
    def stochastic(self) -> bool:
        """Whether two passes over one image may differ."""

    @property
    def encoder(self) -> Callable[..., Any]:
        """Pixels (batch, C, H, W) in [0, 1] -> features (batch, F)."""

    @property
    def decoder(self) -> Callable[..., Any]:
        """(features, *, draws, generator) -> logits (draws, batch, classes)."""

    def modules(self) -> Iterator[nn.Module]:
        """As of nn.Module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of nn.Module."""


@dataclass(frozen=True)
class Point:
    """What was seen at some images: features (batch, F), logits (draws, batch, classes), and what was derived.

    `nearly`: through the folded encoder, so not to the last bit what the model says.
    """

    features: Tensor
    logits: Tensor
    derived: Tensor | None = None  # (batch, ...)
    nearly: bool = False

    @property
    def gradient(self) -> Tensor:
        """What `differentiate` derived; asking after a forward pass is an error."""
        assert self.derived is not None, "this point comes from a forward pass"
        return self.derived


# Decoder inputs at a time, draws x batch x F: a spiking decoder holds a few times 20 steps of each.
_NUMBERS_AT_ONCE = 2**21

# (pixels of a micro-batch with their graph, logits, the micro-batch's rows) -> (micro-batch, ...)
Derive: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


@contextmanager
def frozen(model: Classifier) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters inside; both as they were afterwards.

    Without parameter gradients the graph keeps no activations for them.
    """
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, want in wanted:
            parameter.requires_grad_(want)


class Target:
    """A model to be attacked. Takes any number of images, and works through them `batch_size` at a time.

    An attack hands over all images that still stand, so micro-batches stay full while images drop out.

    gradient: how the search differentiates the model, see `through`. With `expected`, `forward` and
    `differentiate` answer with the expected logits as a single draw; `answer` and `decode`, on which verdicts
    rest, are always the model itself, with its noise. siblings: networks that a transfer attack makes its images on.
    fold: gradients and queries go through an encoder whose batch norm is folded (`models.folding`), where the model has
    one of ours; `forward` and `answer` ask the model as it is. as_trained: `own` gradients are those of training, and
    once: one draw says whether an image is fooled (`app.domain.published`).
    """

    def __init__(
        self, model: Classifier, *, batch_size: int = 128, gradient: Gradient | None = None,
        siblings: Sequence[Classifier] = (), fold: bool = True, as_trained: bool = False, once: bool = False,
    ) -> None:
        if any(module.training for module in model.modules()):
            raise ValueError("the model is in training mode: its batch norm would see the attack")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.model = model
        self.batch_size = batch_size
        self.stochastic = bool(model.stochastic)
        self.as_trained, self.once = as_trained, once
        self.gradient = gradient or self._gradient_named(OWN_GRADIENT)
        self._expects = self.stochastic and self.gradient.expects
        self.siblings = tuple(Target(sibling, batch_size=batch_size, fold=fold) for sibling in siblings)
        self._fold = fold
        self._twins: list[Callable[..., Any]] = []  # one, shared by those that look `through` another gradient

    def __repr__(self) -> str:
        return (
            f"Target({type(self.model).__name__}, batch_size={self.batch_size}, stochastic={self.stochastic}, "
            f"gradient={self.gradient.name})"
        )

    def has_gradient(self, gradient: str) -> bool:
        """Whether this name of the catalogue is anything to the model. Raises ValueError for an unknown name."""
        return gradient_named(gradient).applies_to(self.model)

    def through(self, gradient: str) -> "Target":
        """The same model for one attack that differentiates it by that name. Raises ValueError where it cannot."""
        chosen = self._gradient_named(gradient)
        if not chosen.applies_to(self.model):
            raise ValueError(f"{type(self.model).__name__} has no gradient {gradient!r}")
        other = Target(
            self.model, batch_size=self.batch_size, gradient=chosen, fold=self._fold, as_trained=self.as_trained,
            once=self.once,
        )
        other.siblings, other._twins = self.siblings, self._twins
        return other

    def _gradient_named(self, name: str) -> Gradient:
        return AsTrained() if self.as_trained and name == OWN_GRADIENT else gradient_named(name)

    def keep(self, standing: Tensor) -> None:
        """Only these of the samples, int64 positions, will be asked about from now on, counted anew from 0."""
        self.gradient.keep(standing)

    def effective_draws(self, draws: int) -> int:
        """1 for a deterministic model, whose draws are all alike."""
        return draws if self.stochastic else 1

    @torch.no_grad()
    def forward(self, x: Tensor, *, draws: int = 1, noise: KeyedNoise | None = None) -> Point:
        """The model as a search sees it at x (batch, C, H, W): an encoder pass, `draws` decoder passes or the mean."""
        features = self._encode(x, self.model.encoder)
        return Point(features, self._seen(features, draws, noise))

    @torch.no_grad()
    def query(self, x: Tensor, *, draws: int = 1, noise: KeyedNoise | None = None) -> Point:
        """The same through the encoder that gradients go through: what a search asks of its steps."""
        encoder = self._searched()
        features = self._encode(x, encoder)
        return Point(features, self._seen(features, draws, noise), nearly=encoder is not self.model.encoder)

    @torch.no_grad()
    def answer(self, x: Tensor, *, draws: int = 1, noise: KeyedNoise | None = None) -> Point:
        """What the model itself says at x, whatever the search sees."""
        features = self._encode(x, self.model.encoder)
        return Point(features, self.decode(features, draws=draws, noise=noise))

    def differentiate(
        self, x: Tensor, derive: Derive, *, draws: int = 1, noise: KeyedNoise | None = None
    ) -> Point:
        """Like `forward`, with whatever `derive` works out from the graph of each micro-batch."""
        parts, encoder = [], self._searched()
        for rows in self._rows(x):
            with torch.enable_grad(), self._passable(), self.gradient.used_by(self.model, rows):
                pixels = x[rows].detach().requires_grad_()
                features = encoder(pixels)
                logits = self._attached(self._differentiable(features, draws, noise, rows), features)
                derived = derive(pixels, logits, rows)
            parts.append((features.detach(), logits.detach(), derived.detach()))
        found, logits_, derived_ = zip(*parts, strict=True)
        nearly = encoder is not self.model.encoder
        return Point(torch.cat(found), torch.cat(logits_, dim=1), torch.cat(derived_), nearly)

    def _passable(self) -> AbstractContextManager[None]:
        return nullcontext() if isinstance(self.gradient, AsTrained) else differentiable(self.model)

    @torch.no_grad()
    def decode(self, features: Tensor, *, draws: int = 1, noise: KeyedNoise | None = None) -> Tensor:
        """Logits (draws, batch, classes) of features kept from an earlier point: no encoder pass."""
        at_once = max(_NUMBERS_AT_ONCE // (draws * features.shape[1]), 1)
        rows = torch.arange(len(features), device=features.device)
        parts = [self._decode(features[part], draws, noise, part) for part in torch.split(rows, at_once)]
        return torch.cat(parts, dim=1)

    def _differentiable(self, features: Tensor, draws: int, noise: KeyedNoise | None, rows: Tensor) -> Tensor:
        if not self._expects:
            return self._decode(features, draws, noise, rows)
        logits: Tensor = self.model.decoder.expected(features)  # type: ignore[attr-defined]
        return logits

    @staticmethod
    def _attached(logits: Tensor, features: Tensor) -> Tensor:
        """Logits that nothing was differentiated for, as trained, have a gradient of zero."""
        return logits if logits.requires_grad else logits + 0 * features.sum(1)[:, None]

    def _searched(self) -> Callable[..., Any]:
        """The encoder that gradients and queries go through, made when the first is asked for."""
        if not self._twins:
            encoder = self.model.encoder
            self._twins.append(folded(encoder) if self._fold and isinstance(encoder, Encoder) else encoder)
        return self._twins[0]

    def _encode(self, x: Tensor, encoder: Callable[..., Any]) -> Tensor:
        return torch.cat([encoder(x[rows]) for rows in self._rows(x)])

    def _seen(self, features: Tensor, draws: int, noise: KeyedNoise | None) -> Tensor:
        if not self._expects:
            return self.decode(features, draws=draws, noise=noise)
        logits: Tensor = self.model.decoder.expected(features)  # type: ignore[attr-defined]
        return logits

    def _rows(self, x: Tensor) -> Iterator[Tensor]:
        return iter(torch.split(torch.arange(len(x), device=x.device), self.batch_size))

    def _decode(self, features: Tensor, draws: int, noise: KeyedNoise | None, rows: Tensor) -> Tensor:
        logits: Tensor
        if not self.stochastic:
            logits = self.model.decoder(features, draws=1, generator=None)
        elif noise is None:
            raise ValueError("a stochastic model needs keyed noise: its figures would not repeat")
        else:
            logits = self.model.decoder(features, draws=draws, generator=noise.select(rows))
        return logits
