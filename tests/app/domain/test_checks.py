from dataclasses import replace
from typing import Any

import pytest

from app.domain.attacks import ATTACKS
from app.domain.checks import check_experiment
from app.domain.datasets import KNOWN, Dataset
from app.domain.spec import ExperimentSpec
from app.domain.weights import SourceCheckpoint, WeightsSource


def dataset(name: str = "cifar10", **changes: Any) -> Dataset:
    facts = KNOWN[name]
    given = {"classes": facts.classes, "shape": facts.shape, "train_size": 50, "test_size": 50, "fingerprint": "f"}
    return Dataset(name, **{**given, **changes}, facts=facts)


def problems(where: Dataset | None = None, **body: Any) -> dict[str, str]:
    spec = ExperimentSpec.model_validate({"dataset": "cifar10", **body})
    found = check_experiment(spec, where or dataset())
    assert len({(p.pointer, p.detail) for p in found}) == len(found), "a fault is told once"
    return {p.pointer: p.detail for p in found}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"architectures": ["resnet18", "resnet50"], "training": {"weights": "imagenet"}},
        {"evaluation": {"suite": "study"}},
        {"evaluation": {"suite": "standard", "norm": "l2"}},
        {"evaluation": {"norm": "l2", "attacks": [{"name": "pgd", "parameters": {"steps": 5}}], "eps": [0.5, 30]}},
        {"training": {"epochs": 5, "branch_at": 5}},
        {"training": {"weights": "imagenet", "freeze_depth": 4}, "architectures": ["resnet50"]},
    ],
)
def test_what_fits_together_has_no_problems(body: dict[str, Any]) -> None:
    assert problems(**body) == {}


@pytest.mark.parametrize(
    ("body", "pointer", "told"),
    [
        ({"seeds": list(range(100)), "branch_seeds": list(range(10))}, "/seeds", "at most 2000"),
        ({"training": {"recipe": "studdy"}}, "/training/recipe", "did you mean 'study'"),
        ({"training": {"weights": "imagenet"}}, "/training/weights", "use 'none', or one of resnet18, resnet50"),
        ({"training": {"freeze_depth": 1}}, "/training/freeze_depth", "use 0, or weights that are trained"),
        ({"training": {"overrides": [{}, {"freeze_depth": 1}]}},
         "/training/overrides/1/freeze_depth", "makes no sense"),
        ({"training": {"images": 19}}, "/training/images", "use 20 to 50, or leave it out"),
        ({"training": {"images": 51}}, "/training/images", "50 training images in 10 classes"),
        ({"training": {"adversarial_eps": "8/255"}}, "/training/adversarial_eps", "name the recipe 'adversarial'"),
        ({"training": {"recipe": "adversarial", "adversarial_eps": 2}}, "/training/adversarial_eps", "at most 1"),
        ({"training": {"epochs": 3, "branch_at": 4}}, "/training/branch_at", "branch at 1..3"),
        ({"training": {"epochs": 3, "overrides": [{"variant": "lif", "branch_at": 9}]}},
         "/training/overrides/0/branch_at", "resnet20 lif trains 3 epochs"),
        ({"training": {"overrides": [{}, {"architecture": "resnet50", "epochs": 3}]}},
         "/training/overrides/1", "architectures resnet20; variants default, lif, paralif"),
        ({"variants": ["lif"], "training": {"overrides": [{"variant": "default", "epochs": 3}]}},
         "/training/overrides/0", "for no cell"),
        ({"evaluation": {"suite": "quik"}}, "/evaluation/suite", "did you mean 'quick'"),
        ({"evaluation": {"suite": "study", "norm": "l2"}}, "/evaluation/norm", "study is for linf"),
        ({"evaluation": {"suite": "quick", "attacks": [{"name": "pgd"}]}}, "/evaluation/suite", "not both"),
        ({"evaluation": {"attacks": [{"name": "pgd"}, {"name": "pdg"}]}}, "/evaluation/attacks/1/name", "'pgd'"),
        ({"evaluation": {"attacks": [{"name": "pgd", "parameters": {"steps": 0}}]}},
         "/evaluation/attacks/0/parameters", "1..10000"),
        ({"evaluation": {"eps": [0.1, 8]}}, "/evaluation/eps/1", "at most 1 for linf"),
        ({"evaluation": {"eps": ["8/255", 8 / 255]}}, "/evaluation/eps", "twice"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_its_place_and_what_is_allowed(
    body: dict[str, Any], pointer: str, told: str
) -> None:
    found = problems(**body)
    assert list(found) == [pointer]
    assert told in found[pointer]


def test_an_attack_that_has_not_the_norm_says_which_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], norms=("linf",)))
    found = problems(evaluation={"attacks": [{"name": "pgd"}, {"name": "square"}], "norm": "l2"})
    assert found == {"/evaluation/attacks/1/name": "square is for linf, not l2"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": (3, 4, 32)}, "32x4; sides of 8 to 1024"),
        ({"shape": (3, 2000, 32)}, "32x2000; sides of 8 to 1024"),
        ({"classes": ("one",)}, "1 class; at least 2"),
    ],
)
def test_images_that_no_network_takes_are_refused_before_anything_is_queued(
    changes: dict[str, Any], told: str
) -> None:
    assert told in problems(dataset(**changes))["/dataset"]


def test_every_fault_is_told_at_once() -> None:
    found = problems(training={"freeze_depth": 2, "epochs": 1, "branch_at": 2}, evaluation={"suite": "no", "eps": [9]})
    assert set(found) == {"/training/freeze_depth", "/training/branch_at", "/evaluation/suite", "/evaluation/eps/0"}


def faults_from(where: Dataset, training: dict[str, Any] | None = None, **given: Any) -> dict[str, str]:
    """What is wrong with a start from a ResNet-20 checkpoint."""
    usual = {"id": "ckpt_1", "sha256": "0" * 64, "architecture": "resnet20", "stem": "cifar", "image_size": None,
             "channels": 3}  # fmt: skip
    body = given.pop("body", {})
    spec = ExperimentSpec.model_validate({"dataset": "cifar10", "training": {"weights": "ckpt_1", **(training or {})},
                                          **body})
    source = WeightsSource(checkpoint=SourceCheckpoint(**{**usual, **given}))
    return {p.pointer: p.detail for p in check_experiment(spec, where, source)}


def test_the_encoder_of_a_checkpoint_fits_where_architecture_stem_and_channels_do() -> None:
    grey = dataset("digits")
    assert faults_from(dataset()) == faults_from(grey) == faults_from(grey, channels=1) == {}
    assert faults_from(dataset(), {"freeze_depth": 2, "stem": "cifar"}) == {}


@pytest.mark.parametrize(
    ("training", "given", "pointer", "told"),
    [
        ({}, {"architecture": "resnet18"}, "/training/weights", "is a resnet18; name it alone"),
        ({}, {"body": {"architectures": ["resnet20", "resnet18"]}}, "/training/weights", "is a resnet20; name"),
        ({"stem": "imagenet"}, {}, "/training/stem", "has the stem 'cifar'"),
        ({}, {"channels": 1}, "/training/weights", "takes grey images; those of cifar10 have 3"),
        ({"freeze_depth": 4}, {}, "/training/freeze_depth", "3 residual groups"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(training, given, pointer: str, told: str) -> None:
    found = faults_from(dataset(), training, **given)
    assert list(found) == [pointer]
    assert told in found[pointer]


def test_where_checkpoints_are_named_nobody_complains_of_trainings_that_will_not_be() -> None:
    body = {"checkpoints": ["ckpt_1"], "seeds": list(range(100)), "branch_seeds": list(range(10)),
            "training": {"weights": "imagenet"}}  # fmt: skip
    assert problems(**body) == {}
    assert set(problems(**body, evaluation={"suite": "no"})) == {"/evaluation/suite"}
