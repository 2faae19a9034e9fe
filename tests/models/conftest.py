import pytest
import torch

from models.registry import ModelSpec


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def spec():
    """A function from changes to the specification of a small network."""

    def small(architecture="resnet20", variant="default", **changes):
        settings = {"classes": 10, "image_shape": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.25,) * 3}
        return ModelSpec(architecture, variant, **{**settings, **changes})

    return small
