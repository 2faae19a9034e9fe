"""verdicts per image, with norms and structural similarity; rows of the board by their id"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_verdicts",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("eps", sa.String(length=40), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("attack", sa.String(length=40), nullable=True),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("linf", sa.Double(), nullable=False),
        sa.Column("l2", sa.Double(), nullable=False),
        sa.Column("ssim", sa.Double(), nullable=True),
        sa.Column("correct_share", sa.Double(), nullable=False),
        sa.Column("majority", sa.Boolean(), nullable=False),
        sa.Column("clean_correct_share", sa.Double(), nullable=False),
        sa.Column("clean_majority", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_image_verdicts_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "eps", "image_id", name=op.f("pk_image_verdicts")),
    )
    op.create_index("ix_figures_row", "figures", ["training_group", "protocol_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_figures_row", table_name="figures")
    op.drop_table("image_verdicts")
