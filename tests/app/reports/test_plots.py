import io
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.reports.curve_plot import curves_picture
from app.reports.markup import render
from app.reports.plots import VARIANT_COLOURS
from app.reports.tables import curves_table


def figure(mean: float) -> dict[str, Any]:
    return {"mean": mean, "sd": 0.01, "n": 3, "ci95": [max(0.0, mean - 0.05), min(1.0, mean + 0.05)], "by_seed": {}}


def line(variant: str, means: list[float], **given: Any) -> dict[str, Any]:
    points = [
        {"eps": e / 255, "eps_text": f"{e}/255", "row": "r", "accuracy": figure(m), "verdict": "ok", "reasons": []}
        for e, m in zip((2, 8), means, strict=False)
    ]
    return {"label": f"resnet20 {variant}", "architecture": "resnet20", "variant": variant, "recipe": "default",
            "precision": "float32", "epochs": "<5>", "settings": "", "clean_accuracy": figure(0.9),
            "clean_accuracy_subset": figure(0.95), "points": points,
            "verdict": "ok", **given}  # fmt: skip


def answer(*lines: dict[str, Any], **given: Any) -> dict[str, Any]:
    protocol = {"suite": "quick", "suite_version": 1, "images": 100, "survivors": True}
    return {"dataset": "cifar10", "norm": "linf", "attack": None, "kind": "robust accuracy", "chance": 0.1,
            "protocol": protocol, "lines": list(lines), **given}  # fmt: skip


def colours_in(content: bytes) -> set[tuple[int, ...]]:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return {tuple(colour) for colour in np.unique(np.asarray(picture).reshape(-1, 3), axis=0).tolist()}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_a_png_has_a_line_in_each_variants_own_colour() -> None:
    two = colours_in(curves_picture(answer(line("default", [0.6, 0.0]), line("lif", [0.7, 0.1])), "png"))
    assert {rgb(VARIANT_COLOURS[name]) for name in ("default", "lif")} <= two
    assert rgb(VARIANT_COLOURS["paralif"]) not in two


def test_the_same_answer_gives_the_same_bytes() -> None:
    shown = answer(line("default", [0.6, 0.0]))
    for form in ("png", "svg"):
        assert curves_picture(shown, form) == curves_picture(shown, form)  # type: ignore[arg-type]


def test_a_line_that_is_an_upper_bound_only_is_dashed() -> None:
    sure = curves_picture(answer(line("lif", [0.6, 0.5])), "svg").decode()
    bound = curves_picture(answer(line("lif", [0.6, 0.5], verdict="upper bound only")), "svg").decode()
    dashes = [text.count("stroke-dasharray") for text in (sure, bound)]
    assert dashes[1] == dashes[0] + 2, "the line, and its sign in the legend"


@pytest.mark.parametrize(
    "shown",
    [
        answer(), answer(protocol=None, chance=None, kind=None),
        answer(line("lif", [0.6, 0.5]), norm="l2", attack="fgsm", kind="alone"),
        answer(*(line("lif", [0.1 * k, 0.05], label=f"$weird_{k} <&> 100%") for k in range(9))),
    ],
)  # fmt: skip
def test_anything_that_can_be_asked_for_can_be_drawn(shown: dict[str, Any]) -> None:
    assert ElementTree.fromstring(curves_picture(shown, "svg")).tag.endswith("svg")


def test_tables_of_curves_have_a_row_a_line_and_a_record_a_point() -> None:
    table = curves_table(answer(line("default", [0.6, 0.0]), line("lif", [0.7])))
    assert table.header == ["row", "eps 0 %", "2/255 %", "8/255 %", "verdict"]
    assert table.rows[1] == ["resnet20 lif", "95.0 ± 1.0", "70.0 ± 1.0", "–", "ok"]
    assert [(r["variant"], r["eps_text"], r["accuracy"]) for r in table.records] == [
        ("default", "0", 0.95), ("default", "2/255", 0.6), ("default", "8/255", 0.0), ("lif", "0", 0.95),
        ("lif", "2/255", 0.7),
    ]  # fmt: skip
    what = {"dataset": "cifar10", "figure": "robust_accuracy", "norm": "linf", "suite": "quick", "images": 100}
    assert all(what.items() <= record.items() for record in table.records)
    assert "accuracy_low" in render(table, "csv").splitlines()[0]
