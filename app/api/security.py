"""Who may come in: keys where the service can be reached from elsewhere, nobody but this machine where it cannot.

A request names its key as `Authorization: Bearer KEY` or `X-API-Key: KEY`; a browser that signed in, as a cookie.
"""

from typing import Annotated
from urllib.parse import unquote_plus

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import errors
from app.api.dependencies import Services
from app.api.limits import RateLimit, address_of, check_head
from app.api.requests import request_id
from app.api.ui.html import page
from app.dashboard.rendering import sign_in_page
from app.domain.access import LOCAL, Actor, Role, covers, is_loopback, keys_needed, name_in, role_needed
from app.domain.errors import Forbidden, Misdirected, NotFound, ServiceUnavailable, SpikeproofError, Unauthorized
from app.logs import get_logger
from app.storage import api_keys
from app.storage.engine import Database
from app.storage.tables import ApiKey

COOKIE = "spikeproof_key"
SIGNED_IN = "spikeproof_signed_in"  # tells scripts, which cannot see the key, that there is one
SIGN_IN = "/ui/sign-in"
KEY_GONE = "The key of this browser is not known here any more, or was revoked."
_WHICH_KEY = f"a key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY; a browser signs in at {SIGN_IN}"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
logger = get_logger(__name__)


class Gate:
    """ASGI middleware: knows who asks, and lets in who may. What it refuses, nothing behind it has seen."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app, self._database = app, services.database
        self._closed = keys_needed(services.settings.keys, services.settings.reached_at)
        self._names = {name_in(name) for name in services.settings.allowed_hosts.split(",")} - {""}
        self._limit = RateLimit(services.settings.rate_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            request.state.actor = await self._admit(request)
            _check_name(request)
        except SpikeproofError as refused:
            await refusal(request, refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _admit(self, request: Request) -> Actor:
        """Who asks. Raises what refuses them."""
        check_head(request)
        _check_one_host(request)
        needed = role_needed(request.method, _path(request))
        if needed is None:
            return self._at_an_open_door(request)
        given = _given_key(request)
        row = None if given is None else await run_in_threadpool(self._find, given)
        self._limit.take(address_of(request) if row is None else row.id)
        self._check_origin(request)
        if row is None:
            if given is not None and _in_headers(request):
                raise Unauthorized("the key is not known here, or was revoked")
            return self._without_a_key(request)
        return _checked(_actor(row, request), needed)

    def _at_an_open_door(self, request: Request) -> Actor:
        if _path(request) != "/healthz":
            self._limit.take(address_of(request))
        self._check_origin(request)
        return Actor("anyone", "reader", request_id=request_id(request))

    def _without_a_key(self, request: Request) -> Actor:
        if self._closed:
            raise Unauthorized(_WHICH_KEY if COOKIE not in request.cookies else f"{KEY_GONE} Sign in at {SIGN_IN}")
        self._check_host(request)
        return Actor(LOCAL.name, LOCAL.role, request_id=request_id(request))

    def _check_host(self, request: Request) -> None:
        """A page of any site may have its name lead to this machine; the browser still says that name."""
        name = name_in(request.headers.get("host", ""))
        if not is_loopback(name) and name not in self._names:
            known = ", ".join(["localhost", *sorted(self._names)])
            raise Misdirected(
                f"without keys the service answers to {known} alone; set SPIKEPROOF_ALLOWED_HOSTS for another name, or"
                " SPIKEPROOF_KEYS=always"
            )

    def _check_origin(self, request: Request) -> None:
        """A page of any site may send a form here; the browser says where the page is from."""
        origin = request.headers.get("origin")
        if request.method in SAFE or origin is None:
            return
        own = request.headers.get("host", "")
        if origin.partition("://")[2].lower() != own.lower() and name_in(origin) not in self._names:
            raise Forbidden("a page of another site may not change anything here")

    def _find(self, key: str) -> ApiKey | None:
        try:
            return find_key(self._database, key)
        except SQLAlchemyError as error:
            logger.warning("the database did not answer", error=type(error).__name__)
            raise ServiceUnavailable("the database does not answer now, or is too busy; try again") from error


def find_key(database: Database, key: str) -> ApiKey | None:
    """The live key's row; notes its use, once a minute."""
    with database.reading() as session:
        row = api_keys.find(session, key)
        stale = row is not None and api_keys.use_is_old(session, row)
    if row is not None and stale:
        _note_use(database, row.id)
    return row


def _note_use(database: Database, key_id: str) -> None:
    """Not worth a refusal where it fails."""
    try:
        with database.writing() as session:
            api_keys.note_use(session, key_id)
    except SQLAlchemyError as error:
        logger.warning("the use of a key was not noted", key=key_id, error=type(error).__name__)


def refusal(request: Request, refused: SpikeproofError) -> Response:
    """What a request that is not let in is told; a browser is asked for a key."""
    if isinstance(refused, Unauthorized) and request.method == "GET" and _is_a_browser(request):
        problem = KEY_GONE if request.cookies.get(COOKIE) else ""
        return page(sign_in_page(_asked_for(request), problem), refused.status, errors.headers_of(refused))
    return errors.problem_of(request, refused)


def _path(request: Request) -> str:
    """As the router sees it. `request.url` is put together with the Host header, which may hold a path of its own."""
    return str(request.scope["path"])


def _asked_for(request: Request) -> str:
    """Path and query: where a browser goes once it has signed in."""
    query = request.scope["query_string"].decode("latin-1")
    return _path(request) + (f"?{query}" if query else "")


def _given_key(request: Request) -> str | None:
    return _in_headers(request) or request.cookies.get(COOKIE) or None


def _in_headers(request: Request) -> str | None:
    """A scheme other than Bearer is for a proxy before us."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip() or "no key"
    return request.headers.get("x-api-key")


def _check_one_host(request: Request) -> None:
    """RFC 9112, 3.2: of two names a proxy before us may have believed the other one."""
    if len(request.headers.getlist("host")) > 1:
        raise Misdirected("a request has one Host header, this one has several")


def _check_name(request: Request) -> None:
    """Nothing's name has a NUL, and Postgres takes none."""
    if "\x00" in _path(request) + unquote_plus(request.scope["query_string"].decode("latin-1")):
        raise NotFound("there is nothing whose name holds the character NUL")


def _is_a_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _actor(row: ApiKey, request: Request) -> Actor:
    role: Role = row.role  # type: ignore[assignment]  # the column is plain text
    return Actor(row.name, role, row.id, request_id(request))


def _checked(actor: Actor, needed: Role) -> Actor:
    if not covers(actor.role, needed):
        raise Forbidden(f"this needs the role {needed}; the key {actor.name!r} has the role {actor.role}")
    return actor


async def get_actor(request: Request) -> Actor:
    """Who asks. Not a plain function: see `get_services`."""
    actor: Actor = request.state.actor
    return actor


ActorOf = Annotated[Actor, Depends(get_actor)]
