import socket
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest
import torch
from torchvision import models

from models import resnet
from models.normalize import Normalize
from models.registry import build
from models.resnet import WeightsError, WeightsUnavailableError, load_imagenet_weights

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("architecture", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_features_after_the_average_pool(spec, architecture, features):
    model = build(spec(architecture, "default", image_shape=(3, 32, 32))).eval()
    assert model.encoder.features == features
    assert model.encoder(torch.rand(2, 3, 32, 32)).shape == (2, features)
    assert model.encoder.depths == 4


def test_stems(spec):
    x = torch.rand(1, 3, 32, 32)
    sizes = {stem: build(spec("resnet18", stem=stem)).encoder.stem(x).shape[-1] for stem in ("imagenet", "cifar")}
    assert sizes == {"imagenet": 8, "cifar": 32}


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_one_channel_can_stay_one(spec, stem):
    model = build(spec("resnet18", image_shape=(1, 28, 28), mean=(0.3,), std=(0.3,), stem=stem)).eval()
    assert model.encoder.stem.conv1.in_channels == 1
    assert model(torch.rand(1, 1, 28, 28)).shape == (1, 10)


@pytest.fixture(scope="module")
def published():
    return models.resnet18(weights=None)


@pytest.fixture
def weights_file(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_weights_in_torchvision_s_format_give_torchvision_s_features(spec, published, weights_file):
    encoder = build(spec("resnet18", stem="imagenet", mean=(0.0,) * 3, std=(1.0,) * 3)).encoder
    load_imagenet_weights(encoder, "resnet18", file=weights_file)
    x = torch.rand(2, 3, 64, 64)
    body = torch.nn.Sequential(*list(published.children())[:-1]).eval()
    torch.testing.assert_close(encoder.eval()(x), body(x).flatten(1))


def test_weights_of_the_wrong_network_are_refused(spec, weights_file):
    with pytest.raises(WeightsError, match="imagenet stem"):
        load_imagenet_weights(build(spec("resnet18", stem="cifar")).encoder, "resnet18", file=weights_file)
    with pytest.raises(WeightsError, match="do not fit resnet50"):
        load_imagenet_weights(build(spec("resnet50", stem="imagenet")).encoder, "resnet50", file=weights_file)


def test_files_that_are_not_weights_are_refused(spec, tmp_path):
    encoder = build(spec("resnet18", stem="imagenet")).encoder
    (tmp_path / "text").write_text("not weights")
    (tmp_path / "opcodes").write_text("something else")
    torch.save([1, 2], tmp_path / "list")
    for name in ("text", "opcodes", "list"):
        with pytest.raises(WeightsError):
            load_imagenet_weights(encoder, "resnet18", file=tmp_path / name)
    with pytest.raises(WeightsUnavailableError, match="cannot read"):
        load_imagenet_weights(encoder, "resnet18", file=tmp_path / "missing")


def test_a_weights_file_cannot_run_code(spec, tmp_path):
    torch.save({"conv1.weight": Path("harmless")}, tmp_path / "object")
    with pytest.raises(WeightsError, match="not a torchvision weights file"):
        load_imagenet_weights(build(spec("resnet18", stem="imagenet")).encoder, "resnet18", file=tmp_path / "object")


def test_being_offline_says_what_to_do(spec, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(ROOT / "nowhere"))
    monkeypatch.setattr(torch.hub.os, "makedirs", lambda *_, **__: None)
    with pytest.raises(WeightsUnavailableError, match=r"resnet18-\w+\.pth.*online, or train from scratch"):
        load_imagenet_weights(build(spec("resnet18", stem="imagenet")).encoder, "resnet18")


def test_weights_on_offer_exist_in_torchvision():
    for architecture, name in resnet.IMAGENET_WEIGHTS.items():
        accuracy = models.get_weight(name).meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert resnet.IMAGENET_TOP1[architecture] == pytest.approx(accuracy, abs=0.01)


def test_torchvision_is_not_imported_before_it_is_needed():
    code = "import sys, models.checkpoint, models.summary, models.freezing; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_a_server_that_falls_silent_does_not_hold_the_download(monkeypatch, tmp_path):
    monkeypatch.setattr(resnet, "SILENCE_SECONDS", 0.5)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        encoder = resnet.resnet_encoder("resnet18", Normalize((0.5,) * 3, (0.2,) * 3))
        began = time.monotonic()
        with pytest.raises(resnet.WeightsUnavailableError, match="timed out"):
            resnet.load_imagenet_weights(encoder, "resnet18")
    assert time.monotonic() - began < 60
    assert socket.getdefaulttimeout() is None
