"""What the processes of a run printed, read by the byte while it is being written.

    text, offset = read(data_dir, run_id, offset=0, limit=65536)     # go on at offset + len(text)
"""

from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

PIECE_BYTES = 64 * 1024


def size(data_dir: Path, run_id: str) -> int:
    """Bytes so far; 0 where nothing was printed."""
    try:
        return _path(data_dir, run_id).stat().st_size
    except FileNotFoundError:
        return 0


def read(data_dir: Path, run_id: str, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from there on; what is cut off is cut behind a line's end, where there is one."""
    try:
        with _path(data_dir, run_id).open("rb") as log:
            log.seek(offset)
            text = log.read(limit + 1)
    except FileNotFoundError:
        return b""
    if len(text) <= limit:
        return text
    return text[: text.rfind(b"\n", 0, limit) + 1] or text[:limit]


def last_lines(data_dir: Path, run_id: str, lines: int, limit: int) -> tuple[bytes, int]:
    """The last lines, of at most `limit` bytes together, and the offset of the first."""
    end = size(data_dir, run_id)
    start = max(0, end - limit)
    found = read(data_dir, run_id, start, end - start)
    at = len(found.rstrip(b"\n"))
    for _ in range(lines):
        at = found.rfind(b"\n", 0, at)
        if at < 0:
            break
    return found[at + 1 :], start + at + 1


def _path(data_dir: Path, run_id: str) -> Path:
    return data_dir / "runs" / run_id / "log.txt"


class LogTails:
    """The logs of runs that somebody watches, whole lines at a time. Several may ask for the same piece."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._offsets: dict[str, int] = {}
        self._pieces: dict[str, list[dict[str, Any]]] = {}

    def follow(self, run_ids: Iterable[str]) -> None:
        """From their present ends on, where they are not followed yet."""
        for run_id in run_ids:
            self._offsets.setdefault(run_id, size(self._data_dir, run_id))

    def keep(self, run_ids: Set[str]) -> None:
        """No others are followed any more."""
        for run_id in self._offsets.keys() - run_ids:
            del self._offsets[run_id]

    def of(self, run_id: str) -> list[dict[str, Any]]:
        """What is new since the last `read_on`: nothing, or one piece with the offset of its first byte."""
        if run_id not in self._pieces:
            self._pieces[run_id] = self._read(run_id)
        return self._pieces[run_id]

    def read_on(self) -> None:
        """What was asked for counts as read."""
        self._pieces.clear()

    def _read(self, run_id: str) -> list[dict[str, Any]]:
        offset = self._offsets.setdefault(run_id, size(self._data_dir, run_id))
        text = read(self._data_dir, run_id, offset, PIECE_BYTES)
        whole = text.rfind(b"\n") + 1  # the last line may be half written
        text = text[:whole] if whole or len(text) < PIECE_BYTES // 2 else text
        self._offsets[run_id] = offset + len(text)
        lines = text.decode("utf-8", "replace").splitlines()
        return [{"run": run_id, "offset": offset, "lines": lines}] if lines else []
