"""Shards of an evaluation in the plan: who attacks what, and what does not depend on it."""

from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.datasets import KNOWN, Dataset
from app.domain.estimate import Timed, estimate, workload
from app.domain.plan import PlannedRun, expand, make_protocol
from app.domain.spec import EvaluationSpec, ExperimentSpec

CIFAR = KNOWN["cifar10"]
HERE = Dataset("cifar10", CIFAR.classes, CIFAR.shape, 50_000, 10_000, "images", CIFAR)


def plan(shards: int = 1, **evaluation: Any) -> list[PlannedRun]:
    body = {"dataset": "cifar10", "variants": ["paralif"], "seeds": [0]}
    return expand(ExperimentSpec.model_validate({**body, "evaluation": {"shards": shards, **evaluation}}), HERE)


def of_kind(runs: list[PlannedRun], kind: str) -> list[PlannedRun]:
    return [run for run in runs if run.kind == kind]


def test_an_evaluation_waits_for_its_shards_and_is_the_same_as_without() -> None:
    usual, sharded = plan(), plan(shards=3, images=1000)
    [evaluation], shards = of_kind(sharded, "evaluate"), of_kind(sharded, "shard")
    assert [run.key for run in sharded if run.kind != "shard"] == [run.key for run in usual]
    assert evaluation.spec == of_kind(usual, "evaluate")[0].spec
    assert evaluation.shards == tuple(run.key for run in shards)
    assert evaluation.needs == (evaluation.depends_on, *evaluation.shards)
    assert [run.needs for run in shards] == [(evaluation.depends_on,)] * 3
    assert sharded.index(shards[-1]) < sharded.index(evaluation)


def test_shards_share_no_block_and_leave_none() -> None:
    shards = of_kind(plan(shards=3, images=950), "shard")
    blocks = [set(range(run.spec["shard"], 10, run.spec["shards"])) for run in shards]
    assert sorted(number for of_one in blocks for number in of_one) == [*range(10)]
    assert len({run.key for run in shards}) == 3


def test_as_many_shards_as_there_are_blocks_and_none_for_one() -> None:
    assert len(of_kind(plan(shards=64, images=250), "shard")) == 3
    assert of_kind(plan(shards=64, images=100), "shard") == []


def test_a_pool_is_that_of_the_evaluation() -> None:
    runs = expand(ExperimentSpec.model_validate({
        "dataset": "cifar10", "variants": ["default", "lif"], "seeds": [0],
        "evaluation": {"suite": "spiking", "shards": 2, "images": 200},
    }), HERE)  # fmt: skip
    places = {run.key: number for number, run in enumerate(runs)}
    for evaluation in of_kind(runs, "evaluate"):
        shards = [runs[places[key]] for key in evaluation.shards]
        assert [run.siblings for run in shards] == [evaluation.siblings] * 2
        assert [run.spec["pool"] for run in shards] == [evaluation.spec["pool"]] * 2
        assert all(places[key] < places[run.key] for run in (*shards, evaluation) for key in run.needs)


def test_what_attacks_do_not_read_does_not_keep_shards_apart() -> None:
    keys = [[run.key for run in of_kind(plan(shards=2, images=200, corruptions=on), "shard")] for on in (False, True)]
    assert keys[0] == keys[1]


def test_no_protocol_depends_on_shards() -> None:
    one, many = (make_protocol(EvaluationSpec(shards=shards), HERE) for shards in (1, 8))
    assert one.identity(Fraction(8, 255)) == many.identity(Fraction(8, 255))


@pytest.mark.parametrize("shards", [0, 65, 1.5, "two", None])
def test_other_numbers_are_refused_and_the_limits_named(shards: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        EvaluationSpec.model_validate({"shards": shards})
    if isinstance(shards, int):
        assert str(1 if shards < 1 else 64) in str(refused.value)


def test_shards_take_what_grows_and_the_evaluation_the_rest() -> None:
    known = {HERE.fingerprint: HERE}
    [evaluation], [branch] = of_kind(plan(images=1000), "evaluate"), of_kind(plan(), "branch")
    whole = workload(evaluation.spec, branch.spec, known)
    assert whole is not None
    timed = [Timed(whole, 130.0, 100.0)]
    shards = of_kind(plan(shards=3, images=1000), "shard")
    found = [estimate(workload(run.spec, branch.spec, known), timed).seconds for run in shards]
    assert found == [40.0, 30.0, 30.0]
