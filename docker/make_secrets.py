"""Makes the passwords of the lab server, once: `python make_secrets.py FOLDER`.

    FOLDER/database/  password      what Postgres starts its database with
                      url           where the service finds it
    FOLDER/broker/    password      for Redis' health check
                      redis.conf    what Redis starts with
                      url           where the service finds it

Each subfolder is a volume of its own, mounted only where it is needed. What is there is never overwritten.
Needs nothing but Python.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MODE = 0o440  # the service owns the files; the server that needs them joins its group


def make_secrets(folder: Path) -> None:
    """Writes what is missing, so that a second run, or two at once, or one after a crash, change nothing."""
    database, broker = folder / "database", folder / "broker"
    for place in (database, broker):
        place.mkdir(mode=0o750, parents=True, exist_ok=True)
    password = _keep_or_make(database / "password", lambda: secrets.token_urlsafe(32))
    _keep_or_make(database / "url", lambda: f"postgresql://spikeproof:{password}@postgres:5432/spikeproof")
    password = _keep_or_make(broker / "password", lambda: secrets.token_urlsafe(32))
    _keep_or_make(broker / "redis.conf", lambda: f"requirepass {password}\n")
    _keep_or_make(broker / "url", lambda: f"redis://:{password}@redis:6379/0")


def _keep_or_make(path: Path, make: Callable[[], str]) -> str:
    """The file's content. A link is atomic and fails where the name is taken: never half a file, never another."""
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as draft:
            draft.write(make())
            draft.flush()
            os.fchmod(draft.fileno(), MODE)
            os.fsync(draft.fileno())
            with suppress(FileExistsError):
                os.link(draft.name, path)
        _sync(path.parent)  # Postgres is about to keep the password for good
        print(f"made {path}", flush=True)
    return path.read_text()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_secrets.py FOLDER")
    try:
        make_secrets(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"make_secrets.py: {error}")
