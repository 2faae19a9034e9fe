"""Alembic's entry: the connection comes from `app.storage.migrate`, the tables from `app.storage.tables`."""

from alembic import context

from app.storage.tables import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite cannot alter a column in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
