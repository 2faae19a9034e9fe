"""TinyNet: a stem and two layers that halve the image."""

from collections import OrderedDict

from torch import nn

from models.encoder import Encoder
from models.normalize import Normalize


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Batch norm must stand right behind its convolution: attacks fold the two into one."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


def tinynet_encoder(normalize: Normalize, *, stem: str = "cifar") -> Encoder:
    """32 features; each layer can be frozen."""
    layers = [_convolution(8, 16, stride=2), _convolution(16, 32, stride=2)]
    return Encoder(normalize, _convolution(len(normalize.mean), 8, stride=1), layers, features=32)


ENCODERS = {"tinynet": tinynet_encoder}  # what a module in models/ declares
