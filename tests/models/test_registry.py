import json

import pytest
import torch

from models import declared
from models.decoder import DecoderConfig, variants
from models.noise import KeyedNoise, image_keys
from models.registry import ModelSpec, build


@pytest.mark.parametrize("architecture", declared.names("ENCODERS"))
@pytest.mark.parametrize("variant", variants())
def test_every_combination_answers_with_its_classes(spec, architecture, variant):
    model = build(spec(architecture, variant, classes=7)).eval()
    x = torch.rand(2, 3, 16, 16)
    assert model(x).shape == (2, 7)
    assert model.decoder(model.encoder(x), draws=3).shape == (3, 2, 7)
    assert model.stochastic is (variant != "default")


def test_forward_is_one_draw_of_the_split(spec):
    model = build(spec(variant="paralif")).eval()
    x, keys = torch.rand(3, 3, 16, 16), image_keys(0, "test", torch.arange(3))
    split = model.decoder(model.encoder(x), draws=1, generator=KeyedNoise(keys))[0]
    assert torch.equal(model(x, KeyedNoise(keys)), split)


def test_building_is_a_matter_of_the_seed_alone(spec):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(spec(variant="lif")).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_spec_survives_json(spec):
    for given in (spec(), spec("resnet50", "paralif", decoder=DecoderConfig(gain=2.0), image_size=224)):
        assert ModelSpec.from_dict(json.loads(json.dumps(given.to_dict()))) == given


def test_the_decoder_settings_are_those_of_the_variant(spec):
    assert spec(decoder=DecoderConfig(hidden=3)).decoder is None
    assert spec(variant="lif").decoder == DecoderConfig()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet19"}, "resnet18, resnet50, resnet20; did you mean"),
        ({"variant": "parallif"}, "did you mean 'paralif'"),
        ({"stem": "cifr"}, "did you mean 'cifar'"),
        ({"classes": 1}, "classes"),
        ({"classes": 10**9}, "classes"),
        ({"classes": True}, "classes"),
        ({"image_shape": (3, 4, 4)}, "8 to"),
        ({"image_shape": (3, 10**6, 8)}, "8 to"),
        ({"image_shape": (3, 32)}, "image_shape"),
        ({"image_shape": (4, 32, 32)}, "image_shape"),
        ({"image_size": 4}, "8 to"),
        ({"mean": (0.5,)}, "3 channels"),
        ({"image_shape": (1, 8, 8), "mean": (0.5,) * 2, "std": (1.0,) * 2}, "1 channels"),
        ({"std": (0.25, 0.25, 0.0)}, "positive"),
        ({"mean": (0.5, 0.5, float("nan"))}, "finite"),
    ],
)
def test_what_cannot_be_built_is_refused(spec, changes, message):
    with pytest.raises(ValueError, match=message):
        spec(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clases": 10}, "did you mean 'classes'"),
        ({"decoder": {"hiden": 3}}, "did you mean 'hidden'"),
        ({"decoder": 5, "variant": "lif"}, "not a model specification"),
        ({"image_shape": 5}, "not a model specification"),
        ({"mean": ["a", "b", "c"]}, "finite"),
        ({"architecture": None}, "unknown architecture"),
    ],
)
def test_bad_documents_are_refused(spec, changes, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec.from_dict({**spec().to_dict(), **changes})


def test_missing_keys_are_refused(spec):
    values = spec().to_dict()
    del values["classes"]
    with pytest.raises(ValueError, match="classes"):
        ModelSpec.from_dict(values)
