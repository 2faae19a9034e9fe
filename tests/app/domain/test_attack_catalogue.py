import importlib.util

import pytest

from app.domain.attacks import ATTACKS, find_attack
from app.domain.protocol import canonical_json
from app.domain.suites import SUITE_STRENGTH, SUITES, Stage, stage_labels


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_each_attack_is_built_under_its_own_name(name: str) -> None:
    assert importlib.util.find_spec(f"worker.attacks.{name}") is not None


def test_what_is_not_given_takes_its_default() -> None:
    assert ATTACKS["pgd"].resolve({"steps": 7})["step_size"] == 0.25
    assert ATTACKS["pgd"].resolve({"steps": 7})["steps"] == 7


def test_one_value_written_as_an_integer_or_a_number_is_one_value() -> None:
    assert canonical_json(ATTACKS["pgd"].resolve({"step_size": 1})) == canonical_json(
        ATTACKS["pgd"].resolve({"step_size": 1.0})
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"stepz": 1}, "unknown parameter 'stepz'; did you mean 'steps'"),
        ({"steps": 0}, "steps must lie in 1..10000, not 0"),
        ({"steps": 2.5}, "steps must be an integer"),
        ({"steps": True}, "steps must be an integer"),
        ({"random_start": 1}, "random_start must be true or false"),
        ({"step_size": float("nan")}, "step_size must lie in"),
        ({"step_size": "big"}, "step_size must be a number"),
        ({"steps": 0, "restarts": 0}, "steps must .*; restarts must"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=f"^pgd: {told}"):
        ATTACKS["pgd"].resolve(given)


def test_a_choice_is_listed() -> None:
    with pytest.raises(ValueError, match="one of scaled, standard"):
        ATTACKS["square"].resolve({"schedule": "fast"})


def test_an_unknown_attack_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'pgd'"):
        find_attack("PGDD")


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_each_suite_has_full_budgets_and_a_place_in_the_order_of_strength(suite) -> None:  # type: ignore[no-untyped-def]
    assert suite.name in SUITE_STRENGTH
    for stage in suite.stages:
        assert set(stage.parameters) == set(ATTACKS[stage.attack].parameters)
    for norm in suite.norms:
        kept = suite.stages_for(norm)
        assert kept
        assert all(norm in ATTACKS[stage.attack].norms for stage in kept)
    assert {stage.attack for norm in suite.norms for stage in suite.stages_for(norm)} == {
        stage.attack for stage in suite.stages
    }


def test_the_standard_suite_is_autoattacks() -> None:
    stages = [(stage.attack, stage.parameters) for stage in SUITES["standard"].stages]
    assert [name for name, _ in stages] == ["apgd", "apgd", "fab", "square"]
    first, second, third, last = (parameters for _, parameters in stages)
    assert (first["loss"], first["steps"], first["restarts"], first["rho"]) == ("ce", 100, 1, 0.75)
    assert (second["loss"], second["steps"], second["targets"]) == ("dlr-targeted", 100, 9)
    assert (third["steps"], third["targets"]) == (100, 9)
    assert (third["alpha_max"], third["eta"], third["beta"]) == (0.1, 1.05, 0.9)
    assert (last["queries"], last["p_init"], last["schedule"]) == (5000, 0.8, "standard")
    assert SUITES["standard"].survivors
    assert SUITES["standard"].norms == ("linf", "l2")
    assert SUITE_STRENGTH.index("standard") > SUITE_STRENGTH.index("quick") > SUITE_STRENGTH.index("study")


def test_the_quick_suite_has_twenty_steps_from_five_starts_and_two_hundred_queries() -> None:
    fgsm, pgd, square = (dict(stage.parameters) for stage in SUITES["quick"].stages)
    assert fgsm == ATTACKS["fgsm"].resolve({})
    assert pgd == ATTACKS["pgd"].resolve({"steps": 20, "restarts": 5})
    assert square == ATTACKS["square"].resolve({"queries": 200})


def test_stages_are_called_by_what_tells_them_apart() -> None:
    spiking = stage_labels(SUITES["spiking"].stages)
    assert spiking[:4] == ["apgd-ce-expected", "apgd-dlr-targeted-expected", "apgd-ce-sampled",
                           "apgd-ce-straight_through"]  # fmt: skip
    assert spiking[-4:] == ["sapgd-expected", "sapgd-assg", "square", "transfer"]
    assert stage_labels(SUITES["quick"].stages) == ["fgsm", "pgd", "square"]
    twice = [Stage("pgd", ATTACKS["pgd"].resolve({"steps": steps})) for steps in (10, 20)]
    assert stage_labels(twice) == ["pgd", "pgd-2"]
    for suite in SUITES.values():
        labels = stage_labels(suite.stages)
        assert len(set(labels)) == len(labels)
        assert max(map(len, labels)) <= 40, "a column of the database"
