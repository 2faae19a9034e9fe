"""A published data set: without a network, and then with its files laid by hand."""

import io

import numpy as np
import torch
import torchvision
from PIL import Image

from tests.end_to_end.conftest import EMBEDDED, QUICK_EVALUATION, QUICK_TRAINING, Service, finished, run_of, wait_for
from tests.end_to_end.test_command_line import spikeproof
from worker.data.official import exclusive

SPEC = {"dataset": "fashion-mnist", "seeds": [0], "variants": ["default", "lif"], "evaluation": {"images": 10}}
NOWHERE = "http://127.0.0.1:1"


@EMBEDDED
def test_without_a_network_the_run_says_what_to_do_and_doing_it_helps(
    make_service, monkeypatch, real_data, tmp_path
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    service: Service = make_service()
    client = service.client()
    failed = client.wait(client.submit(SPEC)["id"])
    assert failed["state"] == "failed"
    train = client.run(run_of(failed, "train")["id"])
    assert "cannot be downloaded (" in train["error"]
    assert "into DATA_DIR/downloads/fashion-mnist/FashionMNIST/raw/" in train["error"]
    assert str(tmp_path) not in train["error"] + train["log"]
    assert "Traceback" not in train["log"]
    assert train["attempt"] == 1, "it fails however often it is tried"
    others = [r for r in failed["runs"] if r["id"] != train["id"]]
    assert len(others) == 3
    for run in others:
        assert run["state"] == "failed"
        assert run["error"] == f"the run it depends on failed: {train['error']}"
    # The service is well.
    finished(client, {"dataset": "digits", "seeds": [0], "variants": ["default"], "training": QUICK_TRAINING,
                      "evaluation": QUICK_EVALUATION})
    # What the text says is done: the same run goes on to train.
    raw = tmp_path / "downloads" / "fashion-mnist" / "FashionMNIST" / "raw"
    for packed in (real_data / "fashion-mnist").glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    client._json("POST", f"/runs/{train['id']}/retry")
    wait_for(lambda: (client.run(train["id"])["phase"] or "").startswith("epoch"))
    assert client._json("GET", "/datasets/fashion-mnist")["problem"] is None
    client.cancel(failed["id"])


def test_data_sets_are_listed_as_before_beside_their_fetching(tmp_path) -> None:
    listed = spikeproof("datasets", data_dir=str(tmp_path))
    assert listed.returncode == 0, listed.stderr
    assert "svhn" in listed.stdout
    assert "fetch" in spikeproof("datasets", "--help").stdout
    assert spikeproof("datasets", "fetch").returncode == 2


@EMBEDDED
def test_grey_images_go_through_imagenet_weights_and_are_attacked_on_their_one_channel(make_service, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label in range(10):
            place = tmp_path / "datasets" / "mnist" / split / str(label)
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(20 * label, 20, (28, 28)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights" / "resnet18.pth")
    training = {"weights": "imagenet", "image_size": 32, "epochs": 1, "batch_size": 8}
    client = make_service().client()
    done = finished(client, {"dataset": "mnist", "architectures": ["resnet18"], "seeds": [0], "variants": ["default"],
                             "training": training,
                             "evaluation": {"images": 3, "eps": ["0.3"], "attacks": [{"name": "fgsm"}]}})
    evaluation = run_of(done, "evaluate")
    adversarial = client._request("GET", f"/runs/{evaluation['id']}/adversarial.npz").content
    with np.load(io.BytesIO(adversarial)) as found:
        assert found["images"].shape[1:] == (1, 28, 28)
    [checkpoint] = client.checkpoints()
    model = client._json("GET", f"/checkpoints/{checkpoint['id']}")["spec"]["model"]
    assert (model["image_shape"], len(model["mean"])) == ([1, 28, 28], 3)
    image = tmp_path / "datasets" / "mnist" / "test" / "3" / "0.png"
    [prediction] = client.predict(checkpoint["id"], [image])["predictions"]
    assert len(prediction["top"]) == 5


@EMBEDDED
def test_a_job_that_waits_for_anothers_download_says_so_and_can_be_cancelled(service: Service, tmp_path) -> None:
    client = service.client()
    with exclusive(tmp_path / "downloads" / "fashion-mnist", print):
        experiment = client.submit(SPEC)
        train = run_of(experiment, "train")["id"]
        wait_for(lambda: client.run(train)["phase"] == "waiting for another process that fetches the images")
        client.cancel(experiment["id"])
        wait_for(lambda: client.run(train)["state"] == "cancelled", 10)
    assert client.run(train)["attempt"] == 1
