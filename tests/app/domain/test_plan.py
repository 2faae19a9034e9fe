from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.datasets import KNOWN, Dataset
from app.domain.plan import (
    PlannedRun,
    decoder_settings,
    expand,
    make_protocol,
    resolve_training,
)
from app.domain.recipes import UNDEFENDED
from app.domain.spec import DecoderSpec, EvaluationSpec, ExperimentSpec
from app.domain.subject import epochs_text, group_of, settings_text
from app.domain.weights import SourceCheckpoint, WeightsSource


def dataset(name: str = "digits", test_size: int = 359) -> Dataset:
    facts = KNOWN[name]
    return Dataset(name, facts.classes, facts.shape, facts.train_size, test_size, f"{name}-1", facts)


def plan(name: str = "digits", **body: Any) -> list[PlannedRun]:
    return expand(ExperimentSpec.model_validate({"dataset": name, **body}), dataset(name))


def kinds(runs: list[PlannedRun]) -> dict[str, int]:
    return dict(Counter(run.kind for run in runs))


def spec_of(runs: list[PlannedRun], kind: str, **equal: Any) -> dict[str, Any]:
    found = [r.spec for r in runs if r.kind == kind and all(r.spec.get(k) == v for k, v in equal.items())]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("body", "train", "branch", "evaluate"),
    [
        ({}, 3, 6, 9),
        ({"seeds": [0]}, 1, 2, 3),
        ({"variants": ["default"]}, 3, 0, 3),
        ({"variants": ["lif"], "seeds": [0]}, 1, 1, 1),
        ({"branch_seeds": [0, 1, 2], "seeds": [4]}, 1, 6, 7),
        ({"architectures": ["resnet20", "resnet18"]}, 6, 12, 18),
    ],
)
def test_the_graph_has_a_training_a_seed_a_branch_a_spiking_variant_and_an_evaluation_a_checkpoint(
    body: dict[str, Any], train: int, branch: int, evaluate: int
) -> None:
    counts = kinds(plan(**body))
    assert (counts["train"], counts.get("branch", 0), counts["evaluate"]) == (train, branch, evaluate)


def test_each_run_comes_after_the_one_it_starts_from() -> None:
    seen: set[str] = set()
    for run in plan(branch_seeds=[0, 1]):
        assert run.depends_on is None or run.depends_on in seen
        seen.add(run.key)


def test_all_branches_of_a_seed_share_one_parent() -> None:
    runs = plan(seeds=[0], branch_seeds=[0, 1])
    assert len({r.depends_on for r in runs if r.kind == "branch"}) == 1


def test_where_only_spiking_variants_are_wanted_the_parent_is_trained_but_not_evaluated() -> None:
    runs = plan(variants=["lif"], seeds=[0])
    assert [r.spec["subject"]["variant"] for r in runs if r.kind == "evaluate"] == ["lif"]


@given(st.permutations([0, 1, 2]), st.permutations(["default", "lif", "paralif"]))
def test_the_order_of_seeds_and_variants_does_not_change_what_is_run(seeds: list[int], variants: list[str]) -> None:
    assert {r.key for r in plan(seeds=seeds, variants=variants)} == {r.key for r in plan()}


def test_a_larger_experiment_has_every_run_of_a_smaller_one() -> None:
    assert {r.key for r in plan(seeds=[1], variants=["lif"])} < {r.key for r in plan()}


@pytest.mark.parametrize(
    ("setting", "variant"),
    [({"gain": 1.0}, "lif"), ({"spike_mode": "D"}, "lif"), ({"tau_mem": 0.1}, "lif"),
     ({"estimator": "published"}, "lif"), ({"kernel": "reference"}, "lif"), ({"hidden": 32}, "paralif"),
     ({"beta": 0.5}, "paralif")],
)  # fmt: skip
def test_a_setting_that_the_variant_does_not_read_gives_the_same_runs(setting: dict[str, Any], variant: str) -> None:
    assert {r.key for r in plan(variants=[variant], decoder=setting)} == {r.key for r in plan(variants=[variant])}


@pytest.mark.parametrize(
    ("setting", "variant"),
    [({"gain": 1.0}, "paralif"), ({"estimator": "published"}, "paralif"), ({"hidden": 32}, "lif"),
     ({"beta": 0.5}, "lif"), ({"timesteps": 5}, "lif"), ({"timesteps": 5}, "paralif"),
     ({"surrogate": "rectangle"}, "lif"), ({"learn_threshold": False}, "paralif")],
)  # fmt: skip
def test_a_setting_that_the_variant_reads_gives_other_branches_of_the_same_parent(
    setting: dict[str, Any], variant: str
) -> None:
    one, other = plan(variants=[variant], decoder=setting), plan(variants=[variant])
    assert {r.key for r in one if r.kind == "train"} == {r.key for r in other if r.kind == "train"}
    assert {r.key for r in one if r.kind != "train"}.isdisjoint({r.key for r in other})


@pytest.mark.parametrize("variant", ["lif", "paralif"])
def test_the_settings_that_keep_runs_apart_are_those_the_network_reads(variant: str) -> None:
    torch = pytest.importorskip("torch")
    from models.decoder import DecoderConfig, build_decoder

    class Watched:
        read: ClassVar[set[str]] = set()

        def __getattr__(self, name: str) -> Any:
            self.read.add(name)
            return getattr(DecoderConfig(), name)

    build_decoder(variant, features=4, classes=3, config=Watched())(torch.rand(1, 4))  # type: ignore[arg-type]
    of_the_request = Watched.read & set(DecoderSpec.model_fields)
    unusual = DecoderSpec(normalisation="clamp", encoding_gradient="none")  # else left out: they came later
    assert set(decoder_settings(unusual, variant)) == of_the_request | {"readout"}


def test_runs_of_one_cell_have_one_group_over_seeds_and_branch_seeds() -> None:
    groups = Counter(
        (r.spec["subject"]["variant"], r.spec["subject"]["group"])
        for r in plan(seeds=[0, 1], branch_seeds=[0, 1]) if r.kind == "evaluate"
    )
    assert sorted(groups.values()) == [2, 4, 4]


def test_another_recipe_is_another_group() -> None:
    assert group_of(spec_of(plan(seeds=[0]), "train")) != group_of(
        spec_of(plan(seeds=[0], training={"epochs": 3}), "train")
    )


def test_epochs_are_written_as_the_study_does() -> None:
    runs = plan(seeds=[0], training={"epochs": 7, "branch_epochs": 2})
    assert epochs_text(spec_of(runs, "train")) == "<7>"
    assert epochs_text(spec_of(runs, "branch", variant="lif")) == "<7,2>"


def test_an_early_branch_names_where_it_left_and_its_parent_keeps_that_epoch() -> None:
    runs = plan(seeds=[0], variants=["lif"], training={"epochs": 7, "branch_epochs": 2, "branch_at": 3})
    assert epochs_text(spec_of(runs, "branch")) == "<3,2>"
    assert spec_of(runs, "train")["keep_epochs"] == [3]


def test_a_branch_from_the_last_epoch_needs_nothing_kept_and_shares_the_parent_of_the_default() -> None:
    runs = plan(seeds=[0], training={"epochs": 7, "branch_at": 7})
    assert kinds(runs)["train"] == 1
    assert spec_of(runs, "train")["keep_epochs"] == []


def test_branches_that_leave_one_parent_at_different_epochs_share_it_with_the_default() -> None:
    overrides = [{"variant": "lif", "branch_at": 3}, {"variant": "paralif", "branch_at": 5}]
    runs = plan(seeds=[0], training={"epochs": 7, "overrides": overrides})
    assert kinds(runs)["train"] == 1
    assert spec_of(runs, "train")["keep_epochs"] == [3, 5]


def test_a_parent_of_another_length_keeps_only_its_own_branches_epochs() -> None:
    overrides = [{"variant": "lif", "epochs": 9, "branch_at": 3}]
    runs = plan(seeds=[0], training={"epochs": 7, "overrides": overrides})
    assert {(r.spec["epochs"], tuple(r.spec["keep_epochs"])) for r in runs if r.kind == "train"} == {(7, ()), (9, (3,))}


def test_a_size_that_the_images_have_anyway_gives_the_same_runs() -> None:
    assert plan(training={"image_size": 8}) == plan()


def test_what_is_only_shown_does_not_keep_two_equal_evaluations_apart() -> None:
    run = next(r for r in plan(seeds=[0]) if r.kind == "evaluate")
    reworded = {**run.spec, "subject": {**run.spec["subject"], "settings": "in other words"}}
    assert PlannedRun(run.kind, reworded, run.depends_on).key == run.key


def test_keeping_an_epoch_does_not_make_another_cell_of_the_table() -> None:
    kept = spec_of(plan(seeds=[0], variants=["lif"], training={"epochs": 7, "branch_at": 3}), "train")
    assert group_of(kept) == group_of(spec_of(plan(seeds=[0], variants=["default"], training={"epochs": 7}), "train"))


def test_an_override_changes_its_cell_alone() -> None:
    training = {"branch_epochs": 2, "overrides": [{"variant": "paralif", "branch_epochs": 9}]}
    runs = plan(seeds=[0], training=training)
    assert spec_of(runs, "branch", variant="paralif")["epochs"] == 9
    assert spec_of(runs, "branch", variant="lif")["epochs"] == 2
    assert kinds(runs)["train"] == 1


def test_the_last_override_that_fits_wins() -> None:
    overrides = [{"epochs": 2}, {"architecture": "resnet20", "epochs": 4}, {"architecture": "resnet18", "epochs": 8}]
    spec = ExperimentSpec.model_validate({"dataset": "digits", "training": {"epochs": 1, "overrides": overrides}})
    assert resolve_training(spec.training, "resnet20", "lif").epochs == 4
    assert resolve_training(spec.training, "resnet18", "lif").epochs == 8


def test_pretrained_weights_bring_the_studys_settings() -> None:
    cell = resolve_training(
        ExperimentSpec.model_validate({"dataset": "cifar10", "training": {"weights": "imagenet"}}).training,
        "resnet18", "default",
    )  # fmt: skip
    assert (cell.image_size, cell.stem, cell.freeze_depth, cell.recipe.name) == (224, "imagenet", 3, "study")


@pytest.mark.parametrize(
    ("architecture", "image_size", "recipe", "resize"),
    [("resnet18", None, "study", 256), ("resnet50", None, "study", 232), ("resnet18", 64, "study", 73),
     ("resnet18", None, "default", None)],
)  # fmt: skip
def test_the_studys_recipe_crops_the_middle_as_torchvision_does_for_its_weights(
    architecture: str, image_size: int | None, recipe: str, resize: int | None
) -> None:
    training = {"weights": "imagenet", "recipe": recipe, "image_size": image_size}
    runs = plan("cifar10", seeds=[0], architectures=[architecture], training=training)
    assert spec_of(runs, "train")["model"].get("resize") == resize


def test_a_stem_that_the_architecture_has_not_makes_no_other_run() -> None:
    runs = {stem: plan("cifar10", seeds=[0], training={"stem": stem}) for stem in ("imagenet", "cifar")}
    assert {run.key for run in runs["imagenet"]} == {run.key for run in runs["cifar"]}


def test_from_scratch_nothing_is_cropped() -> None:
    assert "resize" not in spec_of(plan("cifar10", seeds=[0], training={"recipe": "study"}), "train")["model"]


def test_a_learning_rate_asked_for_is_that_of_the_head_too() -> None:
    spec = spec_of(plan(seeds=[0], training={"learning_rate": 0.5}, variants=["lif"]), "branch")
    assert (spec["training"]["learning_rate"], spec["training"]["decoder_learning_rate"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("architecture", "variant", "rate", "draws"),
    [("resnet20", "lif", 0.1, 1), ("resnet20", "paralif", 0.1, 8), ("resnet18", "lif", 0.1, 1),
     ("resnet18", "paralif", 0.02, 8), ("resnet50", "paralif", 0.02, 8)],
)  # fmt: skip
def test_a_noisy_head_is_trained_on_more_draws_and_a_wide_one_more_slowly(
    architecture: str, variant: str, rate: float, draws: int
) -> None:
    training = spec_of(plan(seeds=[0], architectures=[architecture], variants=[variant]), "branch")["training"]
    assert (training["learning_rate"], training["decoder_learning_rate"], training["draws"]) == (0.02, rate, draws)


@pytest.mark.parametrize(
    ("name", "norm", "eps"),
    [("digits", "linf", "8/255 32/255 64/255"), ("cifar10", "linf", "1/510 2/255 8/255"),
     ("fashion-mnist", "linf", "8/255 16/255 26/255"), ("cifar10", "l2", "1/2")],
)  # fmt: skip
def test_without_radii_the_data_sets_own_are_taken(name: str, norm: str, eps: str) -> None:
    evaluation = EvaluationSpec.model_validate({"norm": norm, "attacks": [{"name": "pgd"}]})
    assert make_protocol(evaluation, dataset(name)).eps == tuple(Fraction(e) for e in eps.split())


def test_the_studys_suite_brings_its_own_radii_unless_some_are_asked_for() -> None:
    own = make_protocol(EvaluationSpec(suite="study"), dataset())
    assert len(own.eps) > 20
    assert Fraction("0.225") in own.eps
    assert len(own.stages_at(Fraction("0.1125"))) == 2  # FGSM and Square at .5; DeepFool's grid ends at .1024
    asked = make_protocol(EvaluationSpec(suite="study", eps=["8/255"]), dataset())
    assert asked.eps == (Fraction(8, 255),)
    assert len(asked.stages_at(Fraction(8, 255))) == 3


def test_radii_are_sorted_and_each_way_to_write_one_is_the_same_run() -> None:
    one = plan(evaluation={"eps": ["8/255", 2 / 255]})
    other = plan(evaluation={"eps": ["2/255", 8 / 255]})
    assert {r.key for r in one} == {r.key for r in other}


def test_no_more_images_are_attacked_than_the_test_split_has() -> None:
    assert make_protocol(EvaluationSpec(images=1000), dataset()).images == 359
    assert make_protocol(EvaluationSpec(images=100), dataset()).images == 100


def test_changed_images_make_new_runs() -> None:
    spec = ExperimentSpec(dataset="digits")
    changed = expand(spec, replace(dataset(), fingerprint="digits-2"))
    assert {r.key for r in changed}.isdisjoint({r.key for r in plan()})


def test_existing_checkpoints_are_evaluated_and_nothing_is_trained() -> None:
    trained = [r for r in plan(seeds=[0]) if r.kind != "evaluate"]
    spec = ExperimentSpec.model_validate({"dataset": "digits", "checkpoints": ["a", "b", "c"]})
    runs = expand(spec, dataset(), trained)
    assert kinds(runs) == {"evaluate": 3}
    assert {r.key for r in runs} == {r.key for r in plan(seeds=[0]) if r.kind == "evaluate"}


def test_settings_name_what_is_not_as_usual_and_nothing_else():
    def texts(**given):
        runs = plan(seeds=[0], architectures=["resnet18"], variants=["default", "paralif"], **given)
        return settings_text(spec_of(runs, "train")), settings_text(spec_of(runs, "branch"))

    assert texts() == ("weights none", "weights none")
    assert texts(decoder={"gain": 1.0, "beta": 0.5}) == ("weights none", "gain 1, weights none")
    assert texts(decoder={"spike_mode": "D", "learn_time_constants": True}) == (
        "weights none", "spike_mode D, learn_time_constants True, weights none"
    )
    assert texts(training={"learning_rate": 0.5, "batch_size": 32}) == ("lr 0.5, batch 32, weights none",) * 2
    assert texts(training={"stem": "cifar"}) == ("weights none",) * 2
    assert texts(training={"stem": "imagenet", "image_size": 64}) == ("weights none, size 64, stem imagenet",) * 2
    pretrained = {"weights": "imagenet", "stem": "imagenet", "image_size": 64, "freeze_depth": 3}
    assert texts(training=pretrained) == ("frozen 3, weights imagenet, size 64",) * 2


SHA = "1a2b3c4d" + "0" * 56


def source(**given: Any) -> WeightsSource:
    """A ResNet-18 checkpoint for grey images, without a resize."""
    usual = {"id": "ckpt_1", "sha256": SHA, "architecture": "resnet18", "stem": "cifar", "image_size": None,
             "channels": 1}  # fmt: skip
    return WeightsSource(checkpoint=SourceCheckpoint(**{**usual, **given}))


def plan_from(where: WeightsSource, weights: str = "ckpt_1", **training: Any) -> list[PlannedRun]:
    body = {"dataset": "digits", "seeds": [0], "architectures": ["resnet18"],
            "training": {"weights": weights, **training}}  # fmt: skip
    return expand(ExperimentSpec.model_validate(body), dataset(), source=where)


def test_a_start_from_a_checkpoint_is_known_by_its_content_and_takes_over_its_input() -> None:
    spec = spec_of(plan_from(source(stem="imagenet", image_size=64)), "train")
    assert spec["model"] == {"weights": f"sha256:{SHA}", "stem": "imagenet", "image_size": 64}
    assert (spec["training"]["recipe"], spec["training"]["freeze_depth"]) == ("study", 3)
    assert spec_of(plan_from(source(image_size=64), image_size=32), "train")["model"]["image_size"] == 32
    assert spec_of(plan_from(source(image_size=64, resize=73)), "train")["model"]["resize"] == 73
    assert plan_from(source(image_size=64, resize=73), image_size=64) == plan_from(source(image_size=64, resize=73))
    assert "resize" not in spec_of(plan_from(source(image_size=64, resize=73), image_size=32), "train")["model"]
    keys = [{r.key for r in plan_from(source(**given))} for given in ({}, {"id": "ckpt_2"}, {"sha256": "0" * 64})]
    assert keys[0] == keys[1], "the same file under another id"
    assert keys[0].isdisjoint(keys[2])


def test_a_local_file_that_is_not_torchvisions_is_another_run_and_without_one_nothing_changes() -> None:
    body = {"dataset": "digits", "seeds": [0], "architectures": ["resnet18", "resnet50"],
            "training": {"weights": "imagenet"}}  # fmt: skip
    spec = ExperimentSpec.model_validate(body)
    usual = expand(spec, dataset())
    own = expand(spec, dataset(), source=WeightsSource(files={"resnet18": SHA}))
    assert spec_of(usual, "train", architecture="resnet18")["model"] == {
        "weights": "imagenet", "stem": "imagenet", "image_size": 224, "resize": 256
    }
    assert spec_of(own, "train", architecture="resnet18")["model"]["weights_sha256"] == SHA
    shared = {r.key for r in own} & {r.key for r in usual}
    assert shared == {r.key for r in usual if "resnet50" in str(r.spec)}


@pytest.mark.parametrize(
    ("model", "text"),
    [({"weights": f"sha256:{SHA}"}, "weights ckpt 1a2b3c4d"), ({"weights": "imagenet"}, "weights imagenet"),
     ({"weights": "imagenet", "weights_sha256": SHA}, "weights imagenet, file 1a2b3c4d"), ({"weights": "none"}, "")],
)  # fmt: skip
def test_rows_say_which_weights(model: dict[str, Any], text: str) -> None:
    spec = spec_of(plan(seeds=[0]), "train")
    stem = "imagenet" if model["weights"] == "imagenet" else "cifar"
    assert settings_text({**spec, "model": {**model, "stem": stem, "image_size": None}}) == text


def test_a_repeated_run_named_by_its_checkpoint_is_not_taken_for_the_first_one() -> None:
    [first] = [r for r in plan(seeds=[0], variants=["default"]) if r.kind == "train"]
    spec = ExperimentSpec.model_validate({"dataset": "digits", "checkpoints": ["a", "b"]})
    repeated = replace(first, stored_as=f"{first.key}:exp_1")
    one, other = expand(spec, dataset(), [replace(first, stored_as=first.key), repeated])
    assert one.key == next(r.key for r in plan(seeds=[0], variants=["default"]) if r.kind == "evaluate")
    assert other.depends_on == f"{first.key}:exp_1"
    assert other.key != one.key
    assert other.spec["subject"] == one.spec["subject"], "of one row"


def test_training_on_some_of_the_images_is_another_row_that_says_so_and_on_all_of_them_is_not() -> None:
    whole, part = (plan(seeds=[0], training=training) for training in ({}, {"images": 500}))
    assert {r.key for r in whole}.isdisjoint(r.key for r in part)
    assert settings_text(spec_of(part, "train")) == settings_text(spec_of(part, "branch", variant="lif"))
    assert settings_text(spec_of(part, "train")) == "training images 500"
    assert [r.key for r in plan(seeds=[0], training={"images": 1438})] == [r.key for r in whole]


def test_adversarial_training_is_in_the_headline_radius_in_both_phases_and_rows_say_which() -> None:
    recipe = {"recipe": "adversarial"}
    usual = plan(seeds=[0], training=recipe)
    narrow = plan(seeds=[0], training={**recipe, "adversarial_eps": "8/255"})
    for kind, variant in (("train", "default"), ("branch", "lif"), ("branch", "paralif")):
        spec = spec_of(usual, kind, variant=variant)
        assert spec["training"]["adversary"] == {"norm": "linf", "epsilon": "32/255", "steps": 7, "step_size": 0.25}
        assert settings_text(spec) == "trained against eps 32/255"
    assert settings_text(spec_of(narrow, "branch", variant="lif")) == "trained against eps 8/255"
    assert {r.key for r in usual}.isdisjoint(r.key for r in narrow)
    assert all("adversary" not in r.spec["training"] for r in plan() if r.kind != "evaluate")


def test_only_recipes_that_see_no_adversarial_images_are_held_to_the_anchor() -> None:
    assert {"default", "study"} == UNDEFENDED
