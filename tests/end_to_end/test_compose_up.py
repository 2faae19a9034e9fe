"""What `docker compose up` starts, started: the compose file's own commands, users, mounts and health checks."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import skip_or_fail
from tests.end_to_end.compose import REPOSITORY, Compose, NotHere

SPEC = {"dataset": "digits", "seeds": [0], "variants": ["default"], "training": {"epochs": 1},
        "evaluation": {"images": 10, "eps": ["32/255"], "attacks": [{"name": "fgsm"}]}}
READY = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8000/readyz').read().decode())"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    for name in ("SPIKEPROOF_DATABASE_URL", "SPIKEPROOF_BROKER_URL", "SPIKEPROOF_PUBLISHED_HOST", "SPIKEPROOF_KEYS"):
        monkeypatch.delenv(name, raising=False)
    try:
        with Compose(REPOSITORY / "docker-compose.yml", tmp_path) as compose:
            yield compose
    except NotHere as error:
        skip_or_fail(str(error))


def test_on_a_fresh_machine_all_become_healthy_do_a_job_stop_in_time_and_go_on_where_they_were(lab: Compose) -> None:
    lab.up()
    assert lab.running["secrets"].returncode == 0
    ready = json.loads(lab.exec("api", "python", "-c", READY).stdout)
    assert ready["checks"] == {"database": True, "broker": True, "worker": True}

    (lab.volume("data") / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    submitted = lab.exec("api", "spikeproof", "submit", "/data/spec.yaml", "--wait")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr + lab.log("worker")
    before = lab.exec("api", "spikeproof", "leaderboard", "--dataset", "digits").stdout
    assert "resnet20" in before.lower()

    assert lab.exec("api", "id", "-u").stdout.strip() == "10001"
    assert "Read-only file system" in lab.exec("worker", "touch", "/secrets/database/new").stderr
    assert lab.exec("redis", "cat", "/secrets/database/password").returncode != 0
    asked = lab.exec("worker", "python", "-c", "import redis; redis.Redis('redis').ping()")
    assert "authenticated" in asked.stderr
    asked = lab.exec("worker", "python", "-c", "import psycopg; psycopg.connect('postgresql://spikeproof@postgres')")
    assert "no password supplied" in asked.stderr
    assert {path.stat().st_uid for path in lab.volume("data").rglob("*") if path.name != "spec.yaml"} == {10001}

    codes = lab.down()
    assert codes == dict.fromkeys(["worker", "api", "redis", "postgres", "secrets"], 0)
    lab.up()
    assert lab.exec("api", "spikeproof", "leaderboard", "--dataset", "digits").stdout == before
