"""Health check of the worker's container: has a worker of this machine given a sign of life lately?"""

import sys

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.settings import settings, this_host
from app.storage.engine import Database, now_epoch
from app.storage.tables import Worker


def alive() -> bool:
    """True within a lease of the last heartbeat."""
    here = Worker.id.startswith(f"{this_host()}:", autoescape=True)
    lately = Worker.seen_at > now_epoch() - settings().lease_seconds
    database = Database(settings().resolved_database_url)
    try:
        with database.reading() as session:
            return session.scalar(select(Worker.id).where(here, lately).limit(1)) is not None
    finally:
        database.close()


if __name__ == "__main__":
    try:
        sys.exit(0 if alive() else f"no worker of {this_host()} gave a sign of life lately")
    except (SQLAlchemyError, OSError) as error:
        sys.exit(f"the database cannot be reached ({type(error).__name__})")
