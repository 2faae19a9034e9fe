"""Publishing weights of one's own: a file where a row is, and nowhere else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sqlalchemy.exc import SQLAlchemyError

from app.domain.imports import read_declared
from app.inference.imports import CheckedWeights, examine, register
from app.storage.engine import Database
from models.registry import ModelSpec, build


@pytest.fixture
def weights(tmp_path: Path, data_dir: Path) -> CheckedWeights:
    torch.manual_seed(0)
    path = tmp_path / "weights"
    save_file(build(ModelSpec("resnet20", "default", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))).state_dict(), path)
    return examine(path, read_declared({"dataset": "digits", "architecture": "resnet20"}), data_dir)


def test_a_database_that_refuses_the_row_leaves_no_file(
    weights, data_dir, empty_database: Database, monkeypatch
) -> None:
    monkeypatch.setattr("app.inference.imports._existing", lambda *_: None)  # as if it broke only after this look
    with pytest.raises(SQLAlchemyError):
        register(empty_database, data_dir, weights)
    assert list((data_dir / "runs").iterdir()) == []


def test_someone_faster_with_the_same_file_wins_and_one_file_is_left(
    weights, data_dir, database: Database, monkeypatch
) -> None:
    first, new = register(database, data_dir, weights)
    monkeypatch.setattr("app.inference.imports._existing", lambda *_: None)  # looked before the other had stored it
    second, again = register(database, data_dir, weights)
    assert (new, again) == (True, False)
    assert second.id == first.id
    assert [p.name for p in (data_dir / "runs").iterdir()] == [first.run_id]


def test_looking_at_weights_leaves_torchs_random_numbers_as_they_were(weights, tmp_path) -> None:
    before = torch.random.get_rng_state()
    weights.write(tmp_path / "written")
    assert torch.equal(torch.random.get_rng_state(), before)
