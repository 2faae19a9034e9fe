"""What `gc` frees, and above all what it leaves alone."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.domain.errors import Conflict
from app.storage import garbage, runs
from app.storage.engine import Database
from app.storage.runs import Fence
from tests.app.work import Queue

OLD = 2 * garbage.GRACE_SECONDS


def put(data_dir: Path, name: str, *, age: float = OLD) -> str:
    """A file of the data folder; its relative name."""
    path = data_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    os.utime(path, (time.time() - age,) * 2)
    return name


def names(data_dir: Path, found: garbage.Survey) -> set[str]:
    return {one.path.relative_to(data_dir).as_posix() for one in found.garbage}


@pytest.fixture
def trained(queue: Queue, data_dir: Path) -> Fence:
    """A training that succeeded in its second attempt, with its file."""
    queue.submit()
    first = queue.must_claim()
    queue.do(runs.stop_or_requeue, first, "killed", count_try=True)
    fence = queue.must_claim()
    assert fence.run_id == first.run_id
    path = f"runs/{fence.run_id}/attempt-2/model.safetensors"
    queue.checkpoint(fence, path=path)
    queue.succeed(fence)
    put(data_dir, path)
    return fence


def test_superseded_attempts_and_leftovers_of_an_ended_training_go(
    queue: Queue, database: Database, data_dir: Path, trained: Fence
) -> None:
    folder = f"runs/{trained.run_id}"
    dead = {put(data_dir, f"{folder}/{name}") for name in (
        "attempt-1/model.safetensors", "attempt-1/epoch-2.safetensors", "attempt-2/.model.safetensors.99", "resume.pt",
        ".resume.pt.4711", "blocks/0000-1.npz")}  # fmt: skip
    kept = {put(data_dir, f"{folder}/log.txt"), f"{folder}/attempt-2/model.safetensors"}
    found = garbage.survey(database, data_dir)
    assert names(data_dir, found) == dead
    assert found.missing == []
    assert all((data_dir / name).exists() for name in dead), "a survey changes nothing"
    freed = garbage.remove(found)
    assert sum(one.size for one in freed) == 7 * len(dead)
    left = {p.relative_to(data_dir).as_posix() for p in (data_dir / folder).rglob("*") if p.is_file()}
    assert left == kept
    assert not (data_dir / folder / "attempt-1").exists()
    assert garbage.remove(garbage.survey(database, data_dir)) == []


def test_what_the_attempt_in_hand_wrote_stays_whatever_its_age_and_lease(
    queue: Queue, database: Database, data_dir: Path
) -> None:
    queue.submit()
    fence = queue.must_claim()
    folder = f"runs/{fence.run_id}"
    for name in ("attempt-1/model.safetensors", "blocks/0000-1.npz", "blocks/.0001-1.npz.5", "resume.pt", "log.txt"):
        put(data_dir, f"{folder}/{name}")
    assert names(data_dir, garbage.survey(database, data_dir)) == set()
    queue.expire(fence)
    assert names(data_dir, garbage.survey(database, data_dir)) == set()
    queue.do(runs.sweep)
    assert names(data_dir, garbage.survey(database, data_dir)) == {
        f"{folder}/attempt-1/model.safetensors", f"{folder}/blocks/0000-1.npz", f"{folder}/blocks/.0001-1.npz.5"
    }
    again = queue.must_claim()
    assert again.attempt == 2
    put(data_dir, f"{folder}/attempt-2/model.safetensors")
    assert f"{folder}/attempt-2/model.safetensors" not in names(data_dir, garbage.survey(database, data_dir))


def test_a_run_that_can_be_tried_again_keeps_what_it_would_go_on_from(
    queue: Queue, database: Database, data_dir: Path
) -> None:
    queue.submit()
    fence = queue.must_claim()
    queue.do(runs.fail, fence, "broken")
    put(data_dir, f"runs/{fence.run_id}/resume.pt")
    assert names(data_dir, garbage.survey(database, data_dir)) == set()


def test_young_files_stay_though_no_row_speaks_of_them_yet(database: Database, data_dir: Path, trained: Fence) -> None:
    put(data_dir, "runs/run_new/model.safetensors", age=0)
    put(data_dir, ".upload-abc/upload.safetensors", age=0)
    assert names(data_dir, garbage.survey(database, data_dir)) == set()


def test_an_import_that_is_killed_between_file_and_row_and_halves_of_files_go(
    database: Database, data_dir: Path, trained: Fence
) -> None:
    dead = {put(data_dir, name) for name in (
        "runs/run_gone/model.safetensors", "runs/run_gone/log.txt", ".upload-abc/upload.safetensors",
        "cache/datasets/.flowers-1.x/train_images.npy", "downloads/svhn/.train_32x32.mat.part")}  # fmt: skip
    kept = {put(data_dir, name) for name in (
        "datasets/flowers/train/rose/1.png", "weights/resnet18.pth", "cache/datasets/digits-1/info.json",
        "downloads/svhn/train_32x32.mat", "other.db", "leaderboard.json", "runs/notes.txt")}  # fmt: skip
    for folder in (".upload-abc", "cache/datasets/.flowers-1.x"):
        os.utime(data_dir / folder, (time.time() - OLD,) * 2)
    found = garbage.survey(database, data_dir)
    assert names(data_dir, found) == dead
    garbage.remove(found)
    assert all((data_dir / name).is_file() for name in kept)
    for gone in ("runs/run_gone", ".upload-abc", "cache/datasets/.flowers-1.x"):
        assert not (data_dir / gone).exists()


def test_features_of_frozen_layers_go_once_nobody_reads_or_writes_them(
    database: Database, data_dir: Path, trained: Fence
) -> None:
    unused, half = (put(data_dir, f"cache/features/{name}.npy") for name in ("unused", ".half"))
    put(data_dir, "cache/features/young.npy", age=0)
    read, later = (put(data_dir, f"cache/features/{name}.npy") for name in ("read", "later"))
    with (data_dir / read).open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        found = garbage.survey(database, data_dir)
        assert names(data_dir, found) == {unused, half, later}
        with (data_dir / later).open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            freed = garbage.remove(found)
    assert {one.path.name for one in freed} == {"unused.npy", ".half.npy"}
    assert {path.name for path in (data_dir / "cache/features").iterdir()} == {"young.npy", "read.npy", "later.npy"}


def test_a_run_that_ends_between_two_looks_at_the_database_keeps_its_files(
    queue: Queue, database: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.submit()
    fence = queue.must_claim()
    path = f"runs/{fence.run_id}/attempt-{fence.attempt}/model.safetensors"
    put(data_dir, path)
    ends = iter([lambda: (queue.checkpoint(fence, path=path), queue.succeed(fence))])

    def and_it_ends(look: Callable[[Session], Any]) -> Callable[[Session], Any]:
        def looks(session: Session) -> Any:
            found = look(session)
            found = found if isinstance(found, dict) else list(found)
            for end in ends:
                end()
            return found

        return looks

    for name in ("references", "run_states"):
        monkeypatch.setattr(garbage, name, and_it_ends(getattr(garbage, name)))
    assert names(data_dir, garbage.survey(database, data_dir)) == set()


def test_files_outside_are_not_reached_through_a_link(database: Database, data_dir: Path, trained: Fence) -> None:
    outside = data_dir.parent / "outside"
    put(outside, "precious.txt")
    (data_dir / "runs" / "run_link").symlink_to(outside)
    (data_dir / "runs" / trained.run_id / "attempt-1").symlink_to(outside)
    garbage.remove(garbage.survey(database, data_dir))
    assert (outside / "precious.txt").exists()


def test_a_row_whose_file_is_gone_is_reported(database: Database, data_dir: Path, trained: Fence) -> None:
    (data_dir / f"runs/{trained.run_id}/attempt-2/model.safetensors").unlink()
    [lost] = garbage.survey(database, data_dir).missing
    assert lost.of.startswith("checkpoint ckpt_")


def test_the_database_of_another_service_frees_nothing(database: Database, data_dir: Path) -> None:
    put(data_dir, "runs/run_precious/attempt-1/model.safetensors")
    with pytest.raises(Conflict, match="knows none of the 1 runs"):
        garbage.survey(database, data_dir)
    assert len(garbage.survey(database, data_dir, force=True).garbage) == 1


def test_a_file_that_gets_its_row_while_gc_looks_stays(queue: Queue, database: Database, data_dir: Path) -> None:
    """Jobs publish as fast as they can while the collector, with no grace at all, frees whatever it takes for dead."""
    written: list[str] = []
    done = threading.Event()

    def work() -> None:
        for number in range(8):
            queue.submit(fresh=True, priority=number)  # its training comes before the evaluations that wait by now
            fence = queue.must_claim()
            path = f"runs/{fence.run_id}/attempt-{fence.attempt}/model.safetensors"
            put(data_dir, path)
            queue.checkpoint(fence, path=path)
            queue.succeed(fence)
            written.append(path)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set() and worker.is_alive():
        garbage.remove(garbage.survey(database, data_dir, grace_seconds=0, force=True))
    worker.join()
    assert len(written) == 8
    assert [name for name in written if not (data_dir / name).exists()] == []
