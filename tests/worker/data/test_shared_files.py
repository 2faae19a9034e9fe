"""Arrays in files that several jobs share: computed once, within a budget, whatever becomes of who writes them."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from worker.data.shared_files import HEADER_BYTES, SharedFiles

SHAPE, DTYPE = (6, 4), np.dtype("float32")
ONE = 96 + HEADER_BYTES  # bytes of such an array's file
WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from worker.data.shared_files import SharedFiles

def parts():
    yield np.ones((3, 4), "float32")
    print("half", flush=True)
    time.sleep(60)

SharedFiles(Path(sys.argv[1]), 10_000).get(sys.argv[2], (6, 4), np.dtype("float32"), parts)
"""


def content(value: float) -> Iterator[np.ndarray]:
    yield np.full((4, 4), value)
    yield np.full((2, 4), value + 1)


def never() -> Iterator[np.ndarray]:
    raise AssertionError("it is there already")


def get(files: SharedFiles, key: str, value: float = 1.0) -> np.memmap:
    kept = files.get(key, SHAPE, DTYPE, lambda: content(value))
    assert kept is not None
    return kept


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.npy")}


def test_an_array_is_computed_once_and_read_as_it_was(tmp_path: Path) -> None:
    files = SharedFiles(tmp_path / "features", 1000)
    first = get(files, "a", 3.0)
    again = files.get("a", SHAPE, DTYPE, never)
    assert again is not None
    for kept in (first, again):
        assert isinstance(kept, np.memmap)
        assert kept.dtype == DTYPE
        assert kept[:, 0].tolist() == [3, 3, 3, 3, 4, 4]
    assert names(files.folder) == {"a.npy"}
    assert np.array_equal(np.load(files.folder / "a.npy"), first), "any program can read it"
    assert (files.folder / "a.npy").stat().st_size == ONE


def test_who_wants_what_another_computes_waits_for_it_and_says_so(tmp_path: Path) -> None:
    begun, told, found = threading.Event(), threading.Event(), []

    def slowly() -> Iterator[np.ndarray]:
        begun.set()
        assert told.wait(10)
        yield from content(1.0)

    def hear(phase: str) -> None:
        assert "another job computes" in phase
        told.set()

    writer = threading.Thread(target=lambda: found.append(SharedFiles(tmp_path, 1000).get("a", SHAPE, DTYPE, slowly)))
    writer.start()
    assert begun.wait(10)
    waited = SharedFiles(tmp_path, 1000, hear).get("a", SHAPE, DTYPE, never)
    writer.join()
    assert waited is not None
    assert np.array_equal(waited, found[0])


def test_what_a_killed_writer_left_is_written_anew_and_holds_no_room(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, key], stdout=subprocess.PIPE) for key in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == b"half\n"
    assert SharedFiles(tmp_path, 2 * ONE).get("c", SHAPE, DTYPE, never) is None, "both are being written, and count"
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert names(tmp_path) == {".a.npy", ".b.npy"}
    assert get(SharedFiles(tmp_path, 3 * ONE), "a")[0, 0] == 1
    assert names(tmp_path) == {"a.npy"}


@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_a_full_disk_costs_the_array_and_leaves_nothing(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if at == "fsync" else (Path, "rename")), full)
        assert SharedFiles(tmp_path, 1000, told.append).get("a", SHAPE, DTYPE, lambda: content(1.0)) is None
    assert told == ["features are not kept: No space left on device"]
    assert names(tmp_path) == set()
    get(SharedFiles(tmp_path, 1000), "a")


def test_what_stops_the_job_while_it_computes_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> Iterator[np.ndarray]:
        yield np.zeros((3, 4))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SharedFiles(tmp_path, 1000).get("a", SHAPE, DTYPE, stopped)
    assert names(tmp_path) == set()


def test_the_longest_unused_goes_for_a_new_one_and_what_is_read_never(tmp_path: Path) -> None:
    files = SharedFiles(tmp_path, 2 * ONE)
    for age, key in enumerate(("new", "old")):
        get(files, key)
        os.utime(tmp_path / f"{key}.npy", (1e9 - age, 1e9 - age))
    reading = get(files, "third")
    assert names(tmp_path) == {"new.npy", "third.npy"}
    also = get(files, "new")
    assert files.get("fourth", SHAPE, DTYPE, never) is None
    assert names(tmp_path) == {"new.npy", "third.npy"}
    assert reading[0, 0] == also[0, 0] == 1
    del also
    get(files, "fourth")
    assert names(tmp_path) == {"fourth.npy", "third.npy"}


def test_what_is_larger_than_all_room_drives_nothing_out(tmp_path: Path) -> None:
    get(SharedFiles(tmp_path, ONE), "a")
    assert SharedFiles(tmp_path, ONE).get("b", (7, 4), DTYPE, never) is None
    assert SharedFiles(tmp_path, 0).get("a", SHAPE, DTYPE, never) is None
    assert names(tmp_path) == {"a.npy"}


def test_a_new_array_leaves_half_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"free": 2 * ONE - 1}
    monkeypatch.setattr("worker.data.shared_files.shutil.disk_usage", lambda _: type("Usage", (), free))
    assert SharedFiles(tmp_path, 1000).get("a", SHAPE, DTYPE, never) is None
    assert names(tmp_path) == set()
    free["free"] += 1
    get(SharedFiles(tmp_path, 1000), "a")


@pytest.mark.parametrize("damage", ["cut short", "another array", "no array"])
def test_a_file_that_is_not_the_array_is_replaced(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    get(SharedFiles(tmp_path, 1000), "a")
    if damage == "cut short":
        os.truncate(path, ONE - 1)
    elif damage == "another array":
        np.save(path, np.zeros((4, 6), DTYPE))
    else:
        path.write_bytes(b"no array")
    assert get(SharedFiles(tmp_path, 1000), "a", 5.0)[0, 0] == 5
