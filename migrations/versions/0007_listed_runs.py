"""lists of runs by kind and state read no more than their page; whether figures changed is read from an index"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_runs_listed", "runs", ["kind", "state", "id"], unique=False)
    op.create_index("ix_figures_version", "figures", ["dataset", "created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_figures_version", table_name="figures")
    op.drop_index("ix_runs_listed", table_name="runs")
