"""A new attack, architecture, data set and decoder are one file and one entry each, in the tree or in a package."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import Client
from tests.conftest import REPOSITORY
from tests.end_to_end.conftest import Service, finished

HERE = Path(__file__).parent
PLUGIN = HERE / "lab_plugin"
# Their file -> where it lies in the tree, the catalogue, the entry's name, and what it says of its file there.
IN_THE_TREE = {
    "stripes.py": ("worker/attacks", "app/domain/attacks.py", "STRIPES", {', module="lab_plugin.stripes"': ""}),
    "tinynet.py": ("models", "app/domain/architectures.py", "TINYNET", {}),
    "counts.py": ("models", "app/domain/architectures.py", "COUNTS", {}),
    "patches.py": ("worker/data", "app/domain/datasets.py", "PATCHES", {"lab_plugin.patches": "worker.data.patches"}),
}
BUILT = """
import torch
from app.domain.datasets import KNOWN
from models.registry import ModelSpec, build
from worker.attacks import Target, build_attack
from worker.data.arrays import load
from pathlib import Path

facts = KNOWN["patches"]
arrays = load("patches", "patches-1", facts.classes, facts.shape, Path("data"))
x = torch.from_numpy(arrays.test.images[:8]).permute(0, 3, 1, 2).float().div(255).contiguous()
net = build(ModelSpec("tinynet", "counts", 2, (3, 16, 16), mean=arrays.mean, std=arrays.std)).eval()
rows = torch.arange(8)
attack = build_attack("stripes", norm="linf")
labels, epsilon = torch.from_numpy(arrays.test.labels[:8]), torch.full((8,), 0.1)
found = attack(Target(net), x, labels, epsilon=epsilon, ids=rows, seed=0)
assert 0 < float((found.x - x).abs().max()) <= 0.1 + 1e-6
print("built")
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment in which the package is installed: its files, and the entry points of its pyproject.toml."""
    place = tmp_path / "site"
    shutil.copytree(PLUGIN, place / "lab_plugin", ignore=shutil.ignore_patterns("__pycache__"))
    information = place / "lab_plugin-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-plugin\nVersion: 0.1\n")
    groups = re.findall(r'^\[project\.entry-points\."(.+)"\]\n((?:.+\n)+)', (HERE / "pyproject.toml").read_text(), re.M)
    points = [f"[{group}]\n{lines.replace(chr(34), '')}" for group, lines in groups]
    (information / "entry_points.txt").write_text("\n".join(points))
    return {"PYTHONPATH": os.pathsep.join([str(place), str(REPOSITORY)])}


@pytest.fixture
def service(installed: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    data = tmp_path / "data"
    data.mkdir()
    running = Service(data, installed)
    try:
        yield running.start()
    finally:
        running.stop()


SPEC = {
    "dataset": "patches", "architectures": ["tinynet"], "variants": ["default", "counts"], "seeds": [0],
    "training": {"images": 400, "epochs": 2, "branch_epochs": 1},
    "evaluation": {"images": 20, "eps": ["8/255"], "attacks": [{"name": "stripes"}, {"name": "pgd"}]},
}


def test_one_of_each_from_a_package_runs_through_the_service(service: Service) -> None:
    client = Client(service.url)
    experiment = finished(client, SPEC)
    rows = client.leaderboard("patches")["rows"]
    assert {row["variant"] for row in rows} == {"default", "counts"}
    assert {row["architecture"] for row in rows} == {"tinynet"}
    for row in rows:
        assert set(row["attacks"]) == {"stripes", "pgd"}
        assert row["clean_accuracy"]["mean"] > 0.6  # two photographs are told apart at once
        assert row["robust_accuracy"]["mean"] <= row["attacks"]["stripes"]["mean"]
    counts = next(row for row in rows if row["variant"] == "counts")
    assert counts["draws"] == 100
    layers = client.architecture("tinynet")["layers"]
    assert sum(layer["parameters"] for layer in layers) > 6000
    assert "counts" in client.report(experiment["id"])
    assert "a linear layer on the mean of Bernoulli spikes" in client.card(counts["checkpoints"][0])


def test_one_of_each_in_the_tree_is_one_file_and_one_entry(tmp_path: Path) -> None:
    for room in ("app", "models", "worker", "migrations"):
        shutil.copytree(REPOSITORY / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    entries = (PLUGIN / "__init__.py").read_text()
    for file, (room, catalogue, name, changes) in IN_THE_TREE.items():
        shutil.copy(PLUGIN / file, tmp_path / room / file)
        entry = re.search(rf"^{name} = (.+?)\n(?=\n|\Z)", entries, re.M | re.S)
        assert entry is not None
        text = entry[1].partition("  # fmt")[0]
        for there, here in changes.items():
            text = text.replace(there, here)
        put_into(tmp_path / catalogue, kind=text.partition("(")[0], entry=text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", BUILT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "built\n", done.stderr


def put_into(catalogue: Path, *, kind: str, entry: str) -> None:
    """At the head of the tuple of entries of that kind."""
    text = catalogue.read_text()
    head = re.search(rf'Catalogue\(\n    "\w+", {kind},\n    \(\n', text)
    assert head is not None, kind
    catalogue.write_text(f"{text[:head.end()]}        {entry},\n{text[head.end():]}")


@pytest.mark.parametrize(
    ("group", "point", "says"),
    [
        ("attacks", "wrong = lab_plugin:NOTHING", "of spikeproof.attacks cannot be imported"),
        ("attacks", "wrong = lab_plugin:TINYNET", "must be of app.domain.attacks.Attack"),
        ("attacks", "wrong = lab_plugin:STRIPES", "is the entry 'stripes'"),
        ("architectures", "resnet20 = lab_plugin:TINYNET", "has a name that is taken"),
        ("datasets", "wrong = no_such_package:X", "No module named 'no_such_package'"),
    ],
)
def test_what_a_package_brings_wrongly_is_told_in_one_line(
    installed: dict[str, str], tmp_path: Path, group: str, point: str, says: str
) -> None:
    points = tmp_path / "site" / "lab_plugin-0.1.dist-info" / "entry_points.txt"
    points.write_text(f"[spikeproof.{group}]\n{point}\n")
    command = [sys.executable, "-m", "app.cli", "worker"]
    environment = {**os.environ, **installed, "SPIKEPROOF_DATA_DIR": str(tmp_path)}
    told = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert says in told.stderr
    assert told.stderr.startswith("spikeproof: ")
    assert len(told.stderr.splitlines()) == 1
