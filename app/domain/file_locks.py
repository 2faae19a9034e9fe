"""Files that processes of several machines use at once, and that go when nobody does.

Whoever uses such a file holds a lock on it (`flock`: shared to read, exclusive to write), which ends with the process.
"""

import fcntl
import os
from pathlib import Path
from typing import IO


def locked(file: IO[bytes], kind: int = fcntl.LOCK_EX) -> bool:
    """Takes the lock where it can be had at once. Raises OSError on a mount without locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the open file is still the one at that path: it may have been removed before its lock was had."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def in_use(path: Path) -> bool:
    """Whether some process holds a lock on the file."""
    try:
        with path.open("r+b") as file:
            return not locked(file)
    except FileNotFoundError:
        return False


def remove_unused(path: Path) -> bool:
    """Removes the file; False where some process uses it, or where it is gone."""
    try:
        with path.open("r+b") as file:
            if not locked(file) or not is_at(file, path):
                return False
            path.unlink()
    except FileNotFoundError:
        return False
    return True
