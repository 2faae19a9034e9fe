import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from app.domain.attacks import ATTACKS, Parameter
from app.domain.protocol import Protocol, digest
from app.domain.suites import SUITES, Stage

EPS = Fraction(8, 255)
# Stages of "quick" up to version 2.
ONE_START = (
    SUITES["quick"].stages[0], Stage("pgd", ATTACKS["pgd"].resolve({})), SUITES["quick"].stages[2],
)  # fmt: skip


def protocol(**changes: Any) -> Protocol:
    suite = SUITES["quick"]
    given = Protocol(
        dataset="digits", fingerprint="digits-1", norm="linf", eps=(Fraction(2, 255), EPS), suite=suite.name,
        suite_version=suite.version, survivors=suite.survivors, stages=suite.stages, images=100,
    )  # fmt: skip
    return replace(given, **changes)


@pytest.mark.parametrize(
    "change",
    [{"dataset": "mine"}, {"fingerprint": "digits-2"}, {"norm": "l2"}, {"suite": "custom"}, {"suite_version": 99},
     {"diagnostics": "full"}, {"images": 99}, {"precision": "bfloat16"}, {"survivors": False},
     {"stages": SUITES["quick"].stages[:2]}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_could_change_a_figure_changes_the_identity(change: dict[str, Any]) -> None:
    assert protocol(**change).identity(EPS) != protocol().identity(EPS)


def test_a_larger_budget_is_another_protocol() -> None:
    stages = tuple(Stage("pgd", ATTACKS["pgd"].resolve({"steps": n})) for n in (20, 21))
    assert protocol(stages=stages[:1]).identity(EPS) != protocol(stages=stages[1:]).identity(EPS)


def other_value(parameter: Parameter) -> Any:
    """Another one that is allowed."""
    if parameter.choices:
        return next(choice for choice in parameter.choices if choice != parameter.default)
    if isinstance(parameter.default, bool):
        return not parameter.default
    if isinstance(parameter.default, str):
        return f"{parameter.default}-2"
    low = parameter.minimum if parameter.minimum is not None else parameter.default - 1
    return type(parameter.default)(low if low != parameter.default else low + 1)


@pytest.mark.parametrize(
    ("attack", "name"), [(attack.name, name) for attack in ATTACKS.values() for name in attack.parameters]
)
def test_every_parameter_of_every_attack_is_part_of_the_identity(attack: str, name: str) -> None:
    given = [{}, {name: other_value(ATTACKS[attack].parameters[name])}]
    one, other = (protocol(stages=(Stage(attack, ATTACKS[attack].resolve(g)),)) for g in given)
    assert one.identity(EPS) != other.identity(EPS)
    assert one.family != other.family
    assert Protocol.from_dict(json.loads(json.dumps(other.to_dict()))).identity(EPS) == other.identity(EPS)


def test_identities_from_before_there_were_diagnostics_to_choose_are_kept() -> None:
    first = protocol(suite_version=1, stages=ONE_START)
    assert "diagnostics" not in first.to_dict()
    assert first.identity(EPS) == "393419720845ac1cc7e028d24edcc5f4823df00b43d8de2111adbbcc93382911"
    full = protocol(diagnostics="full")
    assert Protocol.from_dict(json.loads(json.dumps(full.to_dict()))) == full


def test_another_radius_is_another_identity() -> None:
    assert protocol().identity(EPS) != protocol().identity(Fraction(2, 255))


def test_the_other_radii_of_the_run_are_no_part_of_it() -> None:
    assert protocol(eps=(EPS,)).identity(EPS) == protocol().identity(EPS)


def test_the_figures_of_a_curve_are_of_one_family_and_other_budgets_of_another() -> None:
    assert protocol(eps=(EPS,)).family == protocol().family
    assert protocol(stages=SUITES["quick"].stages[:1]).family != protocol().family


@pytest.mark.parametrize("suite", SUITES)
def test_a_protocol_survives_being_stored_as_json(suite: str) -> None:
    stored = protocol(stages=SUITES[suite].stages, eps=SUITES[suite].grid or (EPS, Fraction(1, 3)))
    assert Protocol.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


@pytest.mark.parametrize(
    ("suite", "version", "identity"),
    [("quick", 1, "2903fc5f158bed16"), ("quick", 2, "f8eb672f1ee7bf52"), ("quick", 3, "4f539135698f2f3e"),
     ("quick", 4, "e68eb9cf84654c37"),
     ("study", 1, "3e9d1197fcb51a7a")],
)  # fmt: skip
def test_identities_of_stored_figures_stay_what_they_are(suite: str, version: int, identity: str) -> None:
    """Another digest would take every stored row out of its ranking: raise the suite's version, with a reason."""
    survivors = SUITES[suite].survivors
    stages = ONE_START if suite == "quick" and version < 3 else SUITES[suite].stages
    eps = (SUITES[suite].grid or (EPS,))[0]
    stored = protocol(
        suite=suite, suite_version=version, stages=stages, survivors=survivors, eps=(eps,), fingerprint="f"
    )
    assert stored.identity(eps).startswith(identity)


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1.5]}) == digest({"b": [1.5], "a": 1})


def test_what_is_no_number_cannot_be_digested() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"rate": float("nan")})
