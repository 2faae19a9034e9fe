"""Weights of one's own over HTTP, on both databases."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from app.settings import Settings
from models import checkpoint
from models.decoder import DecoderConfig
from models.registry import ModelSpec, build
from tests.app.work import Queue
from tests.service import make_settings

PLAIN = {"dataset": "digits", "architecture": "resnet20"}
QUICK = {"images": 20, "eps": ["32/255"]}


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """`files(seed=1, variant="lif", own={...})`: a network for digits, as a plain file, or as one of ours."""

    def make(seed: int = 0, own: dict[str, Any] | None = None, **spec: Any) -> Path:
        torch.manual_seed(seed)
        usual = {"architecture": "resnet20", "variant": "default", "classes": 10, "image_shape": (1, 8, 8),
                 "mean": (0.3,), "std": (0.4,)}  # fmt: skip
        model = build(ModelSpec(**{**usual, **spec}))
        path = tmp_path / f"{hashlib.sha256(repr((seed, own, spec)).encode()).hexdigest()[:8]}.safetensors"
        if own is None:
            save_file(model.state_dict(), path)
        else:
            checkpoint.save(path, model, own)
        return path

    return make


@pytest.fixture
def upload(api: httpx.Client) -> Callable[..., httpx.Response]:
    def send(path: Path | bytes, **fields: str) -> httpx.Response:
        content = path if isinstance(path, bytes) else path.read_bytes()
        return api.post("/checkpoints", files={"file": ("w.safetensors", content)}, data=fields)

    return send


def own_metadata(seed: int = 0, **run: Any) -> dict[str, Any]:
    """What a training elsewhere says of itself."""
    training = {"recipe": "default"}
    spec = {"kind": "train", "dataset": {"name": "digits", "fingerprint": "x"}, "seed": seed, "epochs": 20,
            "training": training, **run}  # fmt: skip
    return {"run": spec, "epochs": "<20>", "classes": list("0123456789")}


def stored_files(data_dir: Path) -> list[Path]:
    return [p for p in data_dir.rglob("*") if p.is_file() and not p.name.startswith("spikeproof.db")]


def test_a_plain_file_becomes_a_checkpoint_with_our_metadata(api, upload, files, data_dir) -> None:
    path = files()
    response = upload(path, **PLAIN, name="mine", epochs="<200>", seed="7", mean="0.3", std="0.4")
    assert response.status_code == 201, response.text
    shown = response.json()
    assert response.headers["location"] == f"/checkpoints/{shown['id']}"
    assert api.get(f"/checkpoints/{shown['id']}").json() == shown
    assert (shown["seed"], shown["epochs"], shown["epoch"], shown["final"]) == (7, "<200>", 200, True)
    assert shown["spec"]["run"]["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    content = api.get(f"/checkpoints/{shown['id']}/file").content
    assert hashlib.sha256(content).hexdigest() == shown["sha256"] != shown["spec"]["run"]["file_sha256"]
    [stored] = stored_files(data_dir)
    model, metadata = checkpoint.load(stored)
    assert (model.spec.mean, model.spec.std, metadata["run"]["name"]) == ((0.3,), (0.4,), "mine")
    assert shown["metrics"]["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_file_of_ours_needs_no_field_and_is_kept_byte_for_byte(api, upload, files) -> None:
    path = files(own=own_metadata(seed=5), variant="paralif")
    shown = upload(path).json()
    assert api.get(f"/checkpoints/{shown['id']}/file").content == path.read_bytes()
    assert shown["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (shown["dataset"], shown["variant"], shown["seed"], shown["epochs"]) == ("digits", "paralif", 5, "<20>")


def test_the_run_of_an_import_is_one_that_has_succeeded(api, upload, files, problem_of) -> None:
    shown = upload(files(), **PLAIN, name="mine").json()
    [run] = api.get("/runs?kind=import").json()["items"]
    assert run == next(r for r in api.get("/runs?state=succeeded").json()["items"])
    assert (run["id"], run["recipe"], run["settings"], run["checkpoint"]) == (
        shown["run_id"], "imported", "mine", shown["id"],
    )  # fmt: skip
    assert (run["progress"], run["attempt"], run["epochs"]) == (1.0, 0, "<?>")
    assert api.get(f"/runs/{run['id']}").json()["log"] == ""
    problem_of(api.post(f"/runs/{run['id']}/retry"), 409)


def test_the_same_file_with_the_same_said_about_it_is_one_checkpoint(api, upload, files, data_dir) -> None:
    path, own = files(), files(own=own_metadata())
    first = upload(path, **PLAIN)
    again = upload(path, **PLAIN)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert [upload(own).status_code, upload(own).status_code] == [201, 200]
    assert upload(path, **PLAIN, seed="1").status_code == 201
    assert len(stored_files(data_dir)) == len(api.get("/checkpoints").json()["items"]) == 3


def test_a_stored_plain_file_that_is_handed_in_again_is_the_same_checkpoint(api, upload, files) -> None:
    shown = upload(files(), **PLAIN).json()
    again = upload(api.get(f"/checkpoints/{shown['id']}/file").content)
    assert (again.status_code, again.json()["id"]) == (200, shown["id"])


def test_a_checkpoint_that_was_trained_here_is_not_imported_again(api, upload, queue: Queue) -> None:
    trained = queue.trained()
    content = api.get(f"/checkpoints/{trained}/file").content
    again = upload(content, dataset="digits")
    assert (again.status_code, again.json()["id"]) == (200, trained)
    named = upload(content, dataset="digits", name="as if from elsewhere")
    assert (named.status_code, named.json()["sha256"]) == (201, again.json()["sha256"])


def test_the_same_file_from_several_at_once_is_one_checkpoint(api, files, data_dir) -> None:
    content, found = files().read_bytes(), []

    def send() -> None:
        answer = api.post("/checkpoints", files={"file": content}, data=PLAIN)
        found.append((answer.status_code, answer.json()["id"]))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in found) == [200, 200, 200, 201]
    assert len({name for _, name in found}) == len(stored_files(data_dir)) == 1


def test_a_file_that_is_gone_comes_back_when_it_is_handed_in_again(api, upload, files, data_dir) -> None:
    path = files()
    first = upload(path, **PLAIN).json()
    [stored] = stored_files(data_dir)
    before = stored.read_bytes()
    stored.unlink()
    assert upload(path, **PLAIN).json() == first
    assert stored.read_bytes() == before


def test_imports_are_evaluated_like_any_checkpoint_and_seeds_of_one_name_are_one_row(api, upload, files, queue) -> None:
    ids = [upload(files(seed), **PLAIN, seed=str(seed), name="mine").json()["id"] for seed in (0, 1, 2)]
    body = {"dataset": "digits", "checkpoints": ids, "seeds": [9], "variants": ["lif"], "evaluation": QUICK}
    experiment = api.post("/experiments", json=body).json()
    assert [(r["kind"], r["seed"], r["recipe"]) for r in experiment["runs"]] == [
        ("evaluate", seed, "imported") for seed in (0, 1, 2)
    ]
    again = api.post("/experiments", json=body).json()
    assert all(run["reused"] for run in again["runs"])
    queue.work_off(lambda run: {"clean_accuracy": 0.5})
    [row] = api.get("/leaderboard?dataset=digits").json()["rows"]
    assert (row["recipe"], row["settings"], row["epochs"], row["checkpoints"]) == ("imported", "mine", "<?>", ids)
    assert row["clean_accuracy"]["n"] == 3
    [line] = [r for r in api.get("/leaderboard/matrix?dataset=digits").json()["rows"] if r["variant"] == "default"]
    assert line["cells"]["resnet20"]["settings"] == "mine"
    assert "mine" in api.get("/leaderboard?dataset=digits&format=md").text


def test_an_import_answers_with_the_classes_of_its_data_set(api, upload, files) -> None:
    path = files(variant="lif", decoder=DecoderConfig(hidden=32, timesteps=5))
    shown = upload(path, **PLAIN, variant="lif", decoder='{"hidden": 32, "timesteps": 5}').json()
    answer = api.post(f"/checkpoints/{shown['id']}/predict", json={"images": [[[0.5] * 8] * 8], "top": 10}).json()
    assert answer["stochastic"]
    assert {entry["class"] for entry in answer["predictions"][0]["top"]} == set("0123456789")


@pytest.mark.parametrize("channels", [1, 3])
def test_resnet18_in_torchvisions_layout_says_its_stem_and_channels_itself(upload, tmp_path, channels) -> None:
    models = pytest.importorskip("torchvision.models")
    network = models.resnet18(weights=None, num_classes=10)
    if channels == 1:
        network.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
    save_file(network.state_dict(), tmp_path / "file")
    shown = upload(tmp_path / "file", dataset="digits", architecture="resnet18", image_size="64").json()
    model = shown["spec"]["model"]
    assert (model["stem"], model["image_size"]) == ({1: "cifar", 3: "imagenet"}[channels], 64)
    assert (model["mean"], model["std"]) == ([0.0] * channels, [1.0] * channels)


def test_what_does_not_fit_is_refused_with_its_place_and_leaves_nothing(
    api, upload, files, data_dir, problem_of
) -> None:
    plain, own = files(), files(own=own_metadata())
    odd = torch.load(_as_pickle(plain), weights_only=True)
    odd["decoder.linear.bias"][3] = float("nan")
    save_file(odd, plain.with_name("nan"))
    cases: list[tuple[Path | bytes, dict[str, str], str, str]] = [
        (plain, {}, "/dataset", "is required"), (plain, {"dataset": "digits"}, "/architecture", "is required"),
        (plain, {**PLAIN, "dataset": "digit"}, "/dataset", "did you mean 'digits'"),
        (plain, {**PLAIN, "dataset": "cifar100"}, "/file", "takes 1 channel;"),
        (plain, {**PLAIN, "dataset": "fashion-mnist", "variant": "lif"}, "/file", "missing: decoder.lif"),
        (plain, {**PLAIN, "architecture": "resnet18"}, "/file", "missing: encoder.layer2.0.downsample"),
        (plain, {**PLAIN, "mean": "0.5,0.5,0.5"}, "/mean", "has 3 numbers"),
        (plain, {**PLAIN, "std": "0"}, "/std", "greater than 0"),
        (plain, {**PLAIN, "decoder": "{}"}, "/decoder", "lif"),
        (plain, {**PLAIN, "sed": "1"}, "/sed", "did you mean 'seed'"),
        (plain.with_name("nan"), PLAIN, "/file", "not finite: decoder.linear.bias"),
        (files(classes=7), PLAIN, "/file", "for 7 classes, not 10"),
        (_as_pickle(plain).read_bytes(), PLAIN, "/file", "is a PyTorch pickle"),
        (b"hello", PLAIN, "/file", "no safetensors"), (b"", PLAIN, "/file", "no safetensors"),
        (plain.read_bytes()[:-9], PLAIN, "/file", "damaged"),
        (own, {"seed": "1"}, "/seed", "says 0"), (own, {"dataset": "cifar10"}, "/dataset", "says 'digits'"),
        (own, {"stem": "imagenet"}, "/stem", "says 'cifar'"), (own, {"image_size": "16"}, "/image_size", "has none"),
        (files(own={}), {}, "/dataset", "is required"),
        (files(own=own_metadata(), classes=9), {}, "/file", "for 9 classes; digits has 10"),
        (files(own={**own_metadata(), "classes": list("9876543210")}), {}, "/file", "another order"),
        (files(own=own_metadata(), image_shape=(1, 9, 9)), {}, "/file", "of shape (1, 9, 9)"),
        (files(own=own_metadata(), variant="lif", decoder=DecoderConfig(timesteps=9999)), {}, "/file", "timesteps"),
        (files(own=own_metadata(), image_size=1024), {}, "/file", "at most 512"),
        (_with_metadata(plain, {"spikeproof": '{"format": 9}'}), PLAIN, "/file", "describes no network of ours"),
        (_with_metadata(plain, {"spikeproof": "[" * 5000}), PLAIN, "/file", "describes no network of ours"),
    ]  # fmt: skip
    for content, fields, pointer, told in cases:
        problem = problem_of(upload(content, **fields), 422)
        faults = {e["pointer"]: e["detail"] for e in problem["errors"]}
        assert pointer in faults, (fields, faults)
        assert told in " ".join(e["detail"] for e in problem["errors"]), (told, faults)
        assert str(data_dir) not in str(problem)
    assert stored_files(data_dir) == []
    assert list(data_dir.glob(".upload-*")) == []
    assert api.get("/runs").json()["items"] == []


def _as_pickle(path: Path) -> Path:
    from safetensors.torch import load_file

    torch.save(load_file(path), path.with_name("pickle.pth"))
    return path.with_name("pickle.pth")


def _with_metadata(path: Path, metadata: dict[str, str]) -> Path:
    from safetensors.torch import load_file

    changed = path.with_name(f"{hash(str(metadata))}")
    save_file(load_file(path), changed, metadata=metadata)
    return changed


def test_a_file_of_ours_in_torchvisions_names_is_written_anew_so_that_it_can_be_read(api, upload, files) -> None:
    from safetensors.torch import load_file

    from models.foreign import open_tensors

    path = files(own=own_metadata(), architecture="resnet18")
    state = {name.removeprefix("encoder.").removeprefix("stem."): value for name, value in load_file(path).items()}
    state |= {f"fc.{part}": state.pop(f"decoder.linear.{part}") for part in ("weight", "bias")}
    with open_tensors(path) as tensors:
        save_file(state, path, metadata=dict(tensors.metadata))
    checkpoint_id = upload(path).json()["id"]
    pixels = np.zeros((1, 8, 8)).tolist()
    assert api.post(f"/checkpoints/{checkpoint_id}/predict", json={"images": [pixels]}).status_code == 200


def test_a_decoder_setting_that_the_variant_does_not_read_makes_no_other_checkpoint(upload, files) -> None:
    path = files(variant="lif", decoder=DecoderConfig())
    first = upload(path, **PLAIN, variant="lif")
    again = upload(path, **PLAIN, variant="lif", decoder='{"spike_mode": "D"}')
    assert (first.status_code, again.status_code, again.json()["id"]) == (201, 200, first.json()["id"])


def test_a_form_that_is_none_or_has_not_one_file_is_refused(api, files, problem_of) -> None:
    content = files().read_bytes()
    two = [("file", content), ("file", content)]
    for answer in (api.post("/checkpoints", files=two, data=PLAIN), api.post("/checkpoints", files={"weights": b"x"}),
                   api.post("/checkpoints", files={"file": (None, "text")}, data=PLAIN)):  # fmt: skip
        assert "/file" in {e["pointer"] for e in problem_of(answer, 422)["errors"]}
    seeds = [("seed", (None, "1")), ("seed", (None, "2"))]
    twice = api.post("/checkpoints", files=[("file", content), *seeds], data=PLAIN)
    assert {e["pointer"]: e["detail"] for e in problem_of(twice, 422)["errors"]} == {"/seed": "is given twice"}
    problem_of(api.post("/checkpoints", json={}), 415)
    problem_of(api.post("/checkpoints"), 415)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    problem_of(api.post("/checkpoints", content=b"--x\r\ngarbage", headers=broken), 422)


def test_weights_may_be_larger_than_images_up_to_a_limit_of_their_own(config: Settings, serve, problem_of) -> None:
    assert make_settings().max_weights_mib == 512
    api = serve(config.model_copy(update={"max_upload_mib": 1, "max_weights_mib": 2}))
    assert api.post("/checkpoints", files={"file": b"x" * 1_500_000}, data=PLAIN).status_code == 422
    weights = problem_of(api.post("/checkpoints", files={"file": b"x" * 2_500_000}, data=PLAIN), 413)
    images = problem_of(api.post("/checkpoints/none/predict", files={"images": b"x" * 1_500_000}), 413)
    of_json = {"content-type": "application/json"}
    document = problem_of(api.post("/experiments", content=b"x" * 1_500_000, headers=of_json), 413)
    assert "at most 2 MiB at /checkpoints" in weights["detail"]
    assert "at most 1 MiB at /checkpoints/none/predict" in images["detail"]
    assert "at most 1 MiB at /experiments" in document["detail"]


def test_what_a_crash_left_of_an_upload_is_cleared_away(config: Settings, serve, data_dir) -> None:
    (data_dir / ".upload-x").mkdir()
    (data_dir / ".upload-x" / "upload.safetensors").write_bytes(b"x")
    serve(config)
    assert stored_files(data_dir) == []


def test_an_import_for_classes_that_have_changed_since_is_not_evaluated(
    api, upload, files, data_dir, problem_of
) -> None:
    def lay_out(name: str) -> None:
        for split in ("train", "test"):
            place = data_dir / "datasets" / "mine" / split / name
            place.mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "0.png")

    lay_out("a"), lay_out("b")
    shown = upload(files(classes=2), dataset="mine", architecture="resnet20").json()
    body = {"dataset": "mine", "checkpoints": [shown["id"]]}
    assert api.post("/experiments", json=body).status_code == 202
    lay_out("c")
    [fault] = problem_of(api.post("/experiments", json=body), 422)["errors"]
    assert fault["pointer"] == "/checkpoints/0"
    assert "other classes" in fault["detail"]


def test_a_training_starts_from_a_checkpoint_by_its_id_and_is_known_by_its_content(
    api, upload, files, data_dir, queue, problem_of
) -> None:
    shown = upload(files(), **PLAIN).json()
    body = {"dataset": "digits", "seeds": [0], "variants": ["lif"], "training": {"weights": shown["id"]}}
    experiment = api.post("/experiments", json=body).json()
    assert experiment["spec"]["training"]["weights"] == shown["id"]
    train = next(r for r in experiment["runs"] if r["kind"] == "train")
    assert api.get(f"/runs/{train['id']}").json()["spec"]["model"]["weights"] == f"sha256:{shown['sha256']}"
    assert {r["settings"].split(", ")[1] for r in experiment["runs"]} == {f"weights ckpt {shown['sha256'][:8]}"}
    middle = queue.checkpoint(queue.must_claim(), final=False)
    for weights, told in ((middle, "middle of a training"), ("ckpt_0", "use 'imagenet', 'none'")):
        problem = problem_of(api.post("/experiments", json={**body, "training": {"weights": weights}}), 422)
        assert [e["pointer"] for e in problem["errors"]] == ["/training/weights"]
        assert told in problem["detail"]
    for path in stored_files(data_dir):
        path.unlink()
    problem = problem_of(api.post("/experiments", json=body), 422)
    assert "is gone" in problem["detail"]


def test_architectures_say_whether_a_file_of_weights_is_here(api, data_dir) -> None:
    def offer() -> dict[str, Any]:
        items = {item["name"]: item for item in api.get("/architectures").json()["items"]}
        assert items["resnet18"]["checkpoint_weights"]["form"] == "ckpt_..."
        offered: dict[str, Any] = items["resnet18"]["weights"][0]["local_file"]
        return offered

    assert offer() == {"place": "DATA_DIR/weights/resnet18.pth", "present": False, "sha256": None, "official": None}
    (data_dir / "weights").mkdir()
    (data_dir / "weights" / "resnet18.pth").write_bytes(b"one")
    sha256 = hashlib.sha256(b"one").hexdigest()
    assert offer() == {"place": "DATA_DIR/weights/resnet18.pth", "present": True, "sha256": sha256, "official": False}
    body = {"dataset": "digits", "architectures": ["resnet18"], "seeds": [0], "training": {"weights": "imagenet"}}
    runs = api.post("/experiments", json=body).json()["runs"]
    assert all(f"weights imagenet, file {sha256[:8]}" in run["settings"] for run in runs)
