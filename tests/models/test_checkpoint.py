import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint import CheckpointError, load, read_metadata, read_spec, save
from models.decoder import variants
from models.noise import KeyedNoise, image_keys
from models.registry import build

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("variant", variants())
def test_a_loaded_network_is_the_saved_one(spec, tmp_path, variant):
    model = build(spec(variant=variant))
    model(torch.rand(4, 3, 16, 16))
    sha256 = save(tmp_path / "model", model, {"epoch": 3, "note": "é"})
    assert sha256 == hashlib.sha256((tmp_path / "model").read_bytes()).hexdigest()
    loaded, metadata = load(tmp_path / "model")
    assert metadata == read_metadata(tmp_path / "model") == {"epoch": 3, "note": "é"}
    assert loaded.spec == read_spec(tmp_path / "model") == model.spec
    assert not loaded.training
    x, keys = torch.rand(2, 3, 16, 16), image_keys(0, "test", torch.arange(2))
    assert torch.equal(loaded(x, KeyedNoise(keys)), model.eval()(x, KeyedNoise(keys)))


def test_equal_models_are_equal_bytes_in_every_process(spec, tmp_path):
    code = (
        "import torch, sys; from pathlib import Path; from models.registry import *;"
        "from models.checkpoint import save;"
        "torch.manual_seed(5);"
        "s = ModelSpec('resnet20', 'paralif', classes=10, image_shape=(3, 16, 16), mean=(.5,)*3, std=(.25,)*3);"
        "print(save(Path(sys.argv[1]), build(s), {'b': 1, 'a': [2, {'d': 3, 'c': 4}]}))"
    )
    torch.manual_seed(5)
    model = build(spec(variant="paralif"))
    hashes = {save(tmp_path / "here", model, {"a": [2, {"c": 4, "d": 3}], "b": 1})}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1


def test_memory_layout_does_not_change_the_bytes(spec, tmp_path):
    model = build(spec())
    plain = save(tmp_path / "plain", model, {})
    assert save(tmp_path / "last", model.to(memory_format=torch.channels_last), {}) == plain


def test_other_weights_and_other_metadata_are_other_bytes(spec, tmp_path):
    model = build(spec())
    first = save(tmp_path / "a", model, {"epoch": 1})
    assert save(tmp_path / "b", model, {"epoch": 2}) != first
    with torch.no_grad():
        model.decoder.linear.bias[0] += 1e-6
    assert save(tmp_path / "c", model, {"epoch": 1}) != first


def test_loading_leaves_the_random_state_alone(spec, tmp_path):
    save(tmp_path / "model", build(spec()), {})
    before = torch.get_rng_state()
    load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failed_save_leaves_the_old_file_and_nothing_beside_it(spec, tmp_path, monkeypatch):
    model = build(spec())
    save(tmp_path / "model", model, {"epoch": 1})

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path / "model", model, {"epoch": 2})
    assert read_metadata(tmp_path / "model") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(spec, tmp_path, keep):
    save(tmp_path / "model", build(spec()), {})
    content = (tmp_path / "model").read_bytes()
    size = keep if isinstance(keep, int) else int(len(content) * keep)
    (tmp_path / "model").write_bytes(content[:size])
    for read in (load, read_metadata, read_spec):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read(tmp_path / "model")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "missing")


def test_a_pickle_is_refused(tmp_path):
    torch.save({"weights": torch.rand(3)}, tmp_path / "model")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "model")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.rand(3)}, tmp_path / "model")
    with pytest.raises(CheckpointError, match="says nothing of the network"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        "{}",
        '{"format":2}',
        '{"format":1,"spec":{},"metadata":{}}',
        '{"format":1,"spec":[],"metadata":{}}',
    ],
)
def test_a_file_that_describes_no_network_is_refused(tmp_path, text):
    save_file({"weight": torch.rand(3)}, tmp_path / "model", metadata={"spikeproof": text})
    with pytest.raises(CheckpointError, match="describes no network"):
        load(tmp_path / "model")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_their_specification_are_refused(spec, tmp_path, change):
    model = build(spec())
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if change == "missing":
        del state["decoder.linear.bias"]
    elif change == "extra":
        state["decoder.other"] = torch.zeros(1)
    else:
        state["decoder.linear.bias"] = torch.zeros(11)
    text = json.dumps({"format": 1, "spec": model.spec.to_dict(), "metadata": {}})
    save_file(state, tmp_path / "model", metadata={"spikeproof": text})
    with pytest.raises(CheckpointError, match="do not fit"):
        load(tmp_path / "model")


def test_metadata_that_is_not_json_is_refused(spec, tmp_path):
    model = build(spec())
    with pytest.raises((TypeError, ValueError)):
        save(tmp_path / "model", model, {"loss": float("nan")})
    assert not (tmp_path / "model").exists()
