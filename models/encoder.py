"""The encoder: everything up to and with the average pool, cut into a stem and residual layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.normalize import Normalize


class Encoder(nn.Module):
    """pixels (batch, C, H, W) in [0, 1] to features (batch, F): normalise, stem, layer1, layer2, ..., pool.

    `depth` counts residual layers: depth d means the stem and layers 1 to d, and 0 means not even the stem.
    `after(until(x, depth), depth)` is `forward(x)` at every depth.
    """

    def __init__(self, normalize: Normalize, stem: nn.Module, layers: Sequence[nn.Module], *, features: int) -> None:
        super().__init__()
        self.normalize = normalize
        self.stem = stem
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"layer{number}", layer)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.depths = len(layers)
        self.features = features

    def stages(self, depth: int) -> list[nn.Module]:
        """The modules of the first `depth` layers: none at 0, else the stem and layers 1 to depth."""
        if not 0 <= depth <= self.depths:
            raise ValueError(f"this encoder has depths 0 to {self.depths}, got {depth}")
        layers = [self.get_submodule(f"layer{number}") for number in range(1, depth + 1)]
        return [self.stem, *layers] if depth else []

    def until(self, pixels: Tensor, depth: int) -> Tensor:
        """What layer `depth` puts out, (batch, channels, h, w); the pixels themselves at 0."""
        stages = self.stages(depth)
        hidden: Tensor = self.normalize(pixels) if stages else pixels
        for stage in stages:
            hidden = stage(hidden)
        return hidden

    def after(self, hidden: Tensor, depth: int) -> Tensor:
        """Features (batch, F) from what `until` gave at the same depth."""
        done = len(self.stages(depth))
        hidden = hidden if done else self.normalize(hidden)
        for stage in self.stages(self.depths)[done:]:
            hidden = stage(hidden)
        pooled: Tensor = self.pool(hidden)
        return pooled.flatten(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (batch, F)."""
        return self.after(pixels, 0)
