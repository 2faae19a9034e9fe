"""Who did what: an entry a change, written in the change's own transaction.

    with database.writing() as session:
        experiments.cancel(session, experiment_id)
        trail.note(session, actor, "cancelled", experiment_id)
"""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.access import Actor
from app.storage.identifiers import new_id
from app.storage.tables import TrailEntry

Action = Literal[
    "submitted", "cancelled", "archived", "restored", "deleted", "retried", "uploaded", "verification asked",
    "attack asked", "key made", "key revoked",
]


def note(session: Session, actor: Actor, action: Action, subject: str) -> None:
    """Stored if, and only if, what it tells of is."""
    entry = TrailEntry(id=new_id("trl"), key_id=actor.key_id, actor=actor.name, action=action, subject=subject)
    entry.request_id = actor.request_id
    session.add(entry)


def page(
    session: Session, *, after: str | None, limit: int, actor: str | None = None, subject: str | None = None
) -> tuple[list[TrailEntry], str | None]:
    """Newest first: one page and the cursor of the next, or None."""
    query = select(TrailEntry).order_by(TrailEntry.id.desc()).limit(limit + 1)
    if actor is not None:
        query = query.where(TrailEntry.actor == actor)
    if subject is not None:
        query = query.where(TrailEntry.subject == subject)
    if after is not None:
        query = query.where(TrailEntry.id < after)
    found = list(session.scalars(query))
    return found[:limit], (found[limit - 1].id if len(found) > limit else None)


def submitters(session: Session, subjects: Sequence[str]) -> dict[str, str]:
    """Who submitted each; what was stored before there was a trail is not in it."""
    submitted = select(TrailEntry.subject, TrailEntry.actor).where(
        TrailEntry.subject.in_(subjects), TrailEntry.action == "submitted"
    )
    return {entry.subject: entry.actor for entry in session.execute(submitted)}


def first(session: Session, subject: str, action: Action) -> str | None:
    """Who did it first, or None where nobody did, or before there was a trail."""
    done = select(TrailEntry.actor).where(TrailEntry.subject == subject, TrailEntry.action == action)
    return session.scalar(done.order_by(TrailEntry.id).limit(1))
