"""Each way in which the study measured changes what it says, and nothing else."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from app.domain.protocol import Protocol
from app.domain.suites import Stage
from models.decoder import DecoderConfig
from models.registry import Classifier, ModelSpec, branch, build
from tests.worker.evaluation.conftest import Coin
from worker.attacks import Target, frozen
from worker.evaluation import evaluate_block, image_verdicts
from worker.evaluation.clean import first_right
from worker.evaluation.published import NormalisedInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def protocol(*options: str, eps: str = "0.02", images: int = 6) -> Protocol:
    stages = (Stage("fgsm", {"draws": 1 if "one-draw-gradients" in options else 4}),)
    return Protocol("own", "f", "linf", (Fraction(eps),), "custom", 1, True, stages, images, as_published=options)


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    spec = ModelSpec("resnet20", "default", classes=4, image_shape=(3, 8, 8), mean=MEAN, std=STD, image_size=16)
    return build(spec).eval()


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 8, 8, generator=g), torch.arange(6) % 4, torch.arange(6) + 100


def test_one_forward_pass_is_a_verdict_of_one_draw_and_another_for_each_candidate(data) -> None:
    images, labels = torch.rand(400, 1, 4, 4), torch.zeros(400, dtype=torch.long)
    found = evaluate_block(Coin(0.5), images, labels, torch.arange(400), seed=0,
                           protocol=protocol("one-forward-verdicts", eps="0.1"))  # fmt: skip
    assert found.draws.tolist() == [1, 1]
    assert set(np.unique(found.correct)) <= {0, 1}
    assert abs(found.clean_share.mean() - 0.5) < 0.1
    # of one draw on the clean image and one on the attack's, both must be right: half of the coin's own half
    assert abs(found.correct.mean() - 0.25) < 0.08
    ours = evaluate_block(Coin(0.5), images, labels, torch.arange(400), seed=0, protocol=protocol(eps="0.1"))
    assert ours.draws.tolist() == [32, 100]
    assert abs(ours.correct.mean() / 100 - 0.5) < 0.03


def test_one_draw_gradients_are_those_of_training(model, data) -> None:
    head = branch(model, "paralif", DecoderConfig(estimator="published", encoding_gradient="none")).eval()
    images, labels, ids = data
    found = {
        options: evaluate_block(head, images, labels, ids, protocol=protocol(*options), seed=0)
        for options in ((), ("one-draw-gradients",))
    }
    assert (found[()].faulty == 0).all()  # ours: straight through
    trained_ = found["one-draw-gradients",]
    attacked = ~np.isnan(trained_.share)
    assert attacked.any()
    assert (trained_.faulty[attacked] == 1).all()  # none at all: nothing to go by
    with frozen(head):
        own, trained = Target(head), Target(head, as_trained=True)
        assert (own.through("own").gradient.name, trained.through("own").gradient.name) == ("own", "as-trained")
        assert trained.through("atan:2" if trained.has_gradient("atan:2") else "sampled").gradient.name != "as-trained"


def test_only_images_that_one_pass_gets_right_are_taken_in_their_order() -> None:
    images, labels = np.zeros((300, 4, 4, 1), np.uint8), np.zeros(300, np.int64)
    order = np.arange(300)[::-1].copy()
    found = first_right(Coin(0.5), images, labels, order, 50, seed=0, batch_size=40)
    assert len(found) == 50
    assert (np.diff(found) < 0).all()
    assert 299 - found[-1] == pytest.approx(100, abs=30)
    assert len(first_right(Coin(0.5), images, labels, order, 300, seed=0)) < 200


def test_the_same_network_is_seen_from_its_normalised_input(model, data) -> None:
    images, _, _ = data
    seen = NormalisedInput.of(model)
    u = seen.images(images)
    assert u.shape == (6, 3, 16, 16)
    assert ((u >= 0) & (u <= 1)).all()
    torch.testing.assert_close(seen.model(u), model(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.sibling(model)(u), model(images), rtol=1e-4, atol=1e-4)
    assert seen.span == pytest.approx(2.64 + 2.1179, abs=1e-3)  # ImageNet's: one scalar range for three channels
    assert model.spec.image_size == 16


def test_normalised_eps_bounds_the_network_s_input_and_norms_are_in_its_units(model, data) -> None:
    images, labels, ids = data
    with torch.no_grad():
        labels = model(images).argmax(1)
    asked = protocol("normalised-eps")
    found = evaluate_block(model, images, labels, ids, protocol=asked, seed=0)
    assert found.norm.max() == pytest.approx(0.02, rel=1e-3)
    assert found.adversarial.shape[1:] == (3, 16, 16)
    seen = NormalisedInput.of(model)
    rows = list(image_verdicts(found, seen.images(images).numpy(), "linf", seen.span))
    changed = [row["linf"] for row in rows if row["attack"]]
    assert not changed or max(changed) == pytest.approx(0.02, rel=1e-3)


def test_a_protocol_without_options_keeps_its_name_and_one_with_them_has_its_own() -> None:
    plain = protocol()
    assert "as_published" not in plain.to_dict()
    names = {replace(plain, as_published=(name,)).identity(plain.eps[0]) for name in
             ("one-draw-gradients", "one-forward-verdicts", "correct-images", "normalised-eps")}  # fmt: skip
    assert len(names | {plain.identity(plain.eps[0])}) == 5
    marked = protocol("correct-images")
    assert Protocol.from_dict(marked.to_dict()) == marked
    assert marked.describe(marked.eps[0])["as_published"] == ["correct-images"]
