from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from app.domain import leaderboard as module
from app.domain.leaderboard import KnownRows, Measured, choose_protocol, coverage, leaderboard, matrix


def measured(**given: Any) -> Measured:
    eps = Fraction(given.pop("eps", "8/255"))
    suite, images = given.pop("suite", "quick"), given.pop("images", 100)
    family = given.pop("family", f"{suite}-{images}")
    protocol = {"suite": suite, "suite_version": given.pop("version", 1), "images": images, "eps": float(eps),
                "eps_text": str(eps), "norm": "linf", "family": family}  # fmt: skip
    values: dict[str, Any] = {
        "run_id": "run", "created_at": 0.0, "dataset": "digits", "architecture": "resnet20",
        "variant": "default", "recipe": "default", "precision": "float32", "epochs": "<5>", "group": "g", "seed": 0,
        "settings": "", "branch_seed": None, "protocol_id": f"{family}@{eps}", "protocol": protocol, "test_images": 359,
        "clean_accuracy_subset": 0.95,
        "clean_accuracy": 0.9, "robust_accuracy": 0.5, "attacks": {"fgsm": 0.6, "pgd": 0.5}, "verdict": "ok",
        "reasons": [], "draws": 1, "parameters": 10, **given,
    }  # fmt: skip
    return Measured(**{"checkpoint_id": f"c-{values['group']}-{values['seed']}-{values['branch_seed']}", **values})


def board(*figures: Measured, **options: Any) -> list[dict[str, Any]]:
    return leaderboard(figures, choose_protocol(figures), **options)


def test_the_seeds_of_a_group_become_one_row() -> None:
    [row] = board(measured(seed=0, robust_accuracy=0.4), measured(seed=1, robust_accuracy=0.6))
    assert row["robust_accuracy"]["mean"] == pytest.approx(0.5)
    assert row["robust_accuracy"]["n"] == 2
    assert row["robust_accuracy"]["by_seed"] == {"0": 0.4, "1": 0.6}
    assert row["checkpoints"] == ["c-g-0-None", "c-g-1-None"]


def test_branches_of_one_seed_are_averaged_before_the_seeds_are_counted() -> None:
    values = {(0, 0): 0.2, (0, 1): 0.4, (1, 0): 0.9, (1, 1): 0.9}
    [row] = board(*(measured(seed=s, branch_seed=b, robust_accuracy=v) for (s, b), v in values.items()))
    figure = row["robust_accuracy"]
    assert figure["n"] == 2
    assert figure["mean"] == pytest.approx(0.6)
    assert figure["by_seed"] == {"0": pytest.approx(0.3), "1": pytest.approx(0.9)}
    assert figure["by_branch_seed"]["0:1"] == 0.4


def test_the_newest_repeat_of_a_seed_counts() -> None:
    [row] = board(measured(created_at=2.0, robust_accuracy=0.1), measured(created_at=1.0, robust_accuracy=0.9))
    assert row["robust_accuracy"]["mean"] == 0.1
    assert row["robust_accuracy"]["n"] == 1


def test_rows_are_ranked_by_robust_then_clean_accuracy() -> None:
    rows = board(
        measured(group="a", robust_accuracy=0.1, clean_accuracy=0.9),
        measured(group="b", robust_accuracy=0.2, clean_accuracy=0.5),
        measured(group="c", robust_accuracy=0.1, clean_accuracy=0.95),
    )
    assert [(r["rank"], r["clean_accuracy"]["mean"]) for r in rows] == [(1, 0.5), (2, 0.95), (3, 0.9)]


def test_a_row_has_the_clean_accuracy_of_all_images_and_of_the_attacked_ones() -> None:
    [row] = board(measured(seed=0, clean_accuracy_subset=0.8), measured(seed=1, clean_accuracy_subset=0.9))
    assert row["clean_accuracy_subset"]["by_seed"] == {"0": 0.8, "1": 0.9}
    assert (row["clean_accuracy"]["mean"], row["test_images"]) == (0.9, 359)


def test_rows_may_be_ranked_by_clean_accuracy() -> None:
    rows = board(measured(group="a", clean_accuracy=0.9), measured(group="b", clean_accuracy=0.95),
                 sort="clean_accuracy")  # fmt: skip
    assert [r["clean_accuracy"]["mean"] for r in rows] == [0.95, 0.9]


def test_one_seed_that_is_an_upper_bound_only_makes_the_row_one() -> None:
    bound = measured(group="a", seed=1, robust_accuracy=0.99, verdict="upper bound only", reasons=["zero gradients"])
    rows = board(measured(group="a", seed=0, robust_accuracy=0.99), bound, measured(group="b", robust_accuracy=0.0))
    assert [r["rank"] for r in rows] == [1, None]
    assert rows[1]["verdict"] == "upper bound only"
    assert rows[1]["reasons"] == ["zero gradients"]


def test_figures_of_other_protocols_are_never_in_a_row() -> None:
    [row] = board(measured(seed=0, images=100), measured(seed=1, images=50, robust_accuracy=0.9))
    assert row["robust_accuracy"]["by_seed"] == {"0": 0.5}


def test_the_curve_has_every_radius_of_the_rows_own_protocol() -> None:
    figures = [measured(eps=e, robust_accuracy=r) for e, r in (("2/255", 0.8), ("8/255", 0.5), ("1/510", 0.9))]
    stronger = measured(eps="2/255", robust_accuracy=0.0, family="custom-of-other-budgets")
    [row] = leaderboard([*figures, stronger], figures[1].protocol_id)
    assert [(p["eps_text"], p["robust_accuracy"]["mean"]) for p in row["curve"]] == [
        ("1/510", 0.9), ("2/255", 0.8), ("8/255", 0.5)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [({"suite": "study"}, {"suite": "quick"}), ({"suite": "custom"}, {"suite": "study"}),
     ({"suite": "quick", "version": 1}, {"suite": "quick", "version": 2, "family": "v2"}),
     ({"images": 100}, {"images": 200})],
)  # fmt: skip
def test_the_strongest_protocol_is_shown_however_the_rows_fare(
    weaker: dict[str, Any], stronger: dict[str, Any]
) -> None:
    one, other = measured(**weaker, robust_accuracy=0.99), measured(**stronger, robust_accuracy=0.0)
    assert choose_protocol([one, other]) == choose_protocol([other, one]) == other.protocol_id


def test_of_equal_protocols_the_one_with_most_checkpoints_is_shown_then_the_newest() -> None:
    few = measured(family="a", created_at=9.0)
    many = [measured(family="b", seed=s) for s in range(2)]
    assert choose_protocol([few, *many]) == many[0].protocol_id
    assert choose_protocol([few, many[0]]) == few.protocol_id


def test_without_figures_there_is_no_protocol_and_no_row() -> None:
    assert choose_protocol([]) is None
    assert board() == []


def test_the_matrix_has_a_cell_for_each_variant_and_architecture_and_none_where_nothing_was_measured() -> None:
    figures = [measured(variant="lif", group="l", epochs="<5,5>", seed=s, clean_accuracy=0.8 + s / 10) for s in (0, 1)]
    table = matrix(figures, choose_protocol(figures), "clean_accuracy", ["resnet20", "resnet18"])
    cells = {line["variant"]: line["cells"] for line in table["rows"]}
    assert list(cells) == ["default", "lif", "paralif"]
    assert cells["default"] == {"resnet20": None, "resnet18": None}
    assert cells["lif"]["resnet20"]["mean"] == pytest.approx(0.85)
    assert (cells["lif"]["resnet20"]["n"], cells["lif"]["resnet20"]["epochs"]) == (2, "<5,5>")


def test_a_cell_with_several_recipes_shows_the_one_measured_last() -> None:
    figures = [measured(group="old", created_at=1.0), measured(group="new", created_at=2.0, clean_accuracy=0.1)]
    table = matrix(figures, choose_protocol(figures), "clean_accuracy", ["resnet20"])
    cell = table["rows"][0]["cells"]["resnet20"]
    assert (cell["mean"], cell["others"]) == (0.1, 1)


def test_a_stronger_suite_that_some_rows_have_not_is_not_shown() -> None:
    both = [measured(group=g, suite="study") for g in "ab"]
    stronger = measured(group="a", suite="quick", created_at=9.0)
    assert choose_protocol([*both, stronger]) == both[0].protocol_id
    assert choose_protocol([*both, stronger, measured(group="b", suite="quick")]) == stronger.protocol_id


def test_a_row_of_which_a_seed_is_missing_makes_a_suite_incomplete() -> None:
    seeds = [measured(seed=s, suite="study") for s in (0, 1)]
    assert choose_protocol([*seeds, measured(seed=0, suite="quick")]) == seeds[0].protocol_id
    branches = [measured(branch_seed=b, suite="study") for b in (0, 1)]
    assert choose_protocol([*branches, measured(branch_seed=0, suite="quick")]) == branches[0].protocol_id


def test_where_no_suite_is_complete_the_one_that_covers_most_rows_is_shown_then_the_strongest() -> None:
    study = [measured(group=g, suite="study") for g in "abc"]
    quick = [measured(group=g, suite="quick") for g in "ad"]
    assert choose_protocol([*study, *quick]) == study[0].protocol_id
    assert choose_protocol([*study[:2], *quick]) == quick[0].protocol_id
    covered = coverage([*study, *quick], lambda m: m.protocol_id)
    assert {c.rows for c in covered.values()} == {2, 3}
    assert not any(c.complete for c in covered.values())
    assert {c.of for c in covered.values()} == {4}


def test_ten_seeds_have_an_interval_from_their_images_if_these_are_known() -> None:
    figures = [measured(seed=s, run_id=f"run-{s}", eps="8/255", robust_accuracy=0.1 + s / 20) for s in range(10)]
    shares = {f"run-{s}": np.arange(20) < 2 + s for s in range(10)}
    asked: list[Any] = []

    def per_image(run_ids: Sequence[str], eps: str) -> dict[str, Any]:
        asked.append((set(run_ids), eps))
        return {name: shares[name] for name in run_ids}

    figures = [replace(m, eps="8/255") for m in figures]
    [row] = board(*figures, per_image=per_image)
    assert row["robust_accuracy"]["interval"] == "hierarchical-bootstrap"
    assert row["curve"][0]["robust_accuracy"] == row["robust_accuracy"]
    assert row["clean_accuracy"]["interval"] == "seeds-and-images"
    assert asked[0] == (set(shares), "8/255")
    del shares["run-3"]
    partly = board(*figures, per_image=lambda ids, eps: {n: shares[n] for n in ids if n in shares})
    assert partly[0]["robust_accuracy"]["interval"] == "seeds-and-images"


def test_a_row_says_how_far_its_worst_candidates_are_from_the_images() -> None:
    [row] = board(measured(seed=0, mean_norm=0.02, ssim=0.9), measured(seed=1, mean_norm=0.04, ssim=None))
    assert row["mean_norm"] == pytest.approx(0.03)
    assert row["ssim"] == 0.9
    assert board(measured())[0]["ssim"] is None


def test_known_rows_are_what_they_would_be_anew_and_only_what_changed_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    row = module._row
    monkeypatch.setattr(module, "_row", lambda members, *rest: made.append(members[0].group) or row(members, *rest))
    known = KnownRows()
    a, b = measured(run_id="a", group="a"), measured(run_id="b", group="b", robust_accuracy=0.4)
    board(a, b, known=known)
    assert made == ["a", "b"]
    for figures in (
        [a, b, measured(run_id="b2", group="b", seed=1), measured(run_id="a8", group="a", eps="1/255")],
        [replace(a, created_at=1.0, robust_accuracy=0.1), b],  # measured again
        [a, b],
    ):
        protocol = a.protocol_id
        assert leaderboard(figures, protocol, known=known) == leaderboard(figures, protocol)
    made.clear()
    board(b, a, known=known)
    assert made == []
    monkeypatch.setattr(module, "MOST_KNOWN_ROWS", 1)
    assert board(a, known=known) == board(a)
    assert len(known._known) == 1, "what other boards have is not kept for ever"
