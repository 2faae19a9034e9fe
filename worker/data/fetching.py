"""A file from the network: whole under its name, or not there at all."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

TIMEOUT_SECONDS = 30.0  # without a single byte
SLOWEST = 10_000  # bytes a second, on average; below that it is as good as none
CHUNK = 2**16


class NotFetched(Exception):
    """No address gave the file; the text has the reason of each."""


def fetch(addresses: Sequence[str], target: Path, *, md5: str, tell: Callable[[str], None]) -> None:
    """Writes beside and renames, so that half a file is never found. To be called by one process at a time.

    Addresses are tried in their order. `tell` hears how far it is; what it raises ends the download. Raises
    NotFetched, or OSError when the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    reasons = []
    try:
        for address in addresses:
            try:
                if _write(_chunks(address, tell), beside) == md5:
                    beside.replace(target)
                    return
                reasons.append(f"{_host(address)}: what came is not the published file, its md5 differs")
            except NotFetched as error:
                reasons.append(f"{_host(address)}: {error}")
    finally:
        beside.unlink(missing_ok=True)
    raise NotFetched("; ".join(reasons))


def _write(chunks: Iterator[bytes], path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _chunks(address: str, tell: Callable[[str], None]) -> Iterator[bytes]:
    """Raises NotFetched for whatever the network does."""
    name = address.rpartition("/")[2]
    tell(f"downloading {name}")
    request = Request(address, headers={"User-Agent": "spikeproof"})
    started, done = time.monotonic(), 0
    try:
        with build_opener().open(request, timeout=TIMEOUT_SECONDS) as response:  # through a proxy where one is set
            total = response.length
            while chunk := response.read1(CHUNK):
                done += len(chunk)
                if time.monotonic() - started > TIMEOUT_SECONDS + done / SLOWEST:
                    raise NotFetched(f"too slow, {done} bytes so far")
                tell(f"downloading {name}, {done / total:.0%}" if total else f"downloading {name}, {done >> 20} MiB")
                yield chunk
    except HTTPError as error:
        error.close()
        raise NotFetched(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise NotFetched(_reason(error)) from error
    if total is not None and done < total:
        raise NotFetched(f"the connection broke off after {done} of {total} bytes")


def _reason(error: Exception) -> str:
    """`"Name or service not known"`, `"timed out"`."""
    if isinstance(error, URLError):
        return _reason(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _host(address: str) -> str:
    return urlsplit(address).netloc
