"""Every form of every preset is an experiment that the service would take, and the tables are the study's."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.domain.checks import check_experiment
from app.domain.datasets import KNOWN, Dataset
from app.domain.errors import NotFound
from app.domain.plan import expand
from app.domain.presets import FIRST_CHECKPOINT, PRESETS, stages
from app.domain.spec import ExperimentSpec
from app.domain.subject import epochs_text
from app.domain.weights import SourceCheckpoint, WeightsSource

FORMS = [(offline, small) for offline in (False, True) for small in (False, True)]


def dataset(name: str) -> Dataset:
    facts = KNOWN[name]
    return Dataset(name, facts.classes, facts.shape, facts.train_size, facts.test_size, "f", facts)


def bodies(name: str, offline: bool = False, small: bool = False) -> Iterator[tuple[Any, Any, WeightsSource]]:
    """Body, specification, and what its weights would be found to be."""
    for stage in stages(name, offline=offline, small=small):
        for body in stage:
            spec, source = ExperimentSpec.model_validate(body), WeightsSource()
            if spec.training.weights == FIRST_CHECKPOINT:
                own = SourceCheckpoint(FIRST_CHECKPOINT, "0" * 64, "resnet20", "cifar", None, 3)
                source = WeightsSource(checkpoint=own)
            yield body, spec, source


@pytest.mark.parametrize(("offline", "small"), FORMS)
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_form_would_be_taken(name: str, offline: bool, small: bool) -> None:
    for body, spec, source in bodies(name, offline, small):
        assert check_experiment(spec, dataset(spec.dataset), source) == []
        assert expand(spec, dataset(spec.dataset), source=source)
        assert ("small" in body["name"]) == small
        if offline:
            assert spec.training.weights != "imagenet"
        if small:
            assert (spec.training.images or 0) <= 600
            assert spec.evaluation.images <= 20


def cells(name: str, table: str) -> set[tuple[str, str, str]]:
    return {
        (run.spec["architecture"], run.spec["variant"], epochs_text(run.spec))
        for body, spec, source in bodies(name) if table in body["name"]
        for run in expand(spec, dataset(spec.dataset), source=source) if run.kind != "evaluate"
    }  # fmt: skip


def test_the_first_table_of_cifar10_has_the_lengths_of_the_documents() -> None:
    assert cells("study-cifar10", "first") == {
        ("resnet50", "default", "<5>"), ("resnet50", "lif", "<5,5>"), ("resnet50", "paralif", "<5,5>"),
        ("resnet18", "default", "<5>"), ("resnet18", "lif", "<5,5>"), ("resnet18", "paralif", "<5,20>"),
    }  # fmt: skip


def test_the_first_table_of_cifar100_has_the_default_networks_alone() -> None:
    expected = {("resnet50", "default", "<70>"), ("resnet18", "default", "<25>")}
    assert cells("study-cifar100", "first") == expected


@pytest.mark.parametrize("name", ["study-cifar10", "study-cifar100", "study-fashion-mnist"])
def test_the_later_tables_are_full(name: str) -> None:
    assert {(a, v): e for a, v, e in cells(name, "later")} == {
        (architecture, variant): "<10>" if variant == "default" else "<10,10>"
        for architecture in ("resnet18", "resnet50") for variant in ("default", "lif", "paralif")
    }  # fmt: skip


def test_an_unknown_preset_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(NotFound, match="study-cifar10"):
        stages("study-cifr10")


def test_a_table_taken_offline_says_in_every_row_that_it_is_from_scratch() -> None:
    for _, spec, source in bodies("study-cifar10", offline=True):
        runs = expand(spec, dataset("cifar10"), source=source)
        rows = [run.spec["subject"] for run in runs if run.kind == "evaluate"]
        assert rows
        assert all("weights none" in row["settings"] for row in rows)
