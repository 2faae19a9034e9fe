import pytest

from app.commands.experiment_file import read_experiment
from app.domain.errors import SpikeproofError


def test_yaml_numbers_are_what_people_mean(tmp_path) -> None:
    (tmp_path / "a").write_text("training: {learning_rate: 1e-3, epochs: 5}\nevaluation: {eps: [8/255, 2.5e-2]}\n")
    spec = read_experiment(tmp_path / "a")
    assert spec == {"training": {"learning_rate": 0.001, "epochs": 5}, "evaluation": {"eps": ["8/255", 0.025]}}


@pytest.mark.parametrize(
    "content", [b"name: 2024-01-01", b"eps: [.nan]", b"\xff\xfe\x00", b"a: [", b"!!python/object:x {}"]
)
def test_what_cannot_be_sent_is_refused_with_the_file_named(tmp_path, content: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(SpikeproofError, match=r"bad\.yaml"):
        read_experiment(tmp_path / "bad.yaml")


@pytest.mark.parametrize("content", ["seeds: [0]\nseeds: [1]", '{"training": {"epochs": 5, "epochs": 6}}'])
def test_a_field_that_is_there_twice_is_refused_with_its_name_and_line(tmp_path, content: str) -> None:
    (tmp_path / "twice.yaml").write_text(content)
    with pytest.raises(SpikeproofError, match=r"(?s)twice\.yaml.*'(seeds|epochs)' is there twice.*line"):
        read_experiment(tmp_path / "twice.yaml")


def test_fields_that_are_merged_may_be_said_again(tmp_path) -> None:
    (tmp_path / "a").write_text("usual: &usual {epochs: 5, recipe: default}\ntraining: {<<: *usual, epochs: 6}")
    assert read_experiment(tmp_path / "a")["training"] == {"epochs": 6, "recipe": "default"}
