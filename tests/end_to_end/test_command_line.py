"""The commands, typed as a user types them."""

import os
import subprocess
import sys

import numpy as np
import yaml
from PIL import Image

from tests.end_to_end.conftest import EMBEDDED, QUICK_EVALUATION, QUICK_TRAINING, Service

SPEC = {"dataset": "digits", "name": "by hand", "seeds": [0], "variants": ["paralif"], "training": QUICK_TRAINING,
        "evaluation": QUICK_EVALUATION}


def spikeproof(*words: str, url: str = "http://127.0.0.1:1", data_dir: str = ".", settings=None, **options):
    environment = {**os.environ, "SPIKEPROOF_URL": url, "SPIKEPROOF_DATA_DIR": data_dir, "COLUMNS": "200",
                   **(settings or {})}
    command = [sys.executable, "-m", "app.cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False, **options)


@EMBEDDED
def test_submit_wait_leaderboard_predict_experiments_cancel(service: Service, tmp_path) -> None:
    def ask(*words: str):
        return spikeproof(*words, url=service.url)

    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    submitted = ask("submit", str(tmp_path / "spec.yaml"), "--wait")
    assert submitted.returncode == 0, submitted.stderr + submitted.stdout
    assert "[3/3] evaluate resnet20 ParaLIF, seed 0: succeeded" in submitted.stdout
    experiment_id = submitted.stdout.splitlines()[0]
    board = ask("leaderboard", "--dataset", "digits")
    assert "ParaLIF" in board.stdout
    assert "<3,2>" in board.stdout
    assert ask("leaderboard", "--dataset", "digits", "--format", "csv").stdout.startswith("dataset,rank,architecture")
    assert "by hand" in ask("experiments").stdout
    assert "has already succeeded" in ask("cancel", experiment_id).stderr
    checkpoint = service.client().checkpoints(variant="paralif")[0]["id"]
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    predicted = ask("predict", checkpoint, str(tmp_path / "black.png"))
    assert predicted.stdout.count("±") == 3, predicted.stderr


@EMBEDDED
def test_a_bad_file_is_refused_in_one_line(service: Service, tmp_path) -> None:
    bad = {"dataset: digit": "did you mean 'digits'", "dataset: [": "cannot read", "- 1": "JSON object", "": "body"}
    for body, said in bad.items():
        (tmp_path / "spec.yaml").write_text(body)
        answer = spikeproof("submit", str(tmp_path / "spec.yaml"), url=service.url)
        assert answer.returncode == 1
        assert answer.stderr.startswith("spikeproof: ")
        assert said in answer.stderr
        assert "Traceback" not in answer.stderr


@EMBEDDED
def test_a_preset_is_submitted_by_its_name_and_not_beside_a_file(service: Service) -> None:
    submitted = spikeproof("submit", "--preset", "quickstart", "--small", url=service.url)
    assert submitted.returncode == 0, submitted.stderr
    experiment = service.client().experiment(submitted.stdout.strip())
    assert experiment["name"] == "quick start (small)"
    service.client().cancel(experiment["id"])
    for words, told in (
        (["--preset", "quikstart"], "did you mean 'quickstart'"), ([], "`spikeproof presets` lists them"),
        (["x.yaml", "--preset", "quickstart"], "either a file or"), (["x.yaml", "--small"], "are forms of a preset"),
    ):
        refused = spikeproof("submit", *words, url=service.url)
        assert refused.returncode == 1
        assert told in refused.stderr


def test_without_a_service_every_command_says_so_in_one_line() -> None:
    for words in (["experiments"], ["leaderboard", "--dataset", "digits"], ["cancel", "x"]):
        answer = spikeproof(*words)
        assert answer.returncode == 1
        assert "no service answers at http://127.0.0.1:1" in answer.stderr
        assert "Traceback" not in answer.stderr


def test_catalogues_and_doctor_need_no_service(tmp_path) -> None:
    assert "digits" in spikeproof("datasets", data_dir=str(tmp_path)).stdout
    assert "square" in spikeproof("attacks").stdout
    assert "timesteps-sweep" in spikeproof("presets").stdout
    doctor = spikeproof("doctor", data_dir=str(tmp_path))
    assert doctor.returncode == 0, doctor.stdout
    assert "ok    database: SQLite" in doctor.stdout


def test_the_doctor_says_what_fails(tmp_path) -> None:
    (tmp_path / "file").touch()
    doctor = spikeproof("doctor", data_dir=str(tmp_path / "file"))
    assert doctor.returncode == 1
    assert "FAIL  data folder" in doctor.stdout


def test_a_bad_setting_is_said_in_one_line_by_every_command(tmp_path) -> None:
    (tmp_path / "file").touch()
    bad = {
        "SPIKEPROOF_PORT": "abc", "SPIKEPROOF_DATA_DIR": str(tmp_path / "file"),
        "SPIKEPROOF_DATABASE_URL": "postgresql://127.0.0.1:1/none", "SPIKEPROOF_LEASE_SECONDS": "1",
    }
    for name, value in bad.items():
        environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(tmp_path), name: value}
        command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert answer.returncode == 1, name
        assert answer.stderr.startswith("spikeproof: "), answer.stderr
        assert len(answer.stderr.splitlines()) == 1
