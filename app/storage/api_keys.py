"""API keys: 256 random bits, of which only a SHA-256 is stored.

    row, key = create(session, "ada", "submitter")     # the key is never seen again
    find(session, key)                                 # the row, or None
"""

import hashlib
import hmac
import secrets

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.domain.access import Role
from app.domain.errors import Conflict, NotFound
from app.storage.engine import now_epoch
from app.storage.identifiers import new_id
from app.storage.tables import ApiKey

START = "spk_"  # so that a key is known for one where it lies about
SHOWN = 10  # characters of a key that are kept to tell it from others
LONGEST = 200
USED_SECONDS = 60.0  # `last_used_at` is no more exact than this: else every request were a write


def create(session: Session, name: str, role: Role) -> tuple[ApiKey, str]:
    """The row, and the key itself. Raises Conflict where a live key has the name."""
    if _live_of(session, name) is not None:
        raise Conflict(f"there is a key {name!r} already; revoke it, or choose another name")
    key = START + secrets.token_urlsafe(32)
    row = ApiKey(id=new_id("key"), name=name, role=role, hash=_hash(key), prefix=key[:SHOWN])
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, key


def find(session: Session, key: str) -> ApiKey | None:
    """The row of a key that was not revoked."""
    if len(key) > LONGEST:
        return None
    digest = _hash(key)
    row = session.scalar(select(ApiKey).where(ApiKey.hash == digest, ApiKey.revoked_at.is_(None)))
    return row if row is not None and hmac.compare_digest(row.hash, digest) else None


def use_is_old(session: Session, row: ApiKey) -> bool:
    """Whether its use is to be noted again."""
    now = session.scalar(now_epoch().select())
    return row.last_used_at is None or now is None or now - row.last_used_at > USED_SECONDS


def note_use(session: Session, key_id: str) -> None:
    """It was used just now."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now_epoch()))


def listed(session: Session) -> list[ApiKey]:
    """All of them, revoked ones too, oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def any_live(session: Session) -> bool:
    """Whether there is a key that opens anything."""
    return session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)) is not None


def revoke(session: Session, name: str) -> ApiKey:
    """Ends a key, by name or id; the next request with it is refused. Raises NotFound."""
    row = _live_of(session, name)
    if row is None:
        live = session.scalars(select(ApiKey.name).where(ApiKey.revoked_at.is_(None)))
        raise NotFound.of("live key", name, live)
    row.revoked_at = session.scalar(now_epoch().select())
    return row


def _live_of(session: Session, name: str) -> ApiKey | None:
    named = select(ApiKey).where(or_(ApiKey.name == name, ApiKey.id == name), ApiKey.revoked_at.is_(None))
    return session.scalar(named)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
