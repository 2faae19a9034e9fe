"""Counts: a linear read-out of how often each feature spiked."""

from torch import Tensor, nn

from models.decoder import Decoder, DecoderConfig
from models.encoding import min_max, rate_encode
from models.noise import Generator


class CountsDecoder(Decoder):
    """z = W mean_t s_t + b, s_t ~ Bernoulli(min-max of the features). E z = W p + b, exactly."""

    stochastic = True
    has_expectation = True

    def __init__(self, features: int, classes: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(features, classes)

    def forward(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Tensor:
        """Logits (draws, batch, classes)."""
        spikes = rate_encode(min_max(features), self.config.timesteps, draws, generator)  # (draws, batch, T, F)
        logits: Tensor = self.linear(spikes.mean(-2))
        return logits

    def expected(self, features: Tensor) -> Tensor:
        """Logits (1, batch, classes) averaged over all noise."""
        logits: Tensor = self.linear(min_max(features))
        return logits[None]


DECODERS = {"counts": CountsDecoder}  # what a module in models/ declares
