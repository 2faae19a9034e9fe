"""Which networks of an experiment adversarial images are made on, and that this is no part of the protocol."""

from typing import Any

from app.domain.imports import import_run
from app.domain.plan import PlannedRun
from app.domain.pool import OTHER_SEEDS, Sibling, pool_of
from app.domain.protocol import Protocol
from tests.app.domain.test_plan import plan

TRANSFER = {"attacks": [{"name": "fgsm"}, {"name": "transfer"}]}


def pools(**body: Any) -> dict[tuple[str, int, int | None], list[tuple[str, str, int]]]:
    """(variant, seed, branch seed) -> [(role, variant, seed)] of each evaluation."""
    runs = plan(**{"evaluation": TRANSFER, **body})
    specs = {run.key: run.spec for run in runs}
    return {
        (r.spec["subject"]["variant"], r.spec["subject"]["seed"], r.spec["subject"]["branch_seed"]): [
            (one["role"], specs[one["run"]]["variant"], specs[one["run"]]["seed"]) for one in r.spec["pool"]
        ]
        for r in runs
        if r.kind == "evaluate"
    }


def test_a_spiking_network_has_its_parent_two_other_seeds_and_the_other_variant() -> None:
    found = pools(seeds=[0, 1, 2, 3])
    assert found["lif", 0, 0] == [
        ("default sibling", "default", 0), ("other seed", "lif", 1), ("other seed", "lif", 2),
        ("other spiking variant", "paralif", 0),
    ]  # fmt: skip
    assert found["paralif", 3, 0] == [
        ("default sibling", "default", 3), ("other seed", "paralif", 0), ("other seed", "paralif", 1),
        ("other spiking variant", "lif", 3),
    ]  # fmt: skip
    assert found["default", 2, None] == [("other seed", "default", 0), ("other seed", "default", 1)]
    assert OTHER_SEEDS == 2


def test_a_network_alone_has_no_pool_and_a_branch_always_its_parent() -> None:
    assert pools(seeds=[0], variants=["default"]) == {("default", 0, None): []}
    assert pools(seeds=[0], variants=["lif"]) == {("lif", 0, 0): [("default sibling", "default", 0)]}


def test_siblings_are_of_the_same_architecture_and_branch() -> None:
    found = pools(architectures=["resnet20", "resnet18"], seeds=[0], variants=["default"])
    assert set(map(tuple, found.values())) == {()}
    found = pools(seeds=[0, 1], branch_seeds=[0, 1], variants=["lif", "paralif"])
    assert found["lif", 0, 1] == [
        ("default sibling", "default", 0), ("other seed", "lif", 1), ("other spiking variant", "paralif", 0)
    ]


def test_the_evaluation_waits_for_its_pool_which_is_part_of_the_run_and_not_of_the_protocol() -> None:
    alone, together = ([r for r in plan(variants=["default"], seeds=s, evaluation=TRANSFER) if r.kind == "evaluate"]
                       for s in ([0], [0, 1]))  # fmt: skip
    assert together[0].needs == (together[0].depends_on, together[1].depends_on)
    assert alone[0].key != together[0].key
    protocols = [Protocol.from_dict(run.spec["protocol"]) for run in (alone[0], together[0])]
    assert protocols[0].identity(protocols[0].eps[0]) == protocols[1].identity(protocols[1].eps[0])


def test_a_seed_added_later_changes_no_pool_of_the_others() -> None:
    few, more = plan(seeds=[0, 1, 2], evaluation=TRANSFER), plan(seeds=[0, 1, 2, 7], evaluation=TRANSFER)
    assert {run.key for run in few} < {run.key for run in more}


def test_the_order_of_an_experiment_does_not_change_its_pools() -> None:
    other = plan(seeds=[2, 0, 1], variants=["paralif", "default", "lif"], evaluation=TRANSFER)
    assert {run.key for run in other} == {run.key for run in plan(evaluation=TRANSFER)}


def test_each_run_comes_after_all_that_it_needs() -> None:
    seen: set[str] = set()
    for run in plan(evaluation=TRANSFER, branch_seeds=[0, 1]):
        assert set(run.needs) <= seen
        seen.add(run.key)


def test_without_a_transfer_stage_nothing_of_a_run_changes() -> None:
    for run in plan():
        assert "pool" not in run.spec
        assert run.siblings == ()


def test_of_imported_networks_only_other_seeds_of_one_name_are_siblings() -> None:
    def imported(variant: str, seed: int, file: str, name: str = "mine") -> PlannedRun:
        model = {"architecture": "resnet20", "variant": variant, "decoder": None}
        said = {"seed": seed, "branch_seed": None, "epochs": None, "name": name}
        return import_run("digits", model, file * 64, **said)  # type: ignore[arg-type]

    default, lif, again = imported("default", 0, "a"), imported("lif", 0, "b"), imported("default", 1, "c")
    other = imported("default", 2, "d", name="another")
    found = {run.key: pool_of(run, [default, lif, again, other]) for run in (default, lif, again)}
    assert found == {default.key: [Sibling(again.key, "other seed")], lif.key: [],
                     again.key: [Sibling(default.key, "other seed")]}  # fmt: skip
