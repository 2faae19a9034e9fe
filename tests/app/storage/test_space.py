"""A full disk is known as such, on a real one: a small file system in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from sqlalchemy import text

from app.storage import artifacts
from app.storage.engine import Database
from app.storage.space import is_full
from tests.conftest import small_disk

BIG = np.zeros(1_000_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as folder:
        yield folder


def _state(path: Path) -> None:
    import torch

    from worker.training.loop import State
    from worker.training.resume import save_state

    state = State.__new__(State)
    vars(state).update(weights=torch.zeros(1_000_000))
    save_state(path, state, "key")


def _weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1_000_000)}, path)


def _arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=BIG)


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, BIG)


@pytest.mark.parametrize("write", [_state, _weights, _arrays, _array])
def test_whatever_writes_a_file_says_so_and_leaves_the_old_one_whole(disk: Path, write: Callable[[Path], None]) -> None:
    artifacts.publish(disk / "file", lambda path: path.write_bytes(b"old") and None)
    with pytest.raises((OSError, RuntimeError, SafetensorError)) as caught:
        artifacts.publish(disk / "file", write)
    assert is_full(caught.value), repr(caught.value)
    assert (disk / "file").read_bytes() == b"old"
    assert [p.name for p in disk.iterdir()] == ["file"], "nothing half-written takes the room that is left"


def test_sqlite_says_so(disk: Path) -> None:
    database = Database(f"sqlite:///{disk / 'a.db'}")
    with database.writing() as session:
        session.execute(text("CREATE TABLE t (x)"))
    with pytest.raises(Exception, match="full") as caught, database.writing() as session:
        session.execute(text("INSERT INTO t VALUES (randomblob(3000000))"))
    assert is_full(caught.value)
    database.close()


def test_other_errors_are_not_taken_for_it(tmp_path: Path) -> None:
    for error in (FileNotFoundError(2, "No such file"), RuntimeError("CUDA out of memory"), PermissionError(13, "no")):
        assert not is_full(error)
    with pytest.raises(RuntimeError) as caught:
        _hide()
    assert is_full(caught.value), "also where it is hidden behind another"


def _hide() -> None:
    try:
        raise OSError(28, "")
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598") from None
