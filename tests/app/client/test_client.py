"""The client against a real service, on both databases."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import (
    Client,
    Conflict,
    Damaged,
    Event,
    InvalidInput,
    MissingExtra,
    NotFound,
    ServiceError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    connection,
    show_progress,
)
from app.client.connection import refusal
from app.client.events import events_in
from app.storage import run_logs
from tests.app.work import Queue, verdict


@pytest.fixture
def client(api: httpx.Client) -> Iterator[Client]:
    with Client(str(api.base_url), api_key="") as made:
        yield made


def measure(_: Any) -> dict[str, float]:
    return {"robust_accuracy": 0.4}


def test_it_submits_waits_and_shows_progress_each_time(client: Client, queue: Queue, capsys: Any) -> None:
    experiment = client.submit({"dataset": "digits", "variants": ["default"], "seeds": [0]}, idempotency_key="once")
    assert client.submit({"dataset": "digits", "variants": ["default"], "seeds": [0]}, "once")["id"] == experiment["id"]
    seen: list[str] = []

    def on_update(now: dict[str, Any]) -> None:
        seen.append(now["state"])
        show_progress(now)
        if len(seen) == 1:
            queue.work_off(measure)

    ended = client.wait(experiment["id"], on_update, every=0.01)
    assert (seen[0], seen[-1], ended["state"]) == ("queued", "succeeded", "succeeded")
    shown = capsys.readouterr().err
    assert f"{experiment['id']}: succeeded, 100%" in shown
    assert shown.endswith("\n")
    assert client.wait_for_run(ended["runs"][0]["id"])["state"] == "succeeded"


def test_lists_go_on_from_page_to_page(client: Client, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAGE", 2)
    made = [queue.submit(seeds=[seed]) for seed in range(5)]
    assert [e["id"] for e in client.iter_experiments(dataset="digits")] == made[::-1]
    assert list(client.iter_experiments(state="failed")) == []
    assert len(list(client.iter_runs(kind="train"))) == 5
    assert [e["id"] for e in client.experiments(limit=3)] == made[:1:-1]
    queue.work_off(measure)
    assert len(list(client.iter_checkpoints(variant="default"))) == len(client.checkpoints()) == 5


def test_per_image_rows_come_in_pages_too(client: Client, queue: Queue) -> None:
    queue.submit()
    queue.work_off(measure, lambda run, eps: [verdict(i, eps) for i in range(3)])
    [run] = client.iter_runs(kind="evaluate")
    assert len(list(client.iter_verdicts(run["id"]))) == 9
    assert [v["image_id"] for v in client.iter_verdicts(run["id"], "8/255")] == [0, 1, 2]
    assert list(client.iter_images(run["id"])) == []


def test_errors_are_typed_and_carry_the_problem_document(client: Client, queue: Queue) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'digits'") as invalid:
        client.submit({"dataset": "digit"})
    assert invalid.value.problems[0]["pointer"] == "/dataset"
    assert invalid.value.problem["title"] == "Invalid input"
    assert invalid.value.status == 422
    with pytest.raises(NotFound, match="there is no run 'run_x'"):
        client.run("run_x")
    experiment = queue.submit()
    queue.work_off(measure)
    with pytest.raises(Conflict, match="already succeeded"):
        client.cancel(experiment)
    with pytest.raises(Unauthorized, match="not known here"), Client(str(client._http.base_url), "wrong") as other:
        other.experiments()
    with pytest.raises(Unreachable, match="no service answers at http"), Client("http://127.0.0.1:1") as nobody:
        nobody.experiments()
    assert all(issubclass(kind, ServiceError) for kind in (InvalidInput, NotFound, Conflict, Unauthorized, Unreachable))


def test_a_refusal_without_a_problem_document_is_one_all_the_same() -> None:
    plain = refusal(httpx.Response(502, text="<html>"))
    assert (plain.status, plain.detail) == (502, "the service answered 502")
    later = refusal(httpx.Response(429, json={"detail": "slow down"}, headers={"Retry-After": "7"}))
    assert isinstance(later, TooManyRequests)
    assert later.retry_after == 7
    assert refusal(httpx.Response(500, json=["x"])).status == 500


def test_a_download_is_compared_with_the_services_digest(client: Client, queue: Queue, tmp_path: Path) -> None:
    checkpoint = queue.trained()
    file = client.download(checkpoint, tmp_path / "net.safetensors")
    stored = queue.data_dir / f"runs/{client.checkpoint(checkpoint)['run_id']}/model.safetensors"
    assert file.read_bytes() == stored.read_bytes()
    changed = bytearray(stored.read_bytes())
    changed[-1] ^= 1
    stored.write_bytes(changed)
    with pytest.raises(Damaged, match="another"):
        client.download(checkpoint, tmp_path / "other.safetensors")
    assert {path.name for path in tmp_path.iterdir()} <= {"net.safetensors", "data"}


def test_weights_are_uploaded_and_figures_verified(
    client: Client, queue: Queue, tmp_path: Path
) -> None:
    checkpoint = queue.trained()
    file = client.download(checkpoint, tmp_path / "net.safetensors")
    uploaded = client.upload(file, architecture="resnet20", dataset="digits", name="mine")
    assert client.checkpoint(uploaded["id"])["run_id"] == uploaded["run_id"]
    run = client.verify(checkpoint)
    assert run["kind"] == "verify"
    assert client.cancel_run(run["id"])["state"] == "cancelled"
    assert client.retry(run["id"])["state"] == "queued"


def test_pixels_are_classified_as_the_same_image_in_a_file(client: Client, queue: Queue, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    checkpoint, pixels = queue.trained(), np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    by_file = client.predict(checkpoint, [str(tmp_path / "image.png")], top=2)["predictions"]
    assert client.predict_pixels(checkpoint, pixels[None] / 255, top=2)["predictions"] == by_file


def test_an_image_is_attacked_as_file_pixels_or_number(client: Client, queue: Queue, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    checkpoint, pixels = queue.trained(), np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    wanted = {"attack": "pgd", "parameters": {"steps": 3}, "eps": "16/255", "label": 4}
    by_file = client.attack(checkpoint, tmp_path / "image.png", **wanted)
    assert by_file["kind"] == "attack"
    by_pixels = client.attack(checkpoint, pixels / 255, **wanted)
    assert (by_pixels["id"], by_pixels["reused"]) == (by_file["id"], True), "the same in every field"
    by_number = client.attack(checkpoint, test_image=3, eps="16/255")
    assert client.run(by_number["id"])["spec"]["image"]["test_image"] == 3
    with pytest.raises(InvalidInput, match="test_image"):
        client.attack(checkpoint, eps="16/255")


def test_results_come_as_json_tables_pictures_and_data_frames(client: Client, queue: Queue, tmp_path: Path) -> None:
    queue.submit(variants=["default", "lif"], seeds=[0, 1])
    queue.work_off(measure)
    rows = client.leaderboard("digits")["rows"]
    frame = client.leaderboard_frame("digits")
    assert list(frame["robust_accuracy"]) == [row["robust_accuracy"]["mean"] for row in rows]
    assert len(client.matrix_frame("digits", metric="robust_accuracy")) == 2
    lines, frame = client.curves("digits")["lines"], client.curves_frame("digits")
    assert len(frame) == sum(1 + len(line["points"]) for line in lines), "each begins with the unchanged images"
    assert set(frame["dataset"]) == {"digits"}
    assert list(frame[frame["eps"] == 0]["row"]) == [""] * len(lines), "text, though it is empty"
    board = client.leaderboard_frame("digits")
    assert [str(board[name].dtype) for name in ("rank", "seeds")] == ["Int64"] * 2
    assert (board["settings"] == "").all()
    assert (board["as_published"].str.len() == 0).all()
    pair = [row["id"] for row in rows]
    assert set(client.compare_frame(*pair)["figure"]) == {
        "clean_accuracy", "clean_accuracy_subset", "robust_accuracy", "attack"
    }
    assert client.compare(*pair)["seeds"]["common"] == [0, 1]
    assert client.matrix("digits")["metric"] == "clean_accuracy"
    assert client.leaderboard_text("digits", "md").startswith("| rank |")
    assert client.picture("curves", str(tmp_path / "c.PNG"), dataset="digits").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in client.picture("compare", tmp_path / "c.svg", a=pair[0], b=pair[1]).read_bytes()
    with pytest.raises(InvalidInput, match="png"):
        client.picture("curves", tmp_path / "c.gif", dataset="digits")


def test_without_pandas_a_data_frame_names_what_to_install(
    client: Client, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pip install 'spikeproof\[pandas\]'"):
        client.leaderboard_frame("digits")


def test_catalogues_and_logs(client: Client, queue: Queue) -> None:
    assert "digits" in [d["name"] for d in client.datasets()]
    assert client.dataset("digits")["train_size"] == 1438
    assert {"resnet18", "resnet20"} <= {a["name"] for a in client.architectures()}
    assert client.architecture("resnet20")["totals"]["parameters"] > 0
    assert "pgd" in [a["name"] for a in client.attacks()]
    assert "quick" in [s["name"] for s in client.suites()]
    assert "quickstart" in [p["name"] for p in client.presets()]
    assert [run["kind"] for run in client.plan({"dataset": "digits", "variants": ["default"]})["runs"]] != []
    assert client.experiments() == []
    run = queue.runs(queue.submit())[0].id
    path = queue.data_dir / "runs" / run / "log.txt"
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\n")
    assert (client.log(run), client.log(run, tail=1)) == ("one\ntwo\n", "two\n")
    assert run_logs.size(queue.data_dir, run) == 8
    assert client.healthy()


def test_an_archived_experiment_is_found_among_the_archived(client: Client, queue: Queue) -> None:
    name = queue.submit()
    client.delete(name)
    assert [e["id"] for e in client.iter_experiments(archived=True)] == [name]
    client.cancel(name)
    assert client.delete(name, files=True)["state"] == "deleted"


def test_events_come_until_the_end_and_go_on_after_the_last_one(client: Client, queue: Queue) -> None:
    name = queue.submit()
    worker = threading.Thread(target=queue.work_off, args=(measure,))
    found: list[Event] = []
    for event in client.events(name):
        found.append(event)
        if len(found) == 1:
            worker.start()
    worker.join()
    assert found[-1].kind == "end"
    assert found[-1].data["state"] == "succeeded"
    numbered = [event for event in found if event.kind == "state"]
    assert "succeeded" in {event.data["state"] for event in numbered}
    later = list(client.events(name, last_id=numbered[0].id))
    assert all(int(e.id or 0) > int(numbered[0].id or 0) for e in later if e.kind == "state")
    assert list(client.events(name, last_id=found[-1].id)) == [] or later[-1].kind == "end"


def test_a_stream_is_read_as_the_standard_says() -> None:
    lines = [": a comment", "id: 3", "event: state", 'data: {"a":', "data:  1}", "", "", "data: {}", "", "data: {"]
    assert list(events_in(lines, "2")) == [Event("state", {"a": 1}, "3"), Event("message", {}, "3")]


def test_address_and_key_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from app.settings import settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKEPROOF_URL", "http://lab:1234")
    monkeypatch.setenv("SPIKEPROOF_API_KEY", "sesame")
    settings.cache_clear()
    try:
        with Client() as named, Client("http://other", api_key="") as other:
            assert named._http.base_url == "http://lab:1234"
            assert named._http.headers["authorization"] == "Bearer sesame"
            assert other._http.base_url == "http://other"
            assert "authorization" not in other._http.headers
    finally:
        settings.cache_clear()
