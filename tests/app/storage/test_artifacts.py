"""Files are whole or absent."""

from pathlib import Path

import pytest

from app.storage import artifacts


def test_a_published_file_has_what_was_written_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    artifacts.publish(tmp_path / "a.bin", lambda path: path.write_bytes(b"new") and None)
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        artifacts.publish(tmp_path / "a.bin", write)
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_nobody_sees_a_half_written_file(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        assert not (tmp_path / "a.bin").exists()
        assert path.parent == tmp_path, "a rename is atomic only within one file system"

    artifacts.publish(tmp_path / "a.bin", write)


def test_each_attempt_writes_into_a_folder_of_its_own(tmp_path: Path) -> None:
    one, two = (artifacts.attempt_folder(tmp_path, "run_1", n) for n in (1, 2))
    assert one != two
    assert artifacts.relative(tmp_path, two / "model.safetensors") == "runs/run_1/attempt-2/model.safetensors"


def test_a_path_outside_the_data_folder_has_no_relative_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in the subpath"):
        artifacts.relative(tmp_path / "data", tmp_path / "elsewhere")


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    assert artifacts.read_log(tmp_path, "run_1") == ""
    artifacts.log_path(tmp_path, "run_1").write_text("old\n" * 100 + "n\u00e9w\n")
    assert artifacts.read_log(tmp_path, "run_1", tail=5) == "n\u00e9w\n"
