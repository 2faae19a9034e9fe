"""What the pages of experiments are made from: graph, settings, words, controls. In a browser: tests/browser."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.dashboard.experiment_form import controls, form_page
from app.dashboard.experiments import failures, graph, permissions, settings
from app.dashboard.texts import between, duration, setting_text
from app.domain.access import LOCAL, Actor
from app.domain.spec import DecoderSpec, ExperimentSpec, TrainingSpec


def run(name: str, depends_on: str | None = None) -> dict[str, Any]:
    return {"id": name, "depends_on": depends_on}


def test_the_graph_has_each_run_once_below_the_one_whose_checkpoint_it_is_about() -> None:
    runs = [run("train"), run("a", "train"), run("branch", "train"), run("b", "branch"), run("other", "elsewhere")]
    roots = graph(runs)
    assert [node.run["id"] for node in roots] == ["train", "other"]
    assert [node.run["id"] for node in roots[0].children] == ["a", "branch"]
    assert [node.run["id"] for node in roots[0].children[1].children] == ["b"]


def test_failures_are_those_that_no_other_failure_explains() -> None:
    states = {"train": "failed", "branch": "failed", "other": "succeeded", "its evaluation": "failed", "good": "queued"}
    parents = {"branch": "train", "its evaluation": "other"}
    runs = [run(name, parents.get(name)) | {"state": state, "attempt": 1} for name, state in states.items()]
    assert [one["id"] for one in failures(runs)] == ["train", "its evaluation"]


def test_an_evaluation_that_waited_for_a_shard_in_vain_is_no_failure_of_its_own() -> None:
    runs = [run("train") | {"state": "succeeded", "attempt": 1},
            run("shard", "train") | {"state": "failed", "attempt": 3},
            run("evaluation", "train") | {"state": "failed", "attempt": 0}]
    assert [one["id"] for one in failures(runs)] == ["shard"]


def test_what_differs_from_the_defaults_comes_first_and_nothing_is_left_out() -> None:
    body = {"dataset": "digits", "name": "n", "seeds": [4], "training": {"epochs": 3}, "decoder": {"gain": 1.0}}
    differs, rest = settings(ExperimentSpec.model_validate(body).model_dump(mode="json"))
    assert differs == [("dataset", "digits"), ("seeds", [4]), ("training.epochs", 3), ("decoder.gain", 1.0)]
    assert ("evaluation.norm", "linf") in rest
    assert not {name for name, _ in differs} & {name for name, _ in rest}


@pytest.mark.parametrize(("value", "text"), [
    (None, "as usual"), (True, "yes"), (0.05, "0.05"), ([0, 1], "0, 1"), ([], "none"),
    ([{"name": "fgsm", "parameters": {}}, {"name": "pgd", "parameters": {"steps": 5}}], "fgsm, pgd (steps 5)"),
    ({"architecture": "resnet18", "variant": None, "epochs": 3}, "(architecture resnet18, epochs 3)"),
])  # fmt: skip
def test_settings_are_written_as_people_do(value: Any, text: str) -> None:
    assert setting_text(value) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (None, "—"), (0, "0 s"), (4.25, "4.2 s"), (59.4, "59 s"), (61, "1 min 1 s"),
    (3725, "1 h 2 min"), (3 * 86400, "3.0 days"),
])  # fmt: skip
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_between_two_moments_is_never_negative() -> None:
    assert between("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.500Z") == 60.5
    assert between("2999-01-01T00:00:00.000Z", None) == 0.0
    assert between(None, None) is None


def test_each_button_asks_for_the_role_that_its_call_needs() -> None:
    assert set(permissions(LOCAL, "id").values()) == {None}
    assert permissions(Actor("x", "submitter"), "id") == {
        "submit": None, "cancel": None, "retry": None, "archive": "admin",
    }
    assert permissions(Actor("x", "reader"), "id")["cancel"] == "submitter"


def leaves(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """JSON pointers of all that the body may say."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        yield from leaves(inner, f"{place}/{name}") if nested else [f"{place}/{name}"]  # type: ignore[arg-type]


def test_the_form_has_a_control_for_every_field_of_the_api() -> None:
    """Else a template would lose what it cannot say."""
    page = form_page([], {}, LOCAL)
    assert set(re.findall(r'data-pointer="([^"]+)"', page)) == {*leaves(ExperimentSpec)}
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_controls_have_the_choices_limits_and_defaults_of_the_api() -> None:
    names = ("timesteps", "gain", "kernel", "learn_threshold")
    timesteps, gain, kernel, learn = controls(DecoderSpec, "/decoder", names)
    assert (timesteps.pointer, timesteps.kind, timesteps.default) == ("/decoder/timesteps", "int", 20)
    assert "1 to 200" in timesteps.hint
    assert (gain.kind, gain.default) == ("either", "learned")
    assert (kernel.kind, kernel.choices) == ("choice", ("causal", "reference"))
    assert (learn.kind, learn.default) == ("flag", True)
    [stem] = controls(TrainingSpec, "/training", ["stem"])
    assert (stem.kind, stem.choices, stem.default) == ("choice", ("imagenet", "cifar"), None)
