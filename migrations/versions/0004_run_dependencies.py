"""a run may wait for several others"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_dependencies",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("needs_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_dependencies_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["needs_id"], ["runs.id"], name=op.f("fk_run_dependencies_needs_id")),
        sa.PrimaryKeyConstraint("run_id", "needs_id", name=op.f("pk_run_dependencies")),
    )
    op.create_index(op.f("ix_run_dependencies_needs_id"), "run_dependencies", ["needs_id"], unique=False)
    op.execute(
        "INSERT INTO run_dependencies (run_id, needs_id, position) "
        "SELECT id, depends_on, 0 FROM runs WHERE depends_on IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("run_dependencies")
