"""What an image is answered does not depend on what else is in the batch."""

import numpy as np
import pytest
import torch

from app.inference.predict import Answer, answers, described, noise_keys
from models.registry import Classifier, ModelSpec, build

VARIANTS = ("default", "lif", "paralif")


def network(variant: str, shape: tuple[int, int, int] = (1, 8, 8)) -> Classifier:
    torch.manual_seed(0)
    return build(ModelSpec("resnet20", variant, 10, shape, mean=(0.3,), std=(0.4,))).eval()


def images(number: int) -> np.ndarray:
    return np.random.default_rng(0).random((number, 1, 8, 8), np.float32)


def asked(model: Classifier, pixels: np.ndarray, which: list[int], draws: int) -> list[Answer]:
    return answers(model, pixels[which], noise_keys(7, len(pixels))[which], [draws] * len(which))


@pytest.mark.parametrize("draws", [1, 3, 20])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_is_answered_alike_alone_and_among_others_in_any_order(variant: str, draws: int) -> None:
    """To rounding: which bits are equal depends on the processor, and is measured by benchmarks/serving.py."""
    model, pixels = network(variant), images(33)
    together = asked(model, pixels, list(range(33)), draws)
    for which in ([0], [32], [5, 4], [9, 1, 30], list(range(32, 0, -1))):
        for i, one in zip(which, asked(model, pixels, which, draws), strict=True):
            np.testing.assert_allclose(one.logits, together[i].logits, rtol=0, atol=1e-5)
            np.testing.assert_allclose(one.probabilities, together[i].probabilities, rtol=0, atol=1e-6)
            assert (one.votes == together[i].votes).all()


def test_images_of_one_batch_may_have_different_draws() -> None:
    model, pixels, keys = network("lif"), images(5), noise_keys(7, 5)
    mixed = answers(model, pixels, keys, [20, 3, 20, 1, 300])
    for i, draws in enumerate([20, 3, 20, 1, 300]):
        [alone] = asked(model, pixels, [i], draws)
        assert mixed[i].draws == alone.draws == draws
        np.testing.assert_allclose(mixed[i].probabilities, alone.probabilities, rtol=0, atol=1e-6)
    assert mixed[3].sd is None


def test_means_and_spreads_are_those_of_the_draws_themselves() -> None:
    from models.noise import KeyedNoise

    model, pixels = network("paralif"), images(3)
    found = asked(model, pixels, [0, 1, 2], 20)
    with torch.inference_mode():
        features = model.encoder(torch.from_numpy(pixels))
        logits = model.decoder(features, draws=20, generator=KeyedNoise(noise_keys(7, 3)))
    probabilities = logits.softmax(-1)
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.logits, logits[:, i].mean(0), atol=1e-5)
        np.testing.assert_allclose(one.probabilities, probabilities[:, i].mean(0), atol=1e-6)
        np.testing.assert_allclose(one.sd, probabilities[:, i].std(0), atol=1e-6)
        assert one.votes.sum() == pytest.approx(1)


def test_the_most_likely_classes_come_first() -> None:
    answer = Answer(1, np.zeros(3), np.array([0.2, 0.5, 0.3]), None, np.array([0.0, 1.0, 0.0]))
    assert [one["class"] for one in described(answer, "abc", 2)["top"]] == ["b", "c"]
