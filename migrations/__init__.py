"""Alembic: the database's history. `app.storage.migrate` runs it."""
