import pytest
import torch

from models.normalize import Normalize


def test_pixels_are_shifted_and_scaled_per_channel():
    layer = Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 1.0))
    out = layer(torch.full((2, 3, 8, 8), 0.6))
    torch.testing.assert_close(out[1, :, 3, 3], torch.tensor([1.0, 1.6, 0.3]))


def test_grey_is_repeated_and_resized():
    layer = Normalize((0.0, 0.5, 1.0), (1.0, 1.0, 1.0), image_size=32)
    out = layer(torch.full((2, 1, 28, 20), 0.5))
    assert out.shape == (2, 3, 32, 32)
    torch.testing.assert_close(out[0, :, 5, 5], torch.tensor([0.5, 0.0, -0.5]))


def test_shrinking_is_antialiased():
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 1, 32, 32)
    out = Normalize((0.0,), (1.0,), image_size=8)(stripes)
    torch.testing.assert_close(out[..., 2:-2], torch.full((1, 1, 8, 4), 0.5), atol=0.05, rtol=0)


def test_its_own_size_is_left_alone():
    x = torch.rand(1, 3, 16, 16)
    layer = Normalize((0.0,) * 3, (1.0,) * 3, image_size=16)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_saturated_pixels(channels):
    x = torch.randint(0, 2, (2, channels, 8, 8)).float().requires_grad_()
    layer = Normalize((0.5,) * 3, (0.2,) * 3, image_size=12)
    layer(x).sum().backward()
    assert (x.grad > 0).all()


def test_constants_are_not_in_the_state():
    assert not Normalize((0.5,), (0.2,)).state_dict()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="channels"):
        Normalize((0.5,) * 3, (0.2,) * 3)(torch.rand(1, 2, 8, 8))
    with pytest.raises(ValueError, match="mean and std"):
        Normalize((0.5,), (0.0,))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 28), (49, 50), (50, 49), (300, 401)])
@pytest.mark.parametrize("architecture", ["ResNet18_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"])
def test_a_crop_of_the_middle_is_torchvisions_own_preprocessing(architecture, height, width):
    from torchvision.models import get_weight

    theirs = get_weight(architecture).transforms()
    ours = Normalize(theirs.mean, theirs.std, image_size=theirs.crop_size[0], resize=theirs.resize_size[0])
    pixels = torch.rand(2, 3, height, width)
    torch.testing.assert_close(ours(pixels), theirs(pixels), atol=1e-5, rtol=0)


def test_a_crop_without_a_size_or_larger_than_the_image_is_refused():
    for image_size, resize in ((None, 32), (64, 32)):
        with pytest.raises(ValueError, match="crop"):
            Normalize((0.5,), (0.2,), image_size=image_size, resize=resize)
