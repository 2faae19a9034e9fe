"""Decoders: what turns an encoder's features into logits, one for each variant.

Every decoder is called alike and answers alike, so that attacks, inference and verification need not know
which one they have:

    logits = decoder(features, draws=20, generator=generator)   # (draws, batch, classes)

A spiking decoder draws its input spikes at random, so one image has as many answers as draws; `stochastic`
says so, and a decoder that is not answers the same in each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor, nn

from models import declared
from models.encoding import ENCODING_GRADIENTS, NORMALISATIONS, RateEncoding
from models.expectation import has_closed_form
from models.firing import SPIKE_MODES
from models.membrane import KERNELS, PositiveScalar
from models.neurons import LIF, ParaLIF
from models.noise import Generator
from models.surrogate import ESTIMATORS, refuse_unknown, refuse_unknown_keys, surrogate_named

INITIAL_GAIN = 10.0
READOUTS = ("mean", "features")
# Settings that came later: named only where they are not as usual, so that equal files keep their sha256.
_ADDED = {"normalisation": "min_max", "encoding_gradient": "straight_through"}


@dataclass(frozen=True)
class DecoderConfig:
    """How a spiking decoder is built; the default decoder has no settings. Raises ValueError for a bad one.

    timesteps: steps an image is shown. gain (paralif): "learned", or a fixed positive scale of the logits.
    readout: "mean" over time, or "features" (lif) for what the study computed. hidden, beta (lif): neurons, and the
    decay per step. spike_mode (paralif): see
    `models.firing`. tau_mem, tau_syn, time_step (paralif): seconds. kernel (paralif): "causal", or "reference"
    for the published one. estimator (paralif): "exact" or "published". surrogate: see `models.surrogate`.
    learn_threshold: where the mode has one. learn_time_constants: tau_mem and tau_syn, or beta. normalisation,
    encoding_gradient: see `models.encoding.RateEncoding`.
    """

    timesteps: int = 20
    gain: float | str = "learned"
    readout: str = "mean"
    hidden: int = 256
    beta: float = 0.95
    spike_mode: str = "SB"
    tau_mem: float = 0.02
    tau_syn: float = 0.02
    time_step: float = 0.001
    kernel: str = "causal"
    estimator: str = "exact"
    surrogate: str = "atan"
    learn_threshold: bool = True
    learn_time_constants: bool = False
    normalisation: str = "min_max"
    encoding_gradient: str = "straight_through"

    def __post_init__(self) -> None:
        _require_integer("timesteps", self.timesteps, highest=10_000)
        _require_integer("hidden", self.hidden, highest=65_536)
        for name in ("tau_mem", "tau_syn", "time_step"):
            _require_between(name, getattr(self, name), low=0, high=float("inf"))
        _require_between("beta", self.beta, low=0, high=1)
        if self.gain != "learned":
            _require_between("gain", self.gain, low=0, high=float("inf"))
        for name in ("learn_threshold", "learn_time_constants"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        refuse_unknown(self.readout, allowed=READOUTS, what="readout")
        refuse_unknown(self.spike_mode, allowed=SPIKE_MODES, what="spike mode")
        refuse_unknown(self.kernel, allowed=KERNELS, what="kernel")
        refuse_unknown(self.estimator, allowed=ESTIMATORS, what="estimator")
        refuse_unknown(self.normalisation, allowed=NORMALISATIONS, what="normalisation")
        refuse_unknown(self.encoding_gradient, allowed=ENCODING_GRADIENTS, what="encoding gradient")
        surrogate_named(self.surrogate)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and booleans only: safe for JSON."""
        return {name: value for name, value in asdict(self).items() if _ADDED.get(name) != value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """The inverse of `to_dict`; missing keys take their defaults, unknown ones raise ValueError."""
        refuse_unknown_keys(values, allowed=tuple(field.name for field in fields(cls)), what="decoder setting")
        return cls(**values)


def _require_integer(name: str, value: object, *, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
        raise ValueError(f"{name} must be an integer from 1 to {highest}, got {value!r}")


def _require_between(name: str, value: object, *, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ValueError(f"{name} must be a number between {low:g} and {high:g}, got {value!r}")


class Trace(NamedTuple):
    """All that happened in a spiking decoder: time is the third dimension, N its hidden or output neurons."""

    input_spikes: Tensor  # (draws, batch, T, F), 0 or 1
    potential: Tensor  # (draws, batch, T, N)
    spikes: Tensor  # (draws, batch, T, N), 0 or 1
    logits: Tensor  # (draws, batch, classes)


class Decoder(nn.Module, ABC):
    """features (batch, F) to logits (draws, batch, classes)."""

    stochastic: bool

    @abstractmethod
    def forward(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Tensor:
        """Logits (draws, batch, classes), one independent draw of the noise each."""

    @property
    def has_expectation(self) -> bool:
        """Whether `expected` has a closed form."""
        return False

    def expected(self, features: Tensor) -> Tensor:
        """The mean of `forward` over its noise, (1, batch, classes): deterministic and differentiable.

        Raises ValueError where there is no closed form.
        """
        raise ValueError(f"{type(self).__name__} has no closed form of its expected logits")


class LinearDecoder(Decoder):
    """The default: one linear map. Not stochastic: every draw is the same view."""

    stochastic = False

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Tensor:
        """Logits (draws, batch, classes); `generator` is not used."""
        logits: Tensor = self.linear(features)
        return logits.expand(draws, -1, -1)

    @property
    def has_expectation(self) -> bool:
        """Nothing is random: the answer is its own mean."""
        return True

    def expected(self, features: Tensor) -> Tensor:
        """As `forward`."""
        return self.forward(features)


class SpikingDecoder(Decoder):
    """min-max -> Bernoulli spikes -> neurons -> mean over time. Subclasses say what the neurons are.

    Memory: the input spikes of all draws are held at once, draws x batch x T x F numbers (3 times that while
    they are drawn, once for the backward pass): 20 draws of 64 images with T = 20 take 6.5 MB at F = 64,
    210 MB at F = 2048. Split the batch where that is too much: the noise of a KeyedNoise does not change.
    """

    stochastic = True

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = RateEncoding(
            config.timesteps, normalisation=config.normalisation, gradient=config.encoding_gradient
        )

    @abstractmethod
    def read(self, spikes: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Input spikes (draws, batch, T, F) to (potential, spikes, logits), as in `Trace`."""

    def forward(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Tensor:
        """Logits (draws, batch, classes), one independent draw of the noise each."""
        return self.trace(features, draws=draws, generator=generator).logits

    def trace(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Trace:
        """The same pass with everything that happened in it; `forward` is its logits."""
        spikes = self.encoding(features, draws=draws, generator=generator)
        return Trace(spikes, *self.read(spikes, generator))

    def spike_rate(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> dict[str, Tensor]:
        """Spikes per neuron and step, a tensor () for the `input` and one for the `neurons`."""
        trace = self.trace(features, draws=draws, generator=generator)
        return {"input": trace.input_spikes.mean(), "neurons": trace.spikes.mean()}


class LIFDecoder(SpikingDecoder):
    """Linear(F, hidden) -> LIF -> Linear(hidden, classes), averaged over time: the spiking read-out.

    readout "features" is what the study's public code computed: the same loop over time is run, and then the encoder's
    features x are returned, logit_c = x_c. No parameter of the decoder has any part in that, so it learns nothing; the
    encoder learns to put class c on its c-th feature. It is a continuous network, whatever it is called, and its
    answers are the same in each draw. (The study's loss had all F features as logits; ours has the first `classes`.)

    The published code runs this loop and then returns the encoder's features; ours returns what the neurons
    say. The mean is taken before the second linear map, which it commutes with. The map scales the logits
    freely, so `gain` is not used.
    """

    def __init__(self, features: int, classes: int, config: DecoderConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(features, config.hidden)
        self.lif = LIF(
            beta=config.beta,
            surrogate=config.surrogate,
            learn_beta=config.learn_time_constants,
            learn_threshold=config.learn_threshold,
        )
        self.readout = nn.Linear(config.hidden, classes)
        if config.readout == "features":
            if features < classes:
                raise ValueError(f"readout 'features' needs as many features as classes, got {features} for {classes}")
            self.stochastic = False

    def trace(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Trace:
        """See the base class."""
        found = super().trace(features, draws=draws, generator=generator)
        if self.config.readout == "mean":
            return found
        return found._replace(logits=features[:, : self.readout.out_features].expand(draws, -1, -1))

    def read(self, spikes: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class; the neurons draw no numbers of their own."""
        fired, potential = self.lif(self.linear(spikes))
        return potential, fired, self.readout(fired.mean(-2))


class Gain(nn.Module):
    """Logits times a positive scale, fixed or learned from a start."""

    def __init__(self, gain: float | str) -> None:
        super().__init__()
        learned = gain == "learned"
        self.scale = PositiveScalar(INITIAL_GAIN if learned else float(gain), learn=learned)

    def forward(self, logits: Tensor) -> Tensor:
        """In the shape of `logits`."""
        scaled: Tensor = logits * self.scale()
        return scaled


class ParaLIFDecoder(SpikingDecoder):
    """ParaLIF(F, classes), the mean of its spikes over time, times a gain.

    The mean lies in [0, 1], and with it the published logits, whose cross-entropy over C classes cannot fall
    below ln(1 + (C - 1)/e): 1.46 for ten. The gain g lifts that to ln(1 + (C - 1) exp(-g)). It is learned
    by default, from 10: a floor of 4e-4 for ten classes and .0045 for a hundred.
    """

    def __init__(self, features: int, classes: int, config: DecoderConfig) -> None:
        super().__init__(config)
        if config.readout == "features":
            raise ValueError("readout 'features' is for the variant lif; paralif has 'mean'")
        self.paralif = ParaLIF(
            features,
            classes,
            spike_mode=config.spike_mode,
            tau_mem=config.tau_mem,
            tau_syn=config.tau_syn,
            time_step=config.time_step,
            kernel=config.kernel,
            estimator=config.estimator,
            surrogate=config.surrogate,
            learn_threshold=config.learn_threshold,
            learn_time_constants=config.learn_time_constants,
        )
        self.gain = Gain(config.gain)

    def read(self, spikes: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class."""
        fired, potential = self.paralif(spikes, generator)
        return potential, fired, self.gain(fired.mean(-2))

    @property
    def has_expectation(self) -> bool:
        """True but for the modes that fire on a rise of a non-linear level (SD, TD, TRD)."""
        return has_closed_form(self.config.spike_mode)

    def expected(self, features: Tensor, *, approximation: str = "hermite") -> Tensor:
        """The mean of `forward` over all its noise, (1, batch, classes), by `models.expectation`.

        approximation: "hermite", or "probit" for the modes SB and GS.
        """
        rates = self.encoding.rates(features)
        chances = self.paralif.expected(rates, self.config.timesteps, approximation=approximation)
        logits: Tensor = self.gain(chances.mean(-2))
        return logits[None].to(features.dtype)


DECODERS: dict[str, type[LIFDecoder] | type[ParaLIFDecoder]] = {"lif": LIFDecoder, "paralif": ParaLIFDecoder}


def variants() -> tuple[str, ...]:
    """The default decoder, then all that are declared."""
    return ("default", *declared.names("DECODERS"))


def build_decoder(variant: str, *, features: int, classes: int, config: DecoderConfig | None = None) -> Decoder:
    """The decoder of a variant. `config` None means the default settings."""
    refuse_unknown(variant, allowed=variants(), what="variant")
    if variant == "default":
        return LinearDecoder(features, classes)
    decoder: Decoder = declared.find("DECODERS", variant)(features, classes, config or DecoderConfig())
    return decoder
