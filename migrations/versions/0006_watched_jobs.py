"""what watches jobs: when they moved, how long they may take, how urgent they are, and what happened"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.storage.engine import now_epoch

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def columns() -> list[tuple[str, sa.Column]]:
    """Made anew each time: a column belongs to one table."""
    return [
        ("experiments", _counted("priority", sa.Integer())),
        ("experiments", _counted("time_limit_seconds", sa.Double())),
        ("runs", _counted("time_limit_seconds", sa.Double())),
        ("runs", _counted("worked_seconds", sa.Double())),
        ("runs", sa.Column("attempt_started_at", sa.Double(), nullable=True)),
        ("runs", sa.Column("progress_at", sa.Double(), nullable=True)),
        ("evaluation_blocks", sa.Column("stored_at", sa.Double(), nullable=True)),
        ("evaluation_blocks", _counted("images", sa.Integer())),
        ("evaluation_blocks", _counted("seconds", sa.Double())),
        ("workers", sa.Column("gpu_memory_used", sa.BigInteger(), nullable=True)),
        ("workers", sa.Column("gpu_memory_total", sa.BigInteger(), nullable=True)),
    ]


def _counted(name: str, kind: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, kind, nullable=False, server_default="0")


def upgrade() -> None:
    for table, column in columns():
        op.add_column(table, column)
    op.execute("UPDATE runs SET worked_seconds = finished_at - started_at "
               "WHERE finished_at IS NOT NULL AND started_at IS NOT NULL")
    op.create_index("ix_runs_counts", "runs", ["state", "kind", "worked_seconds"], unique=False)
    op.create_index(op.f("ix_evaluation_blocks_stored_at"), "evaluation_blocks", ["stored_at"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=True),
        sa.Column("experiment_id", sa.String(length=40), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("data", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_run_id_id", "events", ["run_id", "id"], unique=False)
    op.create_index(op.f("ix_events_experiment_id"), "events", ["experiment_id"], unique=False)


def downgrade() -> None:
    op.drop_table("events")
    op.drop_index(op.f("ix_evaluation_blocks_stored_at"), table_name="evaluation_blocks")
    op.drop_index("ix_runs_counts", table_name="runs")
    for table, column in columns():
        op.drop_column(table, column.name)
