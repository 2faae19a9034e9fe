"""Keys as those use them who run a service for others."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.client import Client, ServiceError
from tests.end_to_end.conftest import PATIENCE, START_SECONDS, wait_for


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[str]]:
    """What a service says that listens on every address, as it starts."""
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(tmp_path)}
    service = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--api-only", "--port", "0", "--host", "0.0.0.0"], env=environment,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path,
    )
    assert service.stdout is not None
    yield [service.stdout.readline() for _ in range(2)]
    service.terminate()
    service.wait(30)
    service.stdout.close()


def keys(folder: Path, *words: str) -> str:
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "app.cli", "keys", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.strip()


def test_a_service_for_others_says_how_to_make_the_first_key_and_takes_it_at_once(lines, tmp_path: Path) -> None:
    assert "spikeproof keys create" in lines[1]
    url = "http://127.0.0.1:" + lines[0].split()[3].rpartition(":")[2]
    with Client(url) as nobody:
        wait_for(nobody.healthy, START_SECONDS)
        with pytest.raises(ServiceError, match="a key is needed"):
            nobody.experiments()
    key = keys(tmp_path, "create", "ada", "--role", "submitter")
    with Client(url, key) as ada:
        name = ada.submit({"dataset": "digits", "seeds": [0], "variants": ["default"]})["id"]
        assert ada.experiment(name)["submitted_by"] == "ada"
    keys(tmp_path, "revoke", "ada")
    refused = httpx.get(f"{url}/runs", headers={"X-API-Key": key}, timeout=PATIENCE, trust_env=False)
    assert refused.status_code == 401
    assert key not in "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.log"))
