"""Who may do what: roles, and the one that a request needs.

    covers("submitter", "reader")                          # True
    role_needed("POST", "/experiments")                    # "submitter"
    role_needed("GET", "/healthz")                         # None: open to all
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

Role = Literal["reader", "submitter", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/ui/sign-in", "/ui/sign-out"})
_BY_METHOD: dict[str, Role] = {"GET": "reader", "HEAD": "reader", "OPTIONS": "reader", "POST": "submitter"}
_ASSETS = re.compile(r"/ui/static/[^/]+")  # the page that asks for a key has its style too
_EXCEPTIONS: tuple[tuple[str, re.Pattern[str], Role], ...] = (
    ("POST", re.compile(r"/checkpoints/[^/]+/(predict|neurons)"), "reader"),  # stores nothing
    ("POST", re.compile(r"/experiments/plan"), "reader"),
    ("POST", re.compile(r"/v2/models/.+/infer"), "reader"),
    ("GET", re.compile(r"/trail"), "admin"),
)


@dataclass(frozen=True)
class Actor:
    """Who does it: a key, or whoever sits at this machine. `request_id` finds the request in the log."""

    name: str
    role: Role
    key_id: str | None = None
    request_id: str | None = None


LOCAL = Actor("local", "admin")


def covers(role: Role, needed: Role) -> bool:
    """Whether `role` may do what `needed` may."""
    return ROLES.index(role) >= ROLES.index(needed)


def role_needed(method: str, path: str) -> Role | None:
    """None: nobody is asked. A new path needs what its method says, and what is no known method an admin."""
    method = "GET" if method == "HEAD" else method
    if path in OPEN or (method == "GET" and _ASSETS.fullmatch(path)):
        return None
    special = (role for of, pattern, role in _EXCEPTIONS if of == method and pattern.fullmatch(path))
    return next(special, _BY_METHOD.get(method, "admin"))


def keys_needed(rule: Literal["auto", "always"], reached_at: str) -> bool:
    """Whether a service that clients reach at this address asks for keys."""
    return rule == "always" or not is_loopback(reached_at)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the name or address; a name is not looked up."""
    name = host.strip().strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def name_in(authority: str) -> str:
    """The name in a `Host` or `Origin` header: `name_in("[::1]:8000")` -> `"::1"`; empty where there is none."""
    try:
        parts = urlsplit(authority if "//" in authority else f"//{authority}")
        return "" if "@" in parts.netloc else (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""
