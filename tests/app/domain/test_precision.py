"""Experiments that ask for int8: their runs, their rows, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.plan import PlannedRun, expand
from app.domain.spec import ExperimentSpec
from app.domain.subject import epochs_text, group_of, precision_of, settings_of, settings_text
from tests.app.domain.test_leaderboard import board, measured
from tests.app.domain.test_plan import dataset, kinds, plan, spec_of

ONE = {"seeds": [0], "variants": ["default", "lif"]}


def of_kind(runs: list[PlannedRun], kind: str) -> list[PlannedRun]:
    return [run for run in runs if run.kind == kind]


def test_each_network_is_quantised_by_a_run_of_its_own() -> None:
    runs = plan(**ONE, precision=["float32", "int8"])
    assert kinds(runs) == {"train": 1, "branch": 1, "quantise": 2, "evaluate": 4}
    for run in of_kind(runs, "quantise"):
        source = next(r for r in runs if r.key == run.depends_on)
        assert source.spec["variant"] == run.spec["variant"]
        assert run.spec["source"] == source.kind
        assert runs.index(source) < runs.index(run)
    shown = {(r.spec["subject"]["variant"], r.spec["subject"]["precision"]) for r in of_kind(runs, "evaluate")}
    assert shown == {("default", "float32"), ("default", "int8"), ("lif", "float32"), ("lif", "int8")}


def test_int8_alone_evaluates_nothing_else() -> None:
    assert kinds(plan(**ONE, precision=["int8"])) == {"train": 1, "branch": 1, "quantise": 2, "evaluate": 2}
    assert kinds(plan(**ONE)) == {"train": 1, "branch": 1, "evaluate": 2}


def test_asking_for_int8_changes_no_name_of_what_was_there() -> None:
    before, after = plan(**ONE), plan(**ONE, precision=["float32", "int8"])
    assert {run.key for run in before} < {run.key for run in after}


def test_a_quantised_row_says_how_and_is_another_one() -> None:
    source, run = (of_kind(plan(**ONE, precision=["int8"]), kind)[-1].spec for kind in ("branch", "quantise"))
    assert (precision_of(source), precision_of(run)) == ("float32", "int8")
    assert epochs_text(run) == epochs_text(source)
    assert settings_text(run) == "ptq"
    assert group_of(run) != group_of(source)
    assert settings_of(run)["quantisation.method"] == "ptq"
    assert settings_of(run)["precision"] == "int8"


def test_methods_and_settings_are_told_apart() -> None:
    def text(**quantisation: Any) -> str:
        return settings_text(of_kind(plan(**ONE, precision=["int8"], quantisation=quantisation), "quantise")[0].spec)

    assert text(images=100) == "ptq, ptq images 100"
    assert text(method="qat") == "qat"
    assert text(method="qat", epochs=5) == "qat, qat epochs 5"
    assert text(epochs=5) == "ptq", "what is not read keeps no two runs apart"


def test_seeds_share_a_row() -> None:
    groups = {group_of(r.spec) for r in of_kind(plan(precision=["int8"], variants=["lif"]), "quantise")}
    assert len(groups) == 1


def test_existing_checkpoints_are_quantised_without_training() -> None:
    trained = of_kind(plan(**ONE), "train")
    body = {"dataset": "digits", "precision": ["float32", "int8"], "checkpoints": ["ckpt_1"]}
    runs = expand(ExperimentSpec.model_validate(body), dataset(), trained)
    assert kinds(runs) == {"quantise": 1, "evaluate": 2}
    again = expand(ExperimentSpec.model_validate(body), dataset(), of_kind(runs, "quantise"))
    assert kinds(again) == {"evaluate": 1}, "what is quantised is evaluated as it is"


def test_the_float32_source_is_in_the_transfer_pool() -> None:
    runs = plan(**ONE, precision=["int8"], evaluation={"attacks": [{"name": "fgsm"}, {"name": "transfer"}]})
    source = of_kind(runs, "branch")[0].key
    pools = {r.spec["subject"]["variant"]: r.spec["pool"] for r in of_kind(runs, "evaluate")}
    assert {"run": source, "role": "float32 source"} in pools["lif"]


@pytest.mark.parametrize(
    ("body", "place", "says"),
    [({"precision": ["int4"]}, ("precision", 0), "'float32' or 'int8'"),
     ({"precision": []}, ("precision",), "at least 1"), ({"precision": ["int8", "int8"]}, ("precision",), "twice"),
     ({"quantisation": {"method": "best"}}, ("quantisation", "method"), "'ptq' or 'qat'"),
     ({"quantisation": {"images": 0}}, ("quantisation", "images"), "greater than or equal to 1")],
)  # fmt: skip
def test_what_is_allowed_is_named(body: dict[str, Any], place: tuple[Any, ...], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ExperimentSpec.model_validate({"dataset": "digits", **body})
    (fault,) = caught.value.errors()
    assert fault["loc"] == place
    assert says in fault["msg"]


def costs(seed: int, **given: Any) -> dict[str, Any]:
    latency = {"p50_ms": 2.0 + seed, "machine": "A", "threads": 1, "batch": 1, "kernels": "int8", "predictions": 50}
    energy = {"microjoules": 10.0 + seed, "multiply_adds": 100, "synaptic_operations": 7, "source": "H",
              "spike_rates": {"input": 0.1 * seed}}  # fmt: skip
    corruptions = {"mean": 0.5 + 0.1 * seed, "by_type": {"fog": 0.4 + 0.1 * seed}}
    own = {"size": 1000 + seed, "latency": latency, "energy": energy, "corruptions": corruptions}
    return {"seed": seed, **own, **given}


def test_a_row_averages_what_its_seeds_take() -> None:
    (row,) = board(*(measured(**costs(seed)) for seed in (0, 1, 2)))
    assert row["size"] == 1001
    assert row["latency"] == {"p50_ms": 3.0, "machine": "A", "threads": 1, "batch": 1, "kernels": "int8"}
    assert row["energy"]["microjoules"] == 11.0
    assert row["energy"]["spike_rates"]["input"] == pytest.approx(0.1)
    assert row["corruptions"]["mean"] == pytest.approx(0.6)
    assert (row["corruptions"]["sd"], row["corruptions"]["n"]) == (pytest.approx(0.1), 3)
    assert row["corruptions"]["by_type"] == {"fog": pytest.approx(0.5)}


def test_times_of_two_machines_are_no_one_number_and_what_is_not_known_is_null() -> None:
    other = costs(1)["latency"] | {"machine": "B"}
    (row,) = board(measured(**costs(0)), measured(**costs(1, latency=other)))
    assert row["latency"] is None
    (row,) = board(measured(seed=0))
    assert (row["size"], row["latency"], row["energy"], row["corruptions"]) == (None, None, None, None)


def test_training_in_mixed_precision_is_another_row_that_says_so_and_full_precision_keeps_its_names() -> None:
    full, mixed = (plan(seeds=[0], training=training) for training in ({}, {"mixed_precision": True}))
    assert {r.key for r in full}.isdisjoint(r.key for r in mixed)
    for kind, variant in (("train", "default"), ("branch", "lif")):
        assert settings_text(spec_of(mixed, kind, variant=variant)) == "trained in bfloat16"
    assert [r.key for r in plan(seeds=[0], training={"mixed_precision": False})] == [r.key for r in full]
