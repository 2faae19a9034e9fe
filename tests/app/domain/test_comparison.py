from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from app.domain.comparison import Side, compare, differing_settings, protocol_differences
from app.domain.leaderboard import Measured, leaderboard
from app.domain.statistics import mcnemar
from app.domain.subject import settings_of

PROTOCOL = {"suite": "quick", "suite_version": 1, "images": 100, "eps": 8 / 255, "eps_text": "8/255", "norm": "linf",
            "family": "f"}  # fmt: skip


def measured(group: str, seed: int, robust: float, branch_seed: int | None = None, **given: Any) -> Measured:
    values: dict[str, Any] = {
        "run_id": f"{group}-{seed}-{branch_seed}", "created_at": 0.0, "dataset": "digits", "architecture": "resnet20",
        "variant": group, "recipe": "default", "precision": "float32", "epochs": "<5>", "group": group, "seed": seed,
        "settings": "", "branch_seed": branch_seed, "protocol_id": "p", "protocol": PROTOCOL, "test_images": 359,
        "clean_accuracy_subset": 0.95,
        "clean_accuracy": 0.9, "robust_accuracy": robust, "attacks": {"fgsm": robust}, "verdict": "ok", "reasons": [],
        "draws": 1, "parameters": 10, "checkpoint_id": "c", "eps": "8/255", **given,
    }  # fmt: skip
    return Measured(**values)


def side(*members: Measured, **settings: Any) -> Side:
    [row] = leaderboard(members, "p")
    return Side(row, members, settings)


def nothing(run_ids: Sequence[str], eps: str) -> dict[str, Any]:
    return {}


def against(a: Side, b: Side, votes: Mapping[str, Any] | None = None, shares: Any = nothing) -> dict[str, Any]:
    def read(run_ids: Sequence[str], eps: str) -> dict[str, Any]:
        assert eps == "8/255"
        return {name: np.asarray((votes or {})[name], float) for name in run_ids if name in (votes or {})}

    return compare(a, b, per_image=shares, votes=read)


def test_the_difference_is_a_minus_b_over_the_common_seeds_alone() -> None:
    a = side(*(measured("lif", s, r) for s, r in ((0, 0.5), (1, 0.6), (2, 0.58), (7, 0.0))))
    b = side(*(measured("default", s, r) for s, r in ((0, 0.4), (1, 0.45), (2, 0.5), (9, 1.0))))
    found = against(a, b)
    differences = zip("012", (0.1, 0.15, 0.08), strict=True)
    assert found["robust_accuracy"]["by_seed"] == {s: pytest.approx(d) for s, d in differences}
    assert found["robust_accuracy"]["n"] == 3
    assert found["seeds"] == {"common": [0, 1, 2], "only_a": [7], "only_b": [9]}
    # by hand: mean .11, sd .036056, t = 5.2842, 2 degrees of freedom
    assert found["p"] == pytest.approx(0.03399, abs=1e-4)
    assert found["significant"] is True
    assert "is 11.0 points more robust than" in found["conclusion"]
    assert "is significant over seeds (paired t, p = 0.034)" in found["conclusion"]
    assert "No p is corrected" in found["conclusion"]


def test_a_difference_that_is_not_significant_is_called_so_in_words() -> None:
    a = side(measured("lif", 0, 0.5), measured("lif", 1, 0.4))
    b = side(measured("default", 0, 0.4), measured("default", 1, 0.45))
    found = against(a, b)
    assert found["significant"] is False
    assert "is not significant over seeds" in found["conclusion"]
    assert "do not show that one recipe withstands more" in found["conclusion"]


def test_mcnemar_counts_images_by_the_vote_within_each_pair_of_one_seed() -> None:
    right_a, right_b = np.arange(100) < 60, (np.arange(100) >= 10) & (np.arange(100) < 40)
    votes = {"lif-0-0": right_a, "default-0-None": right_b, "lif-1-0": right_a, "default-2-None": right_b}
    a = side(measured("lif", 0, 0.6, 0), measured("lif", 1, 0.6, 0))
    b = side(measured("default", 0, 0.3), measured("default", 2, 0.3))
    [pair] = against(a, b, votes)["mcnemar"]
    assert pair == {"seed": 0, "branch_seeds": [0, None], "images": 100, "both": 30, "only_a": 30, "only_b": 0,
                    "neither": 40, "p": mcnemar(30, 0)[0], "method": "mid-p"}  # fmt: skip


def test_with_one_common_seed_there_is_no_p_over_seeds_and_the_conclusion_says_what_that_means() -> None:
    votes = {"lif-0-None": np.arange(100) < 60, "default-0-None": np.arange(100) < 30}
    a, b = side(measured("lif", 0, 0.6)), side(measured("default", 0, 0.3))
    found = against(a, b, votes, shares=lambda ids, eps: {n: votes[n].astype(float) for n in ids})
    assert found["p"] is None
    assert found["significant"] is None
    low, high = found["robust_accuracy"]["ci95"]
    assert 0.2 < low < 0.3 < high < 0.4
    assert "is significant image by image (McNemar, p < 0.001)" in found["conclusion"]
    assert "says nothing of other trainings" in found["conclusion"]


def test_several_branches_meet_the_one_network_of_the_other_row_and_each_other_by_branch_seed() -> None:
    branches = [measured("lif", 0, 0.5, b) for b in (0, 1)]
    others = [measured("paralif", 0, 0.4, b) for b in (1, 2)]
    single = measured("default", 0, 0.4)
    votes = {m.run_id: np.ones(100) for m in (*branches, *others, single)}
    pairs = against(side(*branches), side(single), votes)["mcnemar"]
    assert [p["branch_seeds"] for p in pairs] == [[0, None], [1, None]]
    pairs = against(side(*branches), side(*others), votes)["mcnemar"]
    assert [p["branch_seeds"] for p in pairs] == [[1, 1]]


def test_equal_differences_are_not_called_significant() -> None:
    found = against(side(measured("lif", 0, 0.5), measured("lif", 1, 0.6)),
                    side(measured("default", 0, 0.4), measured("default", 1, 0.5)))  # fmt: skip
    assert (found["p"], found["significant"]) == (None, None)
    assert "no spread between seeds" in found["conclusion"]


def test_clean_accuracies_are_compared_on_all_images_and_on_those_attacked() -> None:
    found = against(side(measured("lif", 0, 0.5, clean_accuracy=0.8, clean_accuracy_subset=0.9)),
                    side(measured("default", 0, 0.4, clean_accuracy=0.7, clean_accuracy_subset=0.6)))  # fmt: skip
    assert found["clean_accuracy"]["mean"] == pytest.approx(0.1)
    assert found["clean_accuracy_subset"]["mean"] == pytest.approx(0.3)


def test_rows_without_a_common_seed_have_no_difference() -> None:
    found = against(side(measured("lif", 0, 0.5)), side(measured("default", 1, 0.4)))
    assert found["robust_accuracy"] is found["clean_accuracy"] is found["clean_accuracy_subset"] is found["p"] is None
    assert found["mcnemar"] == []
    assert "no seed in common" in found["conclusion"]
    assert "corrected" not in found["conclusion"], "there is no p"


def test_an_upper_bound_takes_the_weight_from_a_difference() -> None:
    bound = measured("paralif", 0, 0.9, verdict="upper bound only", reasons=["4 % of the images gave a zero gradient"])
    said = against(side(bound), side(measured("default", 0, 0.4)))["conclusion"]
    assert "The figure of A is an upper bound only (4 % of the images gave a zero gradient)" in said
    assert "even of the other sign" in said


def test_settings_that_differ_are_listed_with_both_values() -> None:
    listed = differing_settings({"x": 1, "same": 2, "only_a": 3}, {"x": 4, "same": 2, "only_b": False})
    assert listed == [{"name": "x", "a": 1, "b": 4}, {"name": "only_a", "a": 3, "b": None},
                      {"name": "only_b", "a": None, "b": False}]  # fmt: skip
    said = against(side(measured("lif", 0, 0.5), lr=1), side(measured("default", 0, 0.4), lr=2))["conclusion"]
    assert said.endswith("Settings that differ: lr.")


def test_a_branchs_settings_are_told_apart_from_its_parents() -> None:
    common = {"dataset": {"name": "digits"}, "architecture": "resnet20", "seed": 0, "model": {"stem": "cifar"}}
    train = {**common, "kind": "train", "variant": "default", "epochs": 20, "training": {"learning_rate": 0.1}}
    branch = {**common, "kind": "branch", "variant": "lif", "epochs": 10, "parent_epochs": 20, "branch_seed": 3,
              "parent": "k", "parent_training": {"learning_rate": 0.1}, "training": {"learning_rate": 0.01},
              "decoder": {"beta": 0.95}}  # fmt: skip
    different = differing_settings(settings_of(train), settings_of(branch))
    assert {d["name"]: (d["a"], d["b"]) for d in different} == {
        "variant": ("default", "lif"), "epochs": ("<20>", "<20,10>"), "decoder.beta": (None, 0.95),
        "branch.learning_rate": (None, 0.01),
    }  # fmt: skip


def test_what_keeps_protocols_apart_is_named() -> None:
    one = {"dataset": "digits", "fingerprint": "x", "suite": "quick", "images": 100, "stages": [1], "eps": "8/255"}
    other = {**one, "fingerprint": "y", "images": 50, "stages": [2]}
    assert protocol_differences(one, other) == [
        "the images of the data set", "images: 100 against 50", "the attacks' budgets"
    ]  # fmt: skip
    assert protocol_differences(one, one) == []
