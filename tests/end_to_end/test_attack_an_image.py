"""One attack on one image through the service."""

import io

import httpx
import numpy as np
import torch

from models import checkpoint
from models.registry import ModelSpec, build
from tests.end_to_end.conftest import EMBEDDED, Service


@EMBEDDED
def test_a_worker_attacks_the_image_that_was_sent(service: Service, tmp_path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "net.safetensors"
    checkpoint.save(file, build(ModelSpec("resnet20", "paralif", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))), {})
    client = service.client()
    made = client.upload(file, dataset="digits", name="mine")["id"]
    sent = np.random.default_rng(0).random((1, 8, 8), np.float32)
    body = {"image": sent.tolist(), "attack": "pgd", "parameters": {"steps": 3, "draws": 2}, "eps": "16/255"}
    queued = httpx.post(f"{service.url}/checkpoints/{made}/attack", json=body).raise_for_status().json()
    run = client.wait_for_run(queued["id"])
    assert run["state"] == "succeeded", run["error"]
    found = httpx.get(f"{service.url}/runs/{run['id']}/adversarial.npz").raise_for_status().content
    with np.load(io.BytesIO(found)) as arrays:
        np.testing.assert_array_equal(arrays["original"], sent)
        change = float(np.abs(arrays["adversarial"] - sent).max())
    assert 0 < change <= 16 / 255 + 1e-6
    assert run["metrics"]["draws"] == 100
    for name in ("original", "adversarial", "perturbation"):
        assert httpx.get(f"{service.url}/runs/{run['id']}/{name}.png").raise_for_status().content[:4] == b"\x89PNG"
