"""totals for Prometheus count what deleted runs did, too"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "past_work",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("worked_seconds", sa.Double(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("attack_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_past_work")),
    )


def downgrade() -> None:
    op.drop_table("past_work")
