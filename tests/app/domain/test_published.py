"""As published: options by name, what they ask for, and that nothing moves without them."""

from fractions import Fraction
from typing import Any

import pytest

from app.domain.checks import check_experiment
from app.domain.datasets import KNOWN, Dataset
from app.domain.plan import decoder_settings, expand, make_protocol
from app.domain.presets import stages
from app.domain.published import DECODER, EVALUATION_OPTIONS, OPTIONS, marks, marks_text
from app.domain.spec import DecoderSpec, EvaluationSpec, ExperimentSpec


def dataset(name: str = "cifar10") -> Dataset:
    facts = KNOWN[name]
    return Dataset(name, facts.classes, facts.shape, facts.train_size, facts.test_size, "f", facts)


def faults(name: str = "cifar10", **body: Any) -> dict[str, str]:
    spec = ExperimentSpec.model_validate({"dataset": name, **body})
    return {problem.pointer: problem.detail for problem in check_experiment(spec, dataset(name))}


def test_usual_settings_carry_no_mark_and_each_published_one_its_own() -> None:
    assert marks(decoder_settings(DecoderSpec(), "lif")) == marks(None) == []
    found = {
        name for variant in ("lif", "paralif")
        for name in marks(decoder_settings(DecoderSpec(**DECODER), variant), EVALUATION_OPTIONS)
    }  # fmt: skip
    assert found == set(OPTIONS)
    assert marks_text(["gain-1", "correct-images"]) == "as published: gain-1, correct-images"


@pytest.mark.parametrize("setting", sorted(DECODER))
def test_each_decoder_option_has_runs_of_its_own_and_others_keep_their_names(setting: str) -> None:
    def keys(**decoder: Any) -> set[str]:
        spec = ExperimentSpec.model_validate({"dataset": "cifar10", "decoder": decoder})
        return {run.key for run in expand(spec, dataset()) if run.kind == "branch"}

    assert keys(**{setting: DECODER[setting]}) != keys()
    assert "normalisation" not in decoder_settings(DecoderSpec(), "lif")


def test_one_draw_and_normalised_eps_change_draws_and_radii_alone() -> None:
    plain = make_protocol(EvaluationSpec(suite="study"), dataset())
    asked = EvaluationSpec(suite="study", as_published=["normalised-eps", "one-draw-gradients"])
    changed = make_protocol(asked, dataset())
    assert {stage.parameters["draws"] for stage in changed.stages} == {1}
    assert Fraction("0.01") in changed.eps
    assert [eps * Fraction("0.225") for eps in changed.eps] == list(plain.eps)
    assert changed.as_published == ("one-draw-gradients", "normalised-eps")
    assert changed.images == plain.images


def test_what_does_not_fit_is_refused_with_what_is_allowed() -> None:
    one_draw = {"as_published": ["one-draw-gradients"]}
    assert "'study', 'quick'" in faults(evaluation={"suite": "spiking", **one_draw})["/evaluation/as_published"]
    assert not faults(evaluation={"suite": "study", **one_draw})
    assert "64 features, and cifar100 100" in faults("cifar100", decoder={"readout": "features"})["/decoder/readout"]
    paralif = faults(variants=["paralif"], decoder={"readout": "features"})
    assert "for the variant lif" in paralif["/decoder/readout"]
    frozen = {"weights": "imagenet", "freeze_depth": 4}
    found = faults(architectures=["resnet18"], training=frozen, decoder={"readout": "features"})
    assert "freeze fewer" in found["/decoder/readout"]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", ["study-cifar10", "study-cifar100", "study-fashion-mnist"])
def test_a_study_preset_as_published_turns_every_option_on(name: str, small: bool) -> None:
    seen: set[str] = set()
    for body in stages(name, small=small, as_published=True)[0]:
        spec = ExperimentSpec.model_validate(body)
        assert "as published" in body["name"]
        assert check_experiment(spec, dataset(spec.dataset)) == []
        for run in expand(spec, dataset(spec.dataset)):
            if run.kind == "evaluate":
                assert run.spec["protocol"]["as_published"] == list(EVALUATION_OPTIONS)
            seen |= set(marks(run.spec.get("decoder"), run.spec.get("protocol", {}).get("as_published", ())))
    assert seen == set(OPTIONS)
