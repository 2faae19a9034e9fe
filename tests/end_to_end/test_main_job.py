"""POST /experiments to a leaderboard and predictions, on real scans of digits."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update

from app.storage.tables import Checkpoint, Figure
from tests.end_to_end.conftest import EMBEDDED, PATIENCE, QUICK_TRAINING, Service, finished, run_of
from tests.end_to_end.test_command_line import spikeproof
from worker.data.digits import read_digits

SPEC = {"dataset": "digits", "seeds": [0], "training": QUICK_TRAINING, "evaluation": {"images": 20}}


@pytest.fixture
def digit() -> tuple[bytes, int]:
    images, labels = read_digits()["test"]
    content = io.BytesIO()
    Image.fromarray(images[0, ..., 0]).save(content, "PNG")
    return content.getvalue(), int(labels[0])


def test_an_experiment_runs_from_submission_to_leaderboard_and_prediction(service: Service, digit) -> None:
    client = service.client()
    experiment = finished(client, SPEC)
    board = client.leaderboard("digits")
    assert {row["variant"] for row in board["rows"]} == {"default", "lif", "paralif"}
    for row in board["rows"]:
        radii = [point["robust_accuracy"]["mean"] for point in row["curve"]]
        assert len(radii) == 3
        assert radii == sorted(radii, reverse=True)
        assert radii[-1] < row["clean_accuracy"]["mean"]
    assert {row["epochs"] for row in board["rows"]} == {"<3>", "<3,2>"}
    _check_spikes(client, experiment)
    _check_reuse(client, experiment)
    _check_prediction(service, run_of(experiment, "branch", "lif")["checkpoint"], digit)
    _check_evaluation_files(service, run_of(experiment, "evaluate", "paralif")["id"])
    _check_verification(service, client, run_of(experiment, "evaluate"))


def _check_spikes(client, experiment) -> None:
    for variant in ("lif", "paralif"):
        metrics = client.run(run_of(experiment, "branch", variant)["id"])["metrics"]
        assert 0 < metrics["spike_rates"]["neurons"] < 1
        assert len(metrics["epochs"]) == 2


def _check_reuse(client, experiment) -> None:
    again = client.submit(SPEC)
    assert again["state"] == "succeeded"
    assert all(run["reused"] for run in again["runs"])
    assert [run["id"] for run in again["runs"]] == [run["id"] for run in experiment["runs"]]


def _check_prediction(service, checkpoint, digit) -> None:
    content, label = digit
    url = f"{service.url}/checkpoints/{checkpoint}/predict?draws=30&seed=5&top=10"
    answers = [httpx.post(url, files={"images": ("digit.png", content)}, timeout=PATIENCE).json() for _ in range(2)]
    assert answers[0] == answers[1]
    top = answers[0]["predictions"][0]["top"]
    assert sum(entry["probability"] for entry in top) == pytest.approx(1.0, abs=1e-5)
    assert all(entry["sd"] is not None for entry in top)
    assert label in [entry["index"] for entry in top]


def _check_evaluation_files(service, run_id) -> None:
    stored = np.load(io.BytesIO(httpx.get(f"{service.url}/runs/{run_id}/adversarial.npz", timeout=PATIENCE).content))
    original = read_digits()["test"][0][stored["ids"]].transpose(0, 3, 1, 2) / np.float32(255)
    assert stored["index"].shape == (3, 20)
    for eps, index in zip((8, 32, 64), stored["index"], strict=True):
        changed = index >= 0
        assert np.abs(stored["images"][index[changed]] - original[changed]).max() <= eps / 255 + 1e-6
    assert (stored["index"][2] >= 0).mean() > 0.9, "at the largest radius nearly every image is harmed"
    rows = httpx.get(f"{service.url}/runs/{run_id}/images", params={"limit": 10_000}, timeout=PATIENCE).json()["items"]
    assert {row["attack"] for row in rows} == {"fgsm", "pgd", "square"}
    assert {row["image_id"] for row in rows} == set(stored["ids"].tolist())
    _check_verdicts(service, run_id, stored)


def _check_verdicts(service, run_id, stored) -> None:
    run = httpx.get(f"{service.url}/runs/{run_id}", timeout=PATIENCE).json()
    for eps, index, figure in zip((8, 32, 64), stored["index"], run["metrics"]["robust"], strict=True):
        asked = {"limit": 10_000, "eps": f"{eps}/255"}
        rows = httpx.get(f"{service.url}/runs/{run_id}/verdicts", params=asked, timeout=PATIENCE).json()["items"]
        found = {row["image_id"]: row for row in rows}
        assert len(rows) == len(found) == 20
        assert [found[i]["attack"] is not None for i in stored["ids"].tolist()] == (index >= 0).tolist()
        assert np.mean([row["correct_share"] for row in rows]) == pytest.approx(figure["robust_accuracy"])
        assert 0 < figure["mean_ssim"] < 1
        gallery = httpx.get(f"{service.url}/runs/{run_id}/gallery.png?eps={eps}/255", timeout=PATIENCE)
        assert Image.open(io.BytesIO(gallery.content)).format == "PNG"


def _check_verification(service, client, evaluation) -> None:
    """The figures come out again to the last bit; one that is changed is named; weights that are changed fail it."""
    checkpoint = evaluation["checkpoint"]
    first = client.wait_for_run(client.verify(checkpoint)["id"])
    assert first["state"] == "succeeded", first["error"]
    assert first["metrics"]["text"] == "Agrees: all 4 figures, bit for bit."
    with service.database() as database, database.writing() as session:
        session.execute(update(Figure).where(Figure.run_id == evaluation["id"], Figure.eps == "8/255")
                        .values(robust_accuracy=0.999))  # fmt: skip
        weights = service.data_dir / session.get_one(Checkpoint, checkpoint).path
    said = spikeproof("verify", checkpoint, "--wait", url=service.url)
    assert said.returncode == 1, said.stderr
    assert f"1 of 4 figures. robust accuracy at 8/255 of run {evaluation['id']}" in said.stdout
    shown = client._json("GET", f"/checkpoints/{checkpoint}")["verified"]
    assert (shown["agrees"], shown["run"]) == (False, said.stdout.split()[0])
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    failed = client.wait_for_run(client.verify(checkpoint)["id"])
    assert (failed["state"], failed["attempt"]) == ("failed", 1)
    assert "its sha256 differs" in failed["error"]


@EMBEDDED
def test_an_image_of_another_size_fails_the_run_with_its_name(service: Service) -> None:
    folder = service.data_dir / "datasets" / "mine"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(4):
                side = 9 if (split, name, i) == ("test", "b", 3) else 8
                Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(place / f"{i}.png")
    client = service.client()
    experiment = client.wait(client.submit({"dataset": "mine", "seeds": [0], "training": QUICK_TRAINING})["id"])
    assert experiment["state"] == "failed"
    assert "test/b/3.png is 9x9" in run_of(experiment, "train")["error"]
    assert "the run it depends on failed" in run_of(experiment, "evaluate", "lif")["error"]
    assert all(run["attempt"] <= 1 for run in experiment["runs"]), "a hopeless job is not tried again"
