"""What the filters of the boards offer."""

from dataclasses import replace

from app.domain.choices import choices
from app.domain.leaderboard import Measured
from tests.app.domain.test_leaderboard import measured


def in_l2(one: Measured) -> Measured:
    return replace(one, protocol={**one.protocol, "norm": "l2", "eps": 0.5, "eps_text": "0.5"})


def test_what_exists_is_offered_in_the_order_of_the_catalogues() -> None:
    found = choices([
        in_l2(measured(variant="paralif", architecture="resnet50", suite="quick", images=20)),
        measured(variant="default", architecture="resnet20", suite="standard", eps="8/255", freeze_depth=3),
        measured(variant="default", architecture="resnet20", suite="quick", eps="2/255", recipe="study"),
    ])  # fmt: skip
    assert found["architecture"] == ["resnet20", "resnet50"]
    assert found["variant"] == ["default", "paralif"]
    assert found["suite"] == ["quick", "standard"], "from weakest to strongest"
    assert found["norm"] == ["linf", "l2"]
    assert [(r["norm"], r["eps_text"]) for r in found["eps"]] == [("linf", "2/255"), ("linf", "8/255"), ("l2", "0.5")]
    assert (found["images"], found["freeze_depth"]) == ([20, 100], [3])


def test_attacks_are_listed_by_suite_in_the_order_in_which_they_ran() -> None:
    found = choices([
        measured(suite="quick", attacks={"square": 0.1, "fgsm": 0.2}),
        measured(suite="custom", attacks={"noise": 0.9}),
    ])  # fmt: skip
    assert found["attacks"] == {"custom": ["noise"], "quick": ["square", "fgsm"]}


def test_of_nothing_there_is_no_choice() -> None:
    assert not any(choices([]).values())
