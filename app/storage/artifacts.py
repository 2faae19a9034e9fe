"""Files in the data folder. Written beside, fsynced, then renamed; the database has relative paths.

    DATA_DIR/runs/RUN_ID/attempt-2/model.safetensors   published by the last write of the attempt
    DATA_DIR/runs/RUN_ID/model.safetensors             the same of a run that stands for weights from elsewhere
    DATA_DIR/weights/resnet50.pth                       pretrained weights, in place of the download
    DATA_DIR/runs/RUN_ID/resume.pt                      where training goes on after a crash
    DATA_DIR/runs/RUN_ID/blocks/0003-2.npz              block 3 of an evaluation, by attempt 2
    DATA_DIR/runs/RUN_ID/attempt-1/gallery-0.png       examples of an evaluation at its smallest radius
    DATA_DIR/runs/RUN_ID/log.txt                        what its processes printed
    DATA_DIR/datasets/NAME/{train,test}/CLASS/*         data sets of one's own
    DATA_DIR/downloads/NAME/...                         files of published data sets
    DATA_DIR/cache/datasets/...                         both, decoded once
    DATA_DIR/cache/features/KEY.npy                     what frozen layers put out, see `worker.training.features`
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

LOG_TAIL_BYTES = 64 * 1024


def run_folder(data_dir: Path, run_id: str) -> Path:
    """The run's folder, made if need be."""
    folder = data_dir / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def attempt_folder(data_dir: Path, run_id: str, attempt: int) -> Path:
    """What one attempt writes; nothing reads it before the attempt's last write has succeeded."""
    folder = run_folder(data_dir, run_id) / f"attempt-{attempt}"
    folder.mkdir(exist_ok=True)
    return folder


def features_folder(data_dir: Path) -> Path:
    """Where the outputs of frozen layers are kept: nothing that could not be computed again."""
    return data_dir / "cache" / "features"


def relative(data_dir: Path, path: Path) -> str:
    """The path as the database keeps it."""
    return path.resolve().relative_to(data_dir.resolve()).as_posix()


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a path beside, then fsyncs and renames: `path` is whole or absent."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Makes a rename in it outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def log_path(data_dir: Path, run_id: str) -> Path:
    """Where all attempts of the run print."""
    return run_folder(data_dir, run_id) / "log.txt"


def read_log(data_dir: Path, run_id: str, tail: int = LOG_TAIL_BYTES) -> str:
    """The last `tail` bytes of the run's log."""
    path = data_dir / "runs" / run_id / "log.txt"
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - tail))
        return log.read().decode("utf-8", "replace")


def folder_bytes(folder: Path) -> int:
    """What the files below it take, by their lengths; 0 where there is no such folder."""
    return sum(file_bytes(Path(place, name)) for place, _, names in os.walk(folder) for name in names)


def file_bytes(path: Path) -> int:
    """The file's length; 0 where there is none."""
    try:
        return path.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):  # a job renames and removes meanwhile
        return 0


def runs_bytes(data_dir: Path, run_ids: Iterable[str]) -> int:
    """What the folders of these runs take."""
    return sum(folder_bytes(data_dir / "runs" / run_id) for run_id in run_ids)


def remove_runs(data_dir: Path, run_ids: Iterable[str]) -> int:
    """Removes the folders of runs whose rows are gone; returns the bytes freed. What cannot be removed, `gc` finds."""
    freed = 0
    for run_id in run_ids:
        folder = data_dir / "runs" / run_id
        size = folder_bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        freed += size - folder_bytes(folder)
    return freed
