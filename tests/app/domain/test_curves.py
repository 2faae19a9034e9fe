from dataclasses import replace
from typing import Any

import pytest

from app.domain.curves import curves
from app.domain.leaderboard import Measured, choose_family, row_id
from tests.app.domain.test_comparison import PROTOCOL
from tests.app.domain.test_comparison import measured as at_8


def measured(group: str, seed: int, robust: float, eps: float = 8 / 255, **given: Any) -> Measured:
    family = given.pop("family", "f")
    protocol = {**PROTOCOL, "eps": eps, "eps_text": f"{eps * 255:g}/255", "family": family}
    given = {"protocol": protocol, "protocol_id": f"{family}@{eps}", **given}
    return replace(at_8(group, seed, robust), **given)


def test_there_is_one_line_a_row_and_a_point_a_radius_with_its_rows_id() -> None:
    figures = [measured(g, s, 0.9 - e * 10 + s / 100, e) for g in ("lif", "default") for s in (0, 1)
               for e in (8 / 255, 2 / 255)]  # fmt: skip
    lines = curves(figures, "f")
    assert [line["label"] for line in lines] == ["resnet20 default", "resnet20 LIF"]
    assert [[p["eps_text"] for p in line["points"]] for line in lines] == [["2/255", "8/255"]] * 2
    point = lines[1]["points"][0]
    assert point["row"] == row_id("lif", f"f@{2 / 255}")
    assert point["accuracy"]["by_seed"] == {"0": pytest.approx(0.9 - 20 / 255), "1": pytest.approx(0.91 - 20 / 255)}
    assert lines[0]["id"] != lines[1]["id"]


def test_a_line_begins_with_the_images_that_are_attacked_and_knows_how_many_more_were_tested() -> None:
    [line] = curves([measured("lif", s, 0.5, clean_accuracy_subset=0.8 + s / 10) for s in (0, 1)], "f")
    assert line["clean_accuracy_subset"]["mean"] == pytest.approx(0.85)
    assert (line["clean_accuracy"]["mean"], line["test_images"]) == (0.9, 359)


def test_an_attacks_line_has_its_own_figures_where_it_ran() -> None:
    figures = [measured("lif", 0, 0.2, 2 / 255, attacks={"pgd": 0.3}), measured("lif", 0, 0.1, attacks={"fgsm": 0.4})]
    [line] = curves(figures, "f", "pgd")
    assert [(p["eps_text"], p["accuracy"]["mean"]) for p in line["points"]] == [("2/255", 0.3)]
    assert curves(figures, "f", "square") == []


def test_lines_of_other_protocols_are_left_out() -> None:
    figures = [measured("lif", 0, 0.2), measured("default", 0, 0.2, family="g"), measured("lif", 0, 0.1, family="g")]
    assert choose_family(figures) == "g"
    assert [line["variant"] for line in curves(figures, "g")] == ["default", "lif"]
    assert len(curves(figures, "f")) == 1


def test_one_figure_that_is_an_upper_bound_only_marks_its_point_and_the_line() -> None:
    bound = {"verdict": "upper bound only", "reasons": ["why"]}
    [line] = curves([measured("lif", 0, 0.5, 2 / 255), measured("lif", 0, 0.4, **bound)], "f")
    assert [p["verdict"] for p in line["points"]] == ["ok", "upper bound only"]
    assert (line["verdict"], line["reasons"]) == ("upper bound only", ["why"])


def test_lines_of_one_variant_are_told_apart_by_what_differs_and_no_more() -> None:
    branches = [measured(g, 0, 0.5, variant="lif", epochs=e) for g, e in (("a", "<5,5>"), ("b", "<5,9>"))]
    figures = [*branches, measured("default", 0, 0.4)]
    assert [line["label"] for line in curves(figures, "f")] == [
        "resnet20 default <5>", "resnet20 LIF <5,5>", "resnet20 LIF <5,9>"
    ]
