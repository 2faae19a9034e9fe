"""Ways to differentiate a spiking network, by name: what attacks choose from.

The outcome of an attack on a spiking network depends on the gradient more than on anything else, and the
attacker is free to choose it. Each name changes the backward pass alone; spikes and logits stay the same to the
last bit. `expected` alone answers with other logits, those averaged over all noise.

| name | the backward pass |
|---|---|
| own | the network's own surrogate, and always the exact estimator of a Bernoulli draw |
| sampled | the same, for stochastic networks only: draws are then worth averaging |
| expected | of the expected logits (`models.expectation`); a deterministic network's are its own |
| straight_through, atan:a, rectangle:w, fast_sigmoid:s | another surrogate (`models.surrogate`) |
| bptr | LIF: back through the rate, 1 where a neuron fires at all, time collapsed |
| rga | LIF: the slope of the rate over the mean input |
| pdsg | LIF: a Gaussian as wide as the potentials spread |
| assg | LIF: an ATan as sharp as the potentials are near the threshold, adapted on the way |

    gradient = gradient_named("atan:4")
    with gradient.used_by(model, rows): ...
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from models.neurons import LIF, ParaLIF
from models.surrogate import SURROGATES, Surrogate, refuse_unknown, surrogate_named


@contextmanager
def differentiated_by(
    model: nn.Module, *, surrogate: str | Surrogate | None = None, estimator: str | None = None
) -> Iterator[None]:
    """Within the block, the neurons of `model` use another surrogate or estimator in their backward passes.

    The forward pass stays as it is. For attacks, which choose their own gradients:

        with differentiated_by(model, surrogate="atan:4", estimator="exact"): ...
    """
    lifs = [(module, module.surrogate) for module in neurons(model, LIF)]
    paralifs = [(module, module.firing) for module in neurons(model, ParaLIF)]
    chosen = surrogate_named(surrogate) if isinstance(surrogate, str) else surrogate
    others = [
        replace(firing, surrogate=chosen or firing.surrogate, estimator=estimator or firing.estimator)
        for _, firing in paralifs
    ]
    try:
        for lif, before in lifs:
            lif.surrogate = chosen or before
        for (paralif, _), other in zip(paralifs, others, strict=True):
            paralif.firing = other
        yield
    finally:
        for lif, before in lifs:
            lif.surrogate = before
        for paralif, firing in paralifs:
            paralif.firing = firing


def neurons(model: Any, kind: type[LIF] | type[ParaLIF]) -> list[Any]:
    """The neurons of one kind in a model, or in anything that lists its `modules()`."""
    return [module for module in model.modules() if isinstance(module, kind)]


class Gradient:
    """The network's own gradient; the others derive from it.

    `own` never is the published estimator, which is biased: a figure must not profit from it, whatever the network
    was trained with.
    """

    name: str = "own"
    expects: ClassVar[bool] = False  # the logits to be differentiated are the expected ones

    def applies_to(self, model: Any) -> bool:
        """Whether it is anything to this model, and not the same as its own."""
        return True

    @contextmanager
    def used_by(self, model: Any, rows: Tensor) -> Iterator[None]:
        """Forward passes within the block are differentiated this way; the backward pass belongs inside too.

        rows: int64 (batch,), which of the samples at hand the pass is about: see `keep`.
        """
        with differentiated_by(model, estimator="exact"):
            yield

    def keep(self, standing: Tensor) -> None:
        """From now on samples are counted among `standing`, int64: for gradients that remember theirs."""


class AsTrained(Gradient):
    """The backward pass that training used, its biased estimator, clamps and missing gradients included.

    For reproduction only, and not in the catalogue: no attack may choose it.
    """

    name = "as-trained"

    @contextmanager
    def used_by(self, model: Any, rows: Tensor) -> Iterator[None]:
        """See the base class."""
        yield


class Sampled(Gradient):
    """The own gradient, where it is a random one."""

    name = "sampled"

    def applies_to(self, model: Any) -> bool:
        """Stochastic models."""
        return bool(model.stochastic)


class Expected(Gradient):
    """That of the expected logits: EOT with infinitely many draws, in one pass."""

    name = "expected"
    expects = True

    def applies_to(self, model: Any) -> bool:
        """Models whose decoder has a closed form; deterministic ones, whose every answer is the expected one."""
        return not model.stochastic or bool(getattr(model.decoder, "has_expectation", False))


class BySurrogate(Gradient):
    """Another surrogate in the place of the network's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.surrogate = surrogate_named(name)

    def applies_to(self, model: Any) -> bool:
        """Models with LIF neurons, or ParaLIF neurons that fire at a threshold."""
        return bool(neurons(model, LIF)) or any(p.firing.uses_surrogate for p in neurons(model, ParaLIF))

    @contextmanager
    def used_by(self, model: Any, rows: Tensor) -> Iterator[None]:
        """See the base class."""
        with differentiated_by(model, surrogate=self.surrogate, estimator="exact"):
            yield


class _OfLIF(Gradient):
    """A gradient defined for LIF neurons alone."""

    def applies_to(self, model: Any) -> bool:
        """Models with LIF neurons."""
        return bool(neurons(model, LIF))


class _ByRate(_OfLIF, ABC):
    """dS_t/dx_t = a slope of the whole sequence, and nothing flows between steps.

    Of a static image the steps' gradients are added up in the end, which makes it the gradient of the rate.
    """

    @abstractmethod
    def slope(self, neuron: LIF, x: Tensor, spikes: Tensor) -> Tensor:
        """Of the rate over the mean input, (..., 1, features), from x and spikes (..., T, features)."""

    @contextmanager
    def used_by(self, model: Any, rows: Tensor) -> Iterator[None]:
        """See the base class."""

        def hook(neuron: nn.Module, args: tuple[Tensor], output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            (x,), (spikes, potential) = args, output
            with torch.no_grad():
                slope = self.slope(cast("LIF", neuron), x, spikes)
            return _passed_back(x, spikes.detach(), slope), potential.detach()

        with ExitStack() as hooks:
            for neuron in neurons(model, LIF):
                hooks.callback(neuron.register_forward_hook(hook).remove)
            yield


class BPTR(_ByRate):
    """Backward pass through rate: slope 1 where the neuron fires at all, else 0.

    Ding, Bu, Yu, Huang & Liu 2022, "SNN-RAT: robustness-enhanced spiking neural network through regularized
    adversarial training", NeurIPS, openreview xwBdjfKt7_W.
    """

    name = "bptr"

    def slope(self, neuron: LIF, x: Tensor, spikes: Tensor) -> Tensor:
        """See the class."""
        return (spikes.mean(-2, keepdim=True) > 0).to(x.dtype)


class RGA(_ByRate):
    """Rate gradient approximation: the rate as a piecewise linear function of the mean input x / threshold.

    With leak tau and gamma = .2 its slope is gamma on [0, 1 - tau), where a neuron fires by accident only;
    (1 - gamma + gamma tau) / (1 + tau) on [1 - tau, 2]; 0 elsewhere. Bu, Ding, Hao & Yu 2023, "Rate gradient
    approximation attack threats deep spiking neural networks", CVPR.
    """

    name = "rga"
    gamma = 0.2

    def slope(self, neuron: LIF, x: Tensor, spikes: Tensor) -> Tensor:
        """See the class; the formula has the threshold 1, so x is measured in thresholds."""
        drive, leak = x.mean(-2, keepdim=True) / neuron.threshold, neuron.beta
        steep = (1 - self.gamma + self.gamma * leak) / (1 + leak)
        below = ((drive >= 0) & (drive < 1 - leak)).to(x.dtype)
        above = ((drive >= 1 - leak) & (drive <= 2)).to(x.dtype)
        return (self.gamma * below + steep * above) / neuron.threshold


class _Adapted(_OfLIF, ABC):
    """A surrogate for each LIF layer that looks at the layer's potentials."""

    @abstractmethod
    def surrogate_of(self, layer: int, rows: Tensor) -> Surrogate:
        """That of LIF layer number `layer` for a pass over the samples `rows`."""

    @contextmanager
    def used_by(self, model: Any, rows: Tensor) -> Iterator[None]:
        """See the base class."""
        with ExitStack() as changes:
            for layer, neuron in enumerate(neurons(model, LIF)):
                changes.enter_context(differentiated_by(neuron, surrogate=self.surrogate_of(layer, rows)))
            yield


class PDSG(_Adapted):
    """Potential-dependent surrogate gradient; see `PotentialDependent`."""

    name = "pdsg"

    def surrogate_of(self, layer: int, rows: Tensor) -> Surrogate:
        """The same for all: it remembers nothing."""
        return PotentialDependent()


class PotentialDependent:
    """The density of a Gaussian at x = u - threshold: standard deviation sigma_t, mean sigma_t / 2.

    sigma_t: the spread of the potentials over the layer's neurons and the steps up to t, 1 where they are all
    alike. Lun et al. 2025, "Towards effective and sparse adversarial attack on
    spiking neural networks via breaking invisible surrogate gradients", CVPR, arXiv 2503.03272. Differs in
    taking each image and draw by itself, where the published code takes the batch together: an image's result
    would depend on its neighbours.
    """

    name: ClassVar[str] = "pdsg"

    def derivative(self, x: Tensor) -> Tensor:
        """x: (T, ..., features), time first, as `lif` differentiates it."""
        sigma = _spread_so_far(x)
        return torch.exp(-0.5 * ((x - sigma / 2) / sigma).square()) / (math.sqrt(2 * math.pi) * sigma)


def _spread_so_far(x: Tensor) -> Tensor:
    """The standard deviation (n - 1) over the features and all steps up to each, (T, ..., 1); 1 for 0."""
    centred = (x - x.mean((0, -1), keepdim=True)).double()  # running sums of squares would cancel in float32
    steps = torch.arange(1, len(x) + 1, device=x.device).view(-1, *[1] * (x.dim() - 1))
    count = steps * x.shape[-1]
    total, squares = centred.sum(-1, keepdim=True).cumsum(0), centred.square().sum(-1, keepdim=True).cumsum(0)
    variance = (squares - total.square() / count) / (count - 1).clamp_min(1)
    sigma = variance.clamp_min(0).sqrt().to(x.dtype)
    return torch.where(sigma > 1e-6, sigma, 1)


class ASSG(_Adapted):
    """Adaptive sharpness surrogate gradient: the ATan's alpha follows how far u lies from the threshold.

        M <- .9 M + .1 |x|        D <- .9 D + .1 ||x| - M|        alpha = a / (M + 1.5 D + 1e-4)

    with x = u - threshold, for each sample, step and neuron, over the iterations of an attack, from M = 1 and D = 0;
    a = 2 tan(A pi) / pi with A = .425 bounds how much of the gradient may vanish. Wang, Zhao, Chen, Zhang & Zeng
    2025, arXiv 2512.22522. Where an iteration has several draws, |x| and its deviation are their means.

    It remembers, so an attack takes a new one, names the `rows` of each pass and tells it which are kept.
    """

    name = "assg"
    decay = 0.9
    share = 0.425

    def __init__(self) -> None:
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}  # of a layer: M and D, (T, samples, features)

    def keep(self, standing: Tensor) -> None:
        """Forgets all but the samples `standing`."""
        self._moments = {
            layer: (mean[:, standing], spread[:, standing]) for layer, (mean, spread) in self._moments.items()
        }

    def surrogate_of(self, layer: int, rows: Tensor) -> Surrogate:
        """One for one pass, which takes part in the moments once."""
        return AdaptiveSharpness(lambda x: self._alpha(layer, rows, x))

    def _alpha(self, layer: int, rows: Tensor, x: Tensor) -> Tensor:
        """The pass's sharpness, (T, 1, batch, features), from x (T, draws, batch, features)."""
        mean, spread = self._grown(layer, int(rows.max()) + 1, x)
        size = x.abs()
        mean[:, rows] = torch.lerp(size.mean(1), mean[:, rows], self.decay)
        apart = (size - mean[:, None, rows]).abs().mean(1)
        spread[:, rows] = torch.lerp(apart, spread[:, rows], self.decay)
        bound = 2 * math.tan(self.share * math.pi) / math.pi
        return (bound / (mean[:, rows] + 1.5 * spread[:, rows] + 1e-4))[:, None]

    def _grown(self, layer: int, samples: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's moments, with room for so many samples."""
        shape = (len(x), 0, x.shape[-1])
        mean, spread = self._moments.get(layer, (x.new_empty(shape), x.new_empty(shape)))
        if (missing := samples - mean.shape[1]) > 0:
            fresh = x.new_zeros(len(x), missing, x.shape[-1])
            mean, spread = torch.cat((mean, fresh + 1), 1), torch.cat((spread, fresh), 1)
            self._moments[layer] = mean, spread
        return mean, spread


class AdaptiveSharpness:
    """(alpha/2) / (1 + (pi alpha x / 2)^2) with an alpha for each number, asked for once."""

    name: ClassVar[str] = "assg"

    def __init__(self, sharpness: Callable[[Tensor], Tensor]) -> None:
        self.sharpness = sharpness
        self._alpha: Tensor | None = None

    def derivative(self, x: Tensor) -> Tensor:
        """x: (T, draws, batch, features), time first, as `lif` differentiates it."""
        if self._alpha is None:
            self._alpha = self.sharpness(x)
        return (self._alpha / 2) / (1 + (math.pi / 2 * self._alpha * x).square())


GRADIENTS: dict[str, Callable[[], Gradient]] = {
    kind.name: kind for kind in (Gradient, Sampled, Expected, BPTR, RGA, PDSG, ASSG)
}


def gradient_named(name: str) -> Gradient:
    """A new one of that name: of this module's, or "surrogate" or "surrogate:parameter" as in `models.surrogate`.

    Raises ValueError for an unknown name or a bad parameter.
    """
    base = name.partition(":")[0]
    refuse_unknown(base, allowed=(*GRADIENTS, *SURROGATES), what="gradient")
    if base in SURROGATES:
        return BySurrogate(name)
    if base != name:
        raise ValueError(f"gradient {base!r} has no parameter, got {name!r}")
    return GRADIENTS[name]()


def _passed_back(x: Tensor, spikes: Tensor, slope: Tensor) -> Tensor:
    """`spikes`, bit for bit, whose gradient with respect to x is `slope` times its own."""
    result: Tensor = _PassedBack.apply(x, spikes, slope)
    return result


class _PassedBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spikes: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None
