"""How long runs will take, from those that were measured."""

from typing import Any

import pytest

from app.domain.datasets import KNOWN, Dataset
from app.domain.estimate import Step, Timed, Workload, estimate, longest_chain_seconds, total_seconds, workload
from app.domain.plan import PlannedRun, expand
from app.domain.spec import ExperimentSpec

CIFAR = KNOWN["cifar10"]


def dataset(name: str = "cifar10", train_size: int = 50_000, side: int = 32) -> Dataset:
    return Dataset(name, CIFAR.classes, (3, side, side), train_size, 10_000, f"{name}-{train_size}-{side}", CIFAR)


def planned(of: Dataset | None = None, variant: str = "lif", **body: Any) -> dict[str, PlannedRun]:
    """The runs of one network by kind."""
    spec = ExperimentSpec.model_validate({"dataset": "cifar10", "variants": [variant], "seeds": [0], **body})
    return {run.kind: run for run in expand(spec, of or dataset())}


def load(kind: str, of: Dataset | None = None, **given: Any) -> Workload:
    of = of or dataset()
    runs = planned(of, **given)
    found = workload(runs[kind].spec, runs.get("branch", runs["train"]).spec, {of.fingerprint: of})
    assert found is not None
    return found


@pytest.mark.parametrize(("changed", "factor"), [
    ({"training": {"epochs": 40}}, 2.0),
    ({"of": dataset(train_size=25_000)}, 0.5),
    ({"of": dataset("cifar100")}, 1.0),
])  # fmt: skip
def test_a_training_grows_with_epochs_and_images(changed: dict[str, Any], factor: float) -> None:
    usual, other = load("train"), load("train", **changed)
    assert other.likeness == usual.likeness
    assert other.amount == factor * usual.amount


@pytest.mark.parametrize("changed", [
    {"architectures": ["resnet18"]}, {"of": dataset(side=64)}, {"training": {"batch_size": 128}},
    {"training": {"image_size": 64}}, {"training": {"weights": "imagenet"}, "architectures": ["resnet18"]},
    {"variant": "paralif"}, {"decoder": {"timesteps": 40}},
])  # fmt: skip
def test_what_costs_otherwise_is_not_compared(changed: dict[str, Any]) -> None:
    assert load("branch", **changed).likeness != load("branch").likeness


def attacks(**parameters: Any) -> dict[str, Any]:
    return {"evaluation": {"attacks": [{"name": "pgd", "parameters": parameters}], "images": 100, "eps": [0.1]}}


@pytest.mark.parametrize(("changed", "factor"), [
    (attacks(steps=40), 2.0), (attacks(restarts=3), 3.0),
    ({"evaluation": {**attacks()["evaluation"], "images": 200}}, 2.0),
    ({"evaluation": {**attacks()["evaluation"], "eps": [0.1, 0.2]}}, 2.0),
    (attacks(draws=64), 1.0),
])  # fmt: skip
def test_an_evaluation_grows_with_images_radii_and_steps(changed: dict[str, Any], factor: float) -> None:
    usual, other = load("evaluate", **attacks()), load("evaluate", **changed)
    assert other.likeness == usual.likeness
    assert other.amount == factor * usual.amount


def test_a_step_with_a_gradient_costs_three_queries() -> None:
    def amount(queries: int) -> float:
        square = {"name": "square", "parameters": {"queries": queries}}
        both = {"attacks": [{"name": "pgd", "parameters": {"steps": 20}}, square], "images": 100, "eps": [0.1]}
        return load("evaluate", evaluation=both).amount

    assert amount(240) == (60 + 240) / (60 + 60) * amount(60)


def test_other_attacks_and_suites_are_not_compared() -> None:
    usual = load("evaluate", evaluation={"suite": "quick"})
    assert load("evaluate", evaluation={"suite": "standard"}).likeness != usual.likeness
    assert load("evaluate", **attacks()).likeness != usual.likeness


def test_a_target_costs_only_attacks_that_aim_at_it() -> None:
    def apgd(loss: str) -> float:
        one = {"name": "apgd", "parameters": {"loss": loss, "targets": 9}}
        return load("evaluate", evaluation={"attacks": [one]}).amount

    assert apgd("dlr-targeted") == 9 * apgd("dlr")


def test_images_that_are_not_here_have_no_workload() -> None:
    runs = planned()
    assert workload(runs["train"].spec, runs["train"].spec, {}) is None
    assert estimate(None, []).reason == "its images are not here yet"


def timed(seconds: float, growing: float, amount: float = 10.0, likeness: str = "a") -> Timed:
    return Timed(Workload((likeness,), amount, "trainings"), seconds, growing)


def test_only_what_grows_is_scaled() -> None:
    found = estimate(Workload(("a",), 30.0, "trainings"), [timed(25.0, 20.0)])
    assert found.seconds == 65.0
    assert found.basis == "median of 1 measured trainings, scaled to 3 times their amount"


def test_the_median_of_the_nearest_is_taken() -> None:
    near = [timed(seconds, seconds) for seconds in (9.0, 10.0, 11.0, 12.0, 500.0)]
    far = [timed(1.0, 1.0, amount=1000.0)] * 10
    assert estimate(Workload(("a",), 10.0, "trainings"), [*far, *near]).seconds == 11.0


def test_without_anything_comparable_there_is_a_reason_and_no_number() -> None:
    found = estimate(Workload(("b",), 10.0, "trainings of b"), [timed(1.0, 1.0)])
    assert found.seconds is None
    assert found.basis is None
    assert found.reason == "no trainings of b were measured here"


def test_the_whole_is_the_sum_and_at_least_the_longest_chain() -> None:
    steps = [Step("train", [], 10.0), Step("branch", ["train"], 5.0), Step("a", ["train"], 2.0),
             Step("b", ["branch", "elsewhere"], 1.0)]  # fmt: skip
    assert total_seconds(steps) == 18.0
    assert longest_chain_seconds(steps) == 16.0
    assert total_seconds([]) == longest_chain_seconds([]) == 0.0


def test_one_unknown_run_makes_the_whole_unknown() -> None:
    steps = [Step("train", [], 10.0), Step("branch", ["train"], None)]
    assert total_seconds(steps) is None
    assert longest_chain_seconds(steps) is None
