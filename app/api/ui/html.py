"""What holds for every page."""

from collections.abc import Mapping

from fastapi.responses import HTMLResponse

# Scripts and pictures come from this service alone. Charts set styles on their elements, and are made into pictures
# by way of blob: and data: addresses.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def page(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """A page as an answer."""
    return HTMLResponse(text, status, {"Content-Security-Policy": POLICY, "Vary": "Accept", **(headers or {})})
