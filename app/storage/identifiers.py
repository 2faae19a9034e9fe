"""Names of rows: a prefix, the time in nanoseconds, eight random characters. They sort by creation."""

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """`new_id("run")` -> `"run_01kq3v9c4f8d2abcdefgh"`; later calls of a process sort later."""
    global _last
    with _lock:
        _last = stamp = max(time.time_ns(), _last + 1)
    return f"{prefix}_{_encode(stamp, 13)}{_encode(secrets.randbits(40), 8)}"


def _encode(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(length)))
