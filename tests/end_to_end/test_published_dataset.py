"""A published data set: without a network, and then with its files laid by hand."""

from tests.end_to_end.conftest import QUICK_TRAINING, Service, finished, run_of, wait_for
from tests.end_to_end.test_command_line import spikeproof

SPEC = {"dataset": "fashion-mnist", "seeds": [0], "variants": ["default", "lif"], "evaluation": {"images": 10}}
NOWHERE = "http://127.0.0.1:1"


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
                      "evaluation": {"images": 10, "eps": ["32/255"]}})
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
