"""ResNet-20 for small images (He et al. 2016, "Deep residual learning for image recognition", arXiv 1512.03385).

Layer for layer as in the study: 3x3 convolutions, three groups of three blocks with 16, 32 and 64 channels,
and a 1x1 projection with batch norm where the shape changes (the paper's option B; its own CIFAR networks use
option A, without parameters). 272,474 parameters with three input channels and ten classes.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from models.encoder import Encoder
from models.normalize import Normalize

GROUP_CHANNELS = (16, 32, 64)
BLOCKS_PER_GROUP = 3


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)): (batch, C, h, w) to (batch, channels, h/stride, w/stride)."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = _projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The skip is added before the last ReLU."""
        hidden = self.relu(self.bn1(self.conv1(x)))
        hidden = self.bn2(self.conv2(hidden))
        hidden += x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.relu(hidden)
        return out


def _projection(in_channels: int, channels: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels)))


def _stem(in_channels: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, GROUP_CHANNELS[0], 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv1=conv, bn1=nn.BatchNorm2d(GROUP_CHANNELS[0]), relu=nn.ReLU(inplace=True)))


def _group(in_channels: int, channels: int) -> nn.Module:
    first = Block(in_channels, channels, stride=1 if in_channels == channels else 2)
    return nn.Sequential(first, *(Block(channels, channels) for _ in range(BLOCKS_PER_GROUP - 1)))


def resnet20_encoder(normalize: Normalize, *, stem: str = "cifar") -> Encoder:
    """The encoder of 64 features, with as many input channels as `normalize` puts out; images of 8x8 or more. It has
    one stem, whatever `stem` says.

    Convolutions start Kaiming-normal by fan-out (He et al. 2015, arXiv 1502.01852).
    """
    inputs = (GROUP_CHANNELS[0], *GROUP_CHANNELS)
    layers = [_group(before, channels) for before, channels in zip(inputs, GROUP_CHANNELS, strict=False)]
    encoder = Encoder(normalize, _stem(len(normalize.mean)), layers, features=GROUP_CHANNELS[-1])
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return encoder


ENCODERS = {"resnet20": resnet20_encoder}
