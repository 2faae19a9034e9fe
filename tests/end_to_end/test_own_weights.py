"""Weights that come and go: between two services, from a file, from a state dict."""

from typing import Any

import pytest
import torch
from torchvision import models

from tests.end_to_end.conftest import EMBEDDED, QUICK_EVALUATION, Service, finished, run_of
from tests.end_to_end.test_command_line import spikeproof

SHORT = {"attacks": [{"name": "fgsm"}, {"name": "transfer", "parameters": {"steps": 3}}], "images": 20,
         "eps": ["32/255"]}  # fmt: skip


@pytest.fixture
def two_services(make_service, tmp_path) -> tuple[Service, Service]:
    """On two data folders."""
    first = make_service()
    (tmp_path / "second").mkdir()
    second = Service(tmp_path / "second")
    return first, second


def clean(client, experiment: dict[str, Any], variant: str) -> float:
    accuracy: float = client.run(run_of(experiment, "evaluate", variant)["id"])["metrics"]["clean"]["accuracy"]
    return accuracy


def pool(client, experiment: dict[str, Any], variant: str) -> list[tuple[str, str]]:
    """On which networks transfer attacks were made."""
    siblings = client.run(run_of(experiment, "evaluate", variant)["id"])["metrics"]["pool"]
    return [(sibling["role"], sibling["checkpoint"]) for sibling in siblings]


@EMBEDDED
def test_what_one_service_trained_another_measures_alike_and_trains_on(two_services, tmp_path) -> None:
    first, second = two_services
    training = {"epochs": 1, "branch_epochs": 1}
    spec = {"dataset": "digits", "seeds": [0], "variants": ["default", "lif"], "training": training,
            "evaluation": SHORT}  # fmt: skip
    here = finished(first.client(), spec)
    ids = {}
    second.start()
    try:
        client = second.client()
        for kind, variant in (("train", "default"), ("branch", "lif")):
            file = tmp_path / f"{variant}.safetensors"
            first.client().download(run_of(here, kind, variant)["checkpoint"], file)
            ids[variant] = client.upload(file)["id"]
        there = finished(client, {"dataset": "digits", "checkpoints": list(ids.values()), "evaluation": SHORT})
        assert pool(first.client(), here, "lif") == [("default sibling", run_of(here, "train")["checkpoint"])]
        assert pool(client, there, "lif") == [], "of imported networks nobody knows how they are related"
        for variant in ids:
            assert clean(client, there, variant) == clean(first.client(), here, variant)
        rows = client.leaderboard("digits")["rows"]
        assert {(row["recipe"], row["epochs"]) for row in rows} == {("imported", "<1>"), ("imported", "<1,1>")}
        onward = {**spec, "variants": ["default"], "evaluation": QUICK_EVALUATION,
                  "training": {**training, "weights": ids["lif"], "freeze_depth": 1}}  # fmt: skip
        trained = run_of(finished(client, onward), "train")
        start = client.run(trained["id"])["spec"]["model"]["weights"].removeprefix("sha256:")
        assert f"weights ckpt {start[:8]}" in trained["settings"]
        _check_frozen(second, client, ids["lif"], trained["checkpoint"])
    finally:
        second.stop()


def _check_frozen(service: Service, client, source: str, trained: str) -> None:
    """What was frozen is bit for bit the checkpoint's; the rest was trained, the decoder not taken over."""
    from models.checkpoint import load

    paths = []
    for name in (source, trained):
        paths.append(service.data_dir / f"{name}.safetensors")
        client.download(name, paths[-1])
    before, after = (load(path)[0] for path in paths)
    for name, value in after.encoder.state_dict().items():
        if name.startswith(("stem.", "layer1.")):
            assert torch.equal(value, before.encoder.state_dict()[name]), name
    assert not torch.equal(after.encoder.layer3[0].conv1.weight, before.encoder.layer3[0].conv1.weight)
    assert (after.spec.variant, after.spec.mean) == ("default", before.spec.mean)


@EMBEDDED
def test_a_state_dict_is_imported_without_a_service_and_evaluated_by_one(service: Service, tmp_path) -> None:
    torch.manual_seed(0)
    network = models.resnet18(weights=None, num_classes=10)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "net.pth")
    said = ["--architecture", "resnet18", "--dataset", "digits", "--image-size", "32", "--name", "mine"]
    imported = spikeproof("import", str(tmp_path / "net.pth"), *said, data_dir=str(service.data_dir),
                          settings=service.settings)  # fmt: skip
    assert imported.returncode == 0, imported.stderr
    [row] = service.client().checkpoints()
    assert row["id"] == imported.stdout.strip()
    experiment = finished(service.client(), {"dataset": "digits", "checkpoints": [row["id"]], "evaluation": SHORT})
    assert [r["settings"] for r in experiment["runs"]] == ["mine, size 32"]
    converted = spikeproof("import", str(tmp_path / "net.pth"), *said, "--output", str(tmp_path / "net.safetensors"),
                           data_dir=str(tmp_path / "nowhere"))  # fmt: skip
    assert converted.returncode == 0, converted.stderr
    assert not (tmp_path / "nowhere").exists()
    assert service.client().upload(tmp_path / "net.safetensors")["sha256"] == row["sha256"]


class Harmful:
    def __reduce__(self):
        return print, ("harm",)


def test_a_file_that_cannot_be_imported_is_refused_in_one_line(tmp_path) -> None:
    torch.save({"w": Harmful()}, tmp_path / "code.pth")
    torch.save(models.resnet18(weights=None, num_classes=7).state_dict(), tmp_path / "seven.pth")
    (tmp_path / "text.pth").write_text("text")
    said = ["--architecture", "resnet18", "--dataset", "digits"]
    cases = [
        (["none.pth", *said], "there is no file"), (["code.pth", *said], "could run code"),
        (["text.pth", *said], "neither safetensors nor a PyTorch file"), (["seven.pth", *said], "7 classes, not 10"),
        (["seven.pth"], "--dataset: is required"), (["seven.pth", *said, "--mean", "x"], "--mean: "),
        (["seven.pth", *said, "--image-size", "5"], "--image-size: "),
    ]  # fmt: skip
    for words, told in cases:
        answer = spikeproof("import", *words, data_dir=str(tmp_path / "data"), cwd=tmp_path)
        assert answer.returncode == 1
        assert answer.stderr.startswith("spikeproof: "), answer.stderr
        assert told in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
        assert "harm" not in answer.stdout
    assert not (tmp_path / "data").exists()


@EMBEDDED
def test_a_local_file_that_changes_before_the_training_fails_it_and_an_unchanged_one_is_used(service: Service) -> None:
    place = service.data_dir / "weights" / "resnet18.pth"
    place.parent.mkdir()
    torch.manual_seed(1)
    state = models.resnet18(weights=None).state_dict()
    torch.save(state, place)
    body = {"dataset": "digits", "architectures": ["resnet18"], "variants": ["default"], "evaluation": QUICK_EVALUATION,
            "training": {"weights": "imagenet", "image_size": 32, "freeze_depth": 4, "epochs": 1}}  # fmt: skip
    client = service.client()
    trained = run_of(finished(client, {**body, "seeds": [0]}), "train")
    assert "weights imagenet, file " in trained["settings"]
    client.download(trained["checkpoint"], service.data_dir / "trained.safetensors")
    from models.checkpoint import load

    model, _ = load(service.data_dir / "trained.safetensors")
    assert torch.equal(model.encoder.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    waiting = client.submit({**body, "seeds": [1]})
    place.write_bytes(b"something else")  # long before the job's process has started
    ended = client.wait(waiting["id"])
    assert run_of(ended, "train")["error"] == (
        "DATA_DIR/weights/resnet18.pth has changed since the experiment was submitted; submit it again"
    )
    garbage = client.wait(client.submit({**body, "seeds": [3]})["id"])
    error = run_of(garbage, "train")["error"]
    assert "DATA_DIR/weights/resnet18.pth is not a torchvision weights file" in error
    assert str(service.data_dir) not in error
