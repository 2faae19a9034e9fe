"""The study's networks through the service: ResNet-18 and -50 from a weights file in torchvision's format, three
variants, frozen to depth 0, 3 and 4, on real images. Sizes are tiny: what must hold are bits and bookkeeping. ResNet-50
is frozen to depth 3 alone, where it has layers of either kind."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from tests.end_to_end.conftest import PATIENCE, Service, finished

pytestmark = pytest.mark.slow

ARCHITECTURES = ("resnet18", "resnet50")
AT_DEPTH = {0: ("resnet18",), 3: ARCHITECTURES, 4: ("resnet18",)}
IMAGE_SIZE = 40
BATCHES = 3  # an epoch: 90 images (100 less a tenth) in batches of 32
TRAINING = {
    "weights": "imagenet", "image_size": IMAGE_SIZE, "batch_size": 32, "epochs": 1, "branch_epochs": 1,
    "overrides": [  # the last one that fits a cell counts
        {"variant": "lif", "branch_epochs": 2},
        {"architecture": "resnet18", "epochs": 2},
        {"architecture": "resnet18", "variant": "lif", "branch_at": 1, "branch_epochs": 3},
    ],
}  # fmt: skip
EPOCHS = {
    ("resnet18", "default"): (2,), ("resnet18", "lif"): (1, 3), ("resnet18", "paralif"): (2, 1),
    ("resnet50", "default"): (1,), ("resnet50", "lif"): (1, 2), ("resnet50", "paralif"): (1, 1),
}  # fmt: skip
CELLS = [(depth, *cell) for depth, architectures in AT_DEPTH.items() for cell in EPOCHS if cell[0] in architectures]
PARTLY_TRAINED = [cell for cell in CELLS if cell[0] < 4]
FROZEN = [cell for cell in CELLS if cell[0] > 0]
BRANCHES = [cell for cell in CELLS if len(EPOCHS[cell[1:]]) == 2]


def _spec(depth: int, **changes: Any) -> dict[str, Any]:
    evaluation = {"attacks": [{"name": "fgsm", "parameters": {"draws": 2}}], "eps": ["2/255"], "images": 10}
    return {"dataset": "cifar10", "architectures": list(AT_DEPTH[depth]), "seeds": [0], "evaluation": evaluation,
            "training": {**TRAINING, "freeze_depth": depth}, **changes}  # fmt: skip


@dataclass
class Study:
    """The service when all is trained; `experiments` by depth, `second` the other branch seed at depth 4."""

    service: Service
    weights: dict[str, dict[str, Tensor]]
    experiments: dict[int, dict[str, Any]]
    second: dict[str, Any]

    def get(self, path: str, **params: Any) -> Any:
        response = httpx.get(self.service.url + path, params=params, trust_env=False, timeout=PATIENCE)
        assert response.status_code == 200, response.text
        return response.json()

    def checkpoint(self, depth: int, architecture: str, variant: str) -> str:
        [found] = [run["checkpoint"] for run in self.experiments[depth]["runs"] if run["kind"] != "evaluate"
                   and (run["architecture"], run["variant"]) == (architecture, variant)]  # fmt: skip
        return str(found)

    def file_sha256(self, architecture: str) -> str:
        """Of the weights file, which is not torchvision's own."""
        return hashlib.sha256((self.service.data_dir / "weights" / f"{architecture}.pth").read_bytes()).hexdigest()

    def parent(self, checkpoint: str) -> str:
        return str(self.get(f"/checkpoints/{checkpoint}")["parent"])

    def tensors(self, checkpoint: str) -> dict[str, Tensor]:
        response = httpx.get(f"{self.service.url}/checkpoints/{checkpoint}/file", trust_env=False, timeout=PATIENCE)
        assert response.status_code == 200, response.text
        return load(response.content)


@pytest.fixture(scope="module")
def study(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("study")
    export = [sys.executable, str(real_data / "export.py"), "cifar10", str(folder / "datasets")]
    subprocess.run([*export, "--train", "100", "--test", "20"], check=True, capture_output=True)
    (folder / "weights").mkdir()
    weights = {name: _weights_file(name, folder / "weights" / f"{name}.pth") for name in ARCHITECTURES}
    service = Service(folder, {"SPIKEPROOF_WORKERS": "2"}).start()
    try:
        client = service.client()
        for depth in AT_DEPTH:  # all at once, so that the workers never wait
            client.submit(_spec(depth))
        experiments = {depth: finished(client, _spec(depth)) for depth in AT_DEPTH}
        second = _spec(4, variants=["lif"], branch_seeds=[0, 1])
        yield Study(service, weights, experiments, finished(client, second))
    finally:
        service.stop()
        shutil.rmtree(folder)  # more than a gigabyte of checkpoints


def _weights_file(architecture: str, path: Path) -> dict[str, Tensor]:
    """Writes weights as torchvision would download them, with batch-norm statistics that are not those of a new
    network; returns the encoder's tensors under the names that a checkpoint gives them."""
    from torchvision import models

    torch.manual_seed(len(architecture) + ARCHITECTURES.index(architecture))
    network = models.get_model(architecture, weights=None).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average of the batches below
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(16, 3, IMAGE_SIZE, IMAGE_SIZE))
    torch.save(network.state_dict(), path)
    return {_name(name): value for name, value in network.state_dict().items() if not name.startswith("fc.")}


def _name(torchvision: str) -> str:
    return f"encoder.{'' if torchvision.startswith('layer') else 'stem.'}{torchvision}"


def _frozen(name: str, depth: int) -> bool:
    return depth > 0 and name.startswith(("encoder.stem.", *(f"encoder.layer{n}." for n in range(1, depth + 1))))


@pytest.mark.parametrize(("depth", "architecture", "variant"), FROZEN)
def test_frozen_parameters_and_batch_norm_buffers_are_those_of_the_weights_file_bit_for_bit(
    study: Study, depth: int, architecture: str, variant: str
) -> None:
    tensors, weights = study.tensors(study.checkpoint(depth, architecture, variant)), study.weights[architecture]
    frozen = [name for name in weights if _frozen(name, depth)]
    for kind in ("conv1.weight", "downsample.0.weight", "bn1.bias", "running_var", "num_batches_tracked"):
        assert any(name.endswith(kind) for name in frozen)
    assert not [name for name in frozen if not torch.equal(tensors[name], weights[name])]
    assert {name for name in tensors if name.startswith("encoder.")} == set(weights)


@pytest.mark.parametrize(("depth", "architecture", "variant"), PARTLY_TRAINED)
def test_every_layer_that_is_not_frozen_moved_from_where_the_weights_file_put_it(
    study: Study, depth: int, architecture: str, variant: str
) -> None:
    tensors, weights = study.tensors(study.checkpoint(depth, architecture, variant)), study.weights[architecture]
    trained = [name for name in weights if not _frozen(name, depth)]
    assert any(name.startswith("encoder.layer4.") for name in trained)
    assert any(name.startswith("encoder.stem.") for name in trained) is (depth == 0)
    assert not [name for name in trained if torch.equal(tensors[name], weights[name])]
    for name in trained:
        if weights[name].ndim == 4:  # convolutions: not far from these weights; others would be at a right angle
            assert cosine_similarity(tensors[name].flatten(), weights[name].flatten(), dim=0) > 0.5, name


@pytest.mark.parametrize(("depth", "architecture", "variant"), PARTLY_TRAINED)
def test_batch_norm_that_is_not_frozen_saw_every_batch_of_every_epoch(
    study: Study, depth: int, architecture: str, variant: str
) -> None:
    tensors, weights = study.tensors(study.checkpoint(depth, architecture, variant)), study.weights[architecture]
    counts = [name for name in weights if name.endswith("num_batches_tracked") and not _frozen(name, depth)]
    steps = BATCHES * sum(EPOCHS[architecture, variant])
    assert {int(tensors[name] - weights[name]) for name in counts} == {steps}


@pytest.mark.parametrize(("depth", "architecture", "variant"), BRANCHES)
def test_a_branch_trains_what_is_not_frozen_on_from_its_parent_and_replaces_the_decoder(
    study: Study, depth: int, architecture: str, variant: str
) -> None:
    checkpoint = study.checkpoint(depth, architecture, variant)
    parent = study.parent(checkpoint)
    after, before = study.tensors(checkpoint), study.tensors(parent)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder
    for name in encoder:
        assert torch.equal(after[name], before[name]) is _frozen(name, depth), name
    decoders = [{name for name in tensors if name.startswith("decoder.")} for tensors in (before, after)]
    assert decoders[0]
    assert decoders[0] != decoders[1]
    described = study.get(f"/checkpoints/{parent}")
    assert described["epoch"] == EPOCHS[architecture, variant][0]
    assert described["final"] is (described["epoch"] == EPOCHS[architecture, "default"][0])


def _text(architecture: str, variant: str) -> str:
    return f"<{','.join(map(str, EPOCHS[architecture, variant]))}>"


def _frozen_text(depth: int) -> str:
    return f"frozen {depth}, " if depth else ""


def test_the_leaderboard_has_a_row_for_every_cell_and_depth_that_says_both(study: Study) -> None:
    rows = study.get("/leaderboard", dataset="cifar10")["rows"]
    found = {(row["architecture"], row["variant"], row["settings"]): row["epochs"] for row in rows}
    weights = {name: f"weights imagenet, file {study.file_sha256(name)[:8]}" for name in ARCHITECTURES}
    assert found == {
        (*cell, f"batch 32, {_frozen_text(depth)}{weights[cell[0]]}, size {IMAGE_SIZE}"): _text(*cell)
        for depth, *cell in CELLS
    }  # fmt: skip
    assert len(rows) == len(CELLS)
    for row in rows:
        assert row["recipe"] == "study"
        assert 0 <= row["robust_accuracy"]["mean"] <= 1
        assert row["protocol"]["images"] == 10


@pytest.mark.parametrize("depth", AT_DEPTH)
def test_the_matrix_of_one_depth_is_full_and_has_the_epochs_of_each_cell(study: Study, depth: int) -> None:
    path, query = "/leaderboard/matrix", {"dataset": "cifar10", "metric": "clean_accuracy", "freeze_depth": depth}
    rows = study.get("/leaderboard", dataset="cifar10", freeze_depth=depth)["rows"]
    means = {(row["architecture"], row["variant"]): row["clean_accuracy"]["mean"] for row in rows}
    cells = {line["variant"]: line["cells"] for line in study.get(path, **query)["rows"]}
    for architecture, variant in EPOCHS:
        cell = cells[variant][architecture]
        if architecture not in AT_DEPTH[depth]:
            assert cell is None
            continue
        assert cell["epochs"] == _text(architecture, variant)
        assert cell["mean"] == means[architecture, variant]
        assert ("frozen" in cell["settings"]) is (depth > 0)
        assert _frozen_text(depth) in cell["settings"]
        assert (cell["n"], cell["others"]) == (1, 0)
        assert cells[variant]["resnet20"] is None


def test_a_matrix_of_several_depths_is_full_and_counts_the_rows_it_does_not_show(study: Study) -> None:
    shown = study.get("/leaderboard/matrix", dataset="cifar10", metric="clean_accuracy")
    cells = {line["variant"]: line["cells"] for line in shown["rows"]}
    for architecture, variant in EPOCHS:
        cell, others = cells[variant][architecture], {"resnet18": 2, "resnet50": 0}[architecture]
        assert (cell["epochs"], cell["others"]) == (_text(architecture, variant), others)


def test_a_second_branch_seed_trains_one_more_branch_of_the_same_parent_and_shares_the_rest(study: Study) -> None:
    new = [run for run in study.second["runs"] if not run["reused"]]
    assert {(run["kind"], run["branch_seed"]) for run in new} == {("branch", 1), ("evaluate", 1)}
    checkpoint = next(run["checkpoint"] for run in new if run["kind"] == "branch")
    first = study.checkpoint(4, "resnet18", "lif")
    assert study.parent(checkpoint) == study.parent(first)
    one, other = study.tensors(first), study.tensors(checkpoint)
    differing = {name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert differing == {"decoder"}  # depth 4 freezes all of the encoder
    [row] = study.get("/leaderboard", dataset="cifar10", architecture="resnet18", variant="lif", freeze_depth=4)["rows"]
    assert set(row["clean_accuracy"]["by_branch_seed"]) == {"0:0", "0:1"}
    assert row["clean_accuracy"]["n"] == 1
