"""`/ui/sign-in`: a browser hands in its key once, and has it as a cookie that no page can read."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from app.api.dependencies import ServicesOf
from app.api.security import COOKIE, SIGNED_IN, find_key
from app.api.ui.html import page
from app.dashboard.rendering import sign_in_page

router = APIRouter(prefix="/ui", include_in_schema=False)


@router.get("/sign-in")
def form(request: Request, services: ServicesOf, then: str = "/") -> HTMLResponse:
    """The form, and whom this browser is signed in as."""
    key = request.cookies.get(COOKIE)
    row = find_key(services.database, key) if key else None
    return page(sign_in_page(_own(then), "", f"{row.name}, with the role {row.role}" if row else None))


@router.post("/sign-in")
async def sign_in(
    request: Request, services: ServicesOf, key: Annotated[str, Form()], then: Annotated[str, Form()] = "/"
) -> Response:
    """Sends the browser on, with the cookie."""
    if await run_in_threadpool(find_key, services.database, key.strip()) is None:
        return page(sign_in_page(_own(then), "This key is not known here, or was revoked."), 401)
    response = RedirectResponse(_own(then), 303)
    https = request.url.scheme == "https"
    response.set_cookie(COOKIE, key.strip(), httponly=True, samesite="strict", secure=https)
    response.set_cookie(SIGNED_IN, "1", samesite="strict", secure=https)
    return response


@router.post("/sign-out")
def sign_out() -> Response:
    """Forgets the key in this browser."""
    response = RedirectResponse("/ui/sign-in", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    response.delete_cookie(SIGNED_IN, samesite="strict")
    return response


def _own(then: str) -> str:
    """A page of this service, never one elsewhere: `//evil` and `/\\\\evil` lead away."""
    fits = then.startswith("/") and then[1:2] not in ("/", "\\") and then.isprintable()
    return then if fits else "/"
