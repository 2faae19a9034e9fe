"""The service's process while predictions keep it busy: it answers other calls, and ends in seconds."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from app.client import Client
from models import checkpoint
from models.registry import ModelSpec, build
from tests.end_to_end.conftest import PATIENCE, START_SECONDS, wait_for

CLIENTS = 4
BODY = {"images": [[[0.5] * 8] * 8] * 256, "draws": 1000}  # minutes of work each


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(tmp_path), "SPIKEPROOF_PREDICT_QUEUE": "100000"}
    command = [sys.executable, "-m", "app.cli", "serve", "--api-only", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[3]
        process.kill()


def test_a_busy_service_answers_other_calls_and_lets_go_of_who_waits_when_it_ends(service, tmp_path: Path) -> None:
    process, url = service
    torch.manual_seed(0)
    file = tmp_path / "a.safetensors"
    checkpoint.save(file, build(ModelSpec("resnet20", "lif", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))), {})
    answers: list[httpx.Response] = []

    def ask(model: str) -> None:
        path = f"{url}/checkpoints/{model}/predict"
        answers.append(httpx.post(path, json=BODY, timeout=4 * PATIENCE, trust_env=False))

    with Client(url) as client:
        wait_for(client.healthy, START_SECONDS)
        model = client.upload(file, dataset="digits", name="a")["id"]
        clients = [threading.Thread(target=ask, args=(model,)) for _ in range(CLIENTS)]
        for one in clients:
            one.start()

        def waiting() -> bool:
            told = httpx.get(f"{url}/metrics", timeout=PATIENCE, trust_env=False).text
            return f"spikeproof_predict_queue_images {256.0 * CLIENTS}" in told

        wait_for(waiting)
        assert client.healthy()
    assert answers == []
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE)
    for one in clients:
        one.join(PATIENCE)
    assert [answer.status_code for answer in answers] == [503] * CLIENTS
    assert "stopping" in answers[0].json()["detail"]
    assert process.returncode == 0
