"""A name for each request: in its answer, in the trail, and in the log."""

import re
import secrets

from fastapi import Request

HEADER = "X-Request-ID"
_FIT = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(request: Request) -> str:
    """As the client says, where that is fit to be written down; else one made here."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get(HEADER, "")
        request.state.request_id = given if _FIT.fullmatch(given) else f"req_{secrets.token_hex(8)}"
    return str(request.state.request_id)
