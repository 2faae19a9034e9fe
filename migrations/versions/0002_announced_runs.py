"""when the broker was told of a run"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("announced_at", sa.Double(), nullable=True))


def downgrade() -> None:
    # Not in batch mode: on SQLite that drops and makes the table anew, and what refers to a run goes with it.
    op.drop_column("runs", "announced_at")
