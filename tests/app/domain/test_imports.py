from typing import Any

import pytest

from app.domain.errors import InvalidInput
from app.domain.imports import completed, contradictions, described, import_run, last_epoch, read_declared
from app.domain.spec import DecoderSpec
from app.domain.subject import epochs_text, group_of, subject_of

MODEL: dict[str, Any] = {
    "architecture": "resnet20", "variant": "paralif", "classes": 10, "image_shape": [1, 8, 8], "mean": [0.3],
    "std": [0.4], "image_size": None, "stem": "cifar",
    "decoder": {**DecoderSpec(gain=1.0).model_dump(), "time_step": 0.001},
}  # fmt: skip


def run(**given: Any):
    said = {"seed": None, "branch_seed": None, "epochs": None, "name": None, **given}
    return import_run("digits", MODEL, said.pop("file_sha256", "ab" * 32), **said)


def test_text_from_a_form_becomes_numbers_lists_and_settings() -> None:
    declared = read_declared({
        "dataset": "digits", "image_size": "32", "mean": "0.5, 0.25,1", "std": "[1, 2, 3]", "seed": "7",
        "epochs": "<5,5>", "decoder": '{"timesteps": 5}',
    })  # fmt: skip
    assert (declared.image_size, declared.seed, declared.epochs) == (32, 7, "<5,5>")
    assert (declared.mean, declared.std) == ([0.5, 0.25, 1.0], [1.0, 2.0, 3.0])
    assert declared.decoder is not None
    assert declared.decoder.timesteps == 5


@pytest.mark.parametrize(
    ("fields", "pointer", "told"),
    [
        ({"architecture": "resnet34"}, "/architecture", "'resnet20', 'resnet18' or 'resnet50'"),
        ({"image_size": "wide"}, "/image_size", "integer"), ({"image_size": "7"}, "/image_size", "8"),
        ({"mean": "a,b"}, "/mean", "number"), ({"mean": "[1"}, "/mean", "JSON"), ({"mean": "nan"}, "/mean", "finite"),
        ({"mean": "1,2,3,4"}, "/mean", "at most 3"), ({"seed": "-1"}, "/seed", "0"),
        ({"seed": "1.5"}, "/seed", "integer"),
        ({"epochs": "5"}, "/epochs", "like '<200>'"), ({"epochs": "<5>\n"}, "/epochs", "like '<200>'"),
        ({"mean": "1e9,0,0"}, "/mean", "less than"), ({"std": "-1e9"}, "/std", "greater than"),
        ({"name": ""}, "/name", "at least 1"), ({"name": "x" * 101}, "/name", "at most 100"),
        ({"decoder": "{"}, "/decoder", "JSON"), ({"decoder": '{"betta": 1}'}, "/decoder/betta", "did you mean 'beta'"),
        ({"decoder": '{"gain": "no"}'}, "/decoder/gain", "'learned' or"),
        ({"achitecture": "x"}, "/achitecture", "'arch"),
        ({"a/b": "x"}, "/a~1b", "unknown field"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_is_named_with_what_is_allowed(fields, pointer, told) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_declared(fields)
    [problem] = refused.value.problems
    assert problem.pointer == pointer
    assert told in problem.detail


def test_the_row_of_an_import_shows_its_name_and_what_is_not_as_usual() -> None:
    subject = subject_of(run(name="mine", epochs="<5,5>", seed=3, branch_seed=1).spec)
    assert subject == {
        "dataset": "digits", "architecture": "resnet20", "variant": "paralif", "recipe": "imported",
        "precision": "float32", "seed": 3, "branch_seed": 1, "epochs": "<5,5>", "settings": "mine, gain 1",
        "group": subject["group"],
    }  # fmt: skip


def test_seeds_of_one_name_are_one_row_and_other_names_are_others() -> None:
    group = group_of(run(name="mine").spec)
    assert group_of(run(name="mine", seed=1, file_sha256="cd" * 32).spec) == group
    assert group_of(run(name="other").spec) != group
    assert group_of(run(name="mine", epochs="<9>").spec) != group


def test_without_a_name_a_file_is_a_row_of_its_own() -> None:
    one, other = run(), run(file_sha256="cd" * 32)
    assert (one.spec["name"], other.spec["name"]) == ("abababab", "cdcdcdcd")
    assert group_of(one.spec) != group_of(other.spec)


def test_identity_rests_on_the_content_and_on_what_is_said() -> None:
    keys = {run().key, run(seed=1).key, run(name="mine").key, run(epochs="<1>").key, run(file_sha256="cd" * 32).key}
    assert len(keys) == 5
    assert run().key == run().key


def test_epochs_are_shown_as_declared_and_counted_to_the_last() -> None:
    assert [last_epoch(text) for text in ("<200>", "<5,7>", "<?>")] == [200, 7, 0]
    assert epochs_text(run().spec) == "<?>"


RUN = {"dataset": {"name": "digits"}, "seed": 2, "branch_seed": 1, "training": {"recipe": "study"}}


def test_what_a_file_of_ours_says_needs_not_be_said_again() -> None:
    own = described(MODEL, {"run": RUN, "epochs": "<5,5>", "classes": ["a"]})
    said = completed(read_declared({}), own)
    assert (said.dataset, said.seed, said.epochs, own.branch_seed) == ("digits", 2, "<5,5>", 1)
    assert said.name is not None
    assert said.name.startswith("study recipe ")
    other_seed = described(MODEL, {"run": {**RUN, "seed": 3}})
    assert other_seed.name == own.name, "seeds of one training are one row"
    assert contradictions(said, own) == []


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [("dataset", "digits", "cifar10"), ("architecture", "resnet20", "resnet18"), ("variant", "paralif", "lif"),
     ("stem", "cifar", "imagenet"), ("mean", "0.3000001", "0.31"), ("std", "0.4", "0.4,0.4,0.4"), ("seed", "2", "3"),
     ("epochs", "<5,5>", "<5>"), ("image_size", "", "16"), ("decoder", '{"gain": 1.0}', '{"gain": "learned"}')],
)  # fmt: skip
def test_what_is_said_beside_a_file_of_ours_may_repeat_it_and_not_contradict_it(field, value, wrong) -> None:
    own = described(MODEL, {"run": RUN, "epochs": "<5,5>"})
    if value:
        assert contradictions(read_declared({field: value}), own) == []
    [problem] = contradictions(read_declared({field: wrong}), own)
    assert problem.pointer.startswith(f"/{field}")
    assert "the file itself says" in problem.detail


def test_a_name_that_nobody_gave_may_be_replaced_and_one_that_someone_gave_may_not() -> None:
    mine = read_declared({"name": "mine"})
    for made_up in (RUN, run().spec):
        assert contradictions(mine, described(MODEL, {"run": made_up})) == []
    [problem] = contradictions(mine, described(MODEL, {"run": run(name="other").spec}))
    assert problem.pointer == "/name"


@pytest.mark.parametrize(
    "metadata",
    [{}, {"run": None}, {"run": []}, {"run": {"dataset": 5, "seed": "x", "name": "\x00"}}, {"epochs": {}},
     {"run": {"seed": 10**400, "training": {"recipe": "\ud800"}}}, {"run": {"training": []}}, {"classes": 5},
     {"run": {"seed": True, "branch_seed": -1, "training": {"recipe": float("nan")}}}],
)  # fmt: skip
def test_nonsense_in_a_file_counts_as_not_said(metadata) -> None:
    own = described(MODEL, metadata)
    assert (own.dataset, own.seed, own.branch_seed, own.epochs, own.name, own.classes) == (None,) * 6
