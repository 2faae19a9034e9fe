"""initial tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.storage.engine import now_epoch

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
SHARED = sa.text("state IN ('queued', 'running', 'succeeded')")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("dataset", sa.String(length=100), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("body_digest", sa.String(length=64), nullable=False),
        sa.Column("cancelled_at", sa.Double(), nullable=True),
        sa.Column("archived_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_experiments_idempotency_key")),
    )
    with op.batch_alter_table("experiments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_experiments_dataset"), ["dataset"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("share_key", sa.String(length=110), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("depends_on", sa.String(length=40), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("cancel_requested_at", sa.Double(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("phase", sa.String(length=200), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("metrics", JSON, nullable=False),
        sa.ForeignKeyConstraint(["depends_on"], ["runs.id"], name=op.f("fk_runs_depends_on")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_depends_on"), ["depends_on"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_key"), ["key"], unique=False)
        batch_op.create_index("ix_runs_state_priority_id", ["state", "priority", "id"], unique=False)
        batch_op.create_index(
            "uq_runs_share_key", ["share_key"], unique=True, sqlite_where=SHARED, postgresql_where=SHARED
        )

    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("seen_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("parent_id", sa.String(length=40), nullable=True),
        sa.Column("dataset", sa.String(length=100), nullable=False),
        sa.Column("architecture", sa.String(length=40), nullable=False),
        sa.Column("variant", sa.String(length=20), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=300), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("metrics", JSON, nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["checkpoints.id"], name=op.f("fk_checkpoints_parent_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_checkpoints_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
    )
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_checkpoints_dataset"), ["dataset"], unique=False)
        batch_op.create_index(batch_op.f("ix_checkpoints_run_id"), ["run_id"], unique=False)

    op.create_table(
        "evaluation_blocks",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(length=300), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_evaluation_blocks_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "block", name=op.f("pk_evaluation_blocks")),
    )
    op.create_table(
        "experiment_runs",
        sa.Column("experiment_id", sa.String(length=40), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_experiment_runs_experiment_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_experiment_runs_run_id")),
        sa.PrimaryKeyConstraint("experiment_id", "run_id", name=op.f("pk_experiment_runs")),
    )
    with op.batch_alter_table("experiment_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_experiment_runs_run_id"), ["run_id"], unique=False)

    op.create_table(
        "image_rows",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("eps", sa.String(length=40), nullable=False),
        sa.Column("attack", sa.String(length=40), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("correct_share", sa.Double(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("queries", sa.Integer(), nullable=False),
        sa.Column("gradients", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_image_rows_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "eps", "attack", "image_id", name=op.f("pk_image_rows")),
    )
    op.create_table(
        "figures",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("eps", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now_epoch(), nullable=False),
        sa.Column("checkpoint_id", sa.String(length=40), nullable=False),
        sa.Column("dataset", sa.String(length=100), nullable=False),
        sa.Column("architecture", sa.String(length=40), nullable=False),
        sa.Column("variant", sa.String(length=20), nullable=False),
        sa.Column("recipe", sa.String(length=60), nullable=False),
        sa.Column("precision", sa.String(length=20), nullable=False),
        sa.Column("epochs", sa.String(length=40), nullable=False),
        sa.Column("settings", sa.String(length=500), nullable=False),
        sa.Column("training_group", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("branch_seed", sa.Integer(), nullable=True),
        sa.Column("norm", sa.String(length=10), nullable=False),
        sa.Column("suite", sa.String(length=40), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("protocol_id", sa.String(length=64), nullable=False),
        sa.Column("protocol", JSON, nullable=False),
        sa.Column("clean_accuracy", sa.Double(), nullable=False),
        sa.Column("robust_accuracy", sa.Double(), nullable=False),
        sa.Column("attacks", JSON, nullable=False),
        sa.Column("verdict", sa.String(length=40), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("draws", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_figures_checkpoint_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_figures_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "eps", name=op.f("pk_figures")),
    )
    with op.batch_alter_table("figures", schema=None) as batch_op:
        batch_op.create_index("ix_figures_board", ["dataset", "norm", "eps", "suite"], unique=False)
        batch_op.create_index(batch_op.f("ix_figures_checkpoint_id"), ["checkpoint_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_figures_protocol_id"), ["protocol_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("figures", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_figures_protocol_id"))
        batch_op.drop_index(batch_op.f("ix_figures_checkpoint_id"))
        batch_op.drop_index("ix_figures_board")

    op.drop_table("figures")
    op.drop_table("image_rows")
    with op.batch_alter_table("experiment_runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_experiment_runs_run_id"))

    op.drop_table("experiment_runs")
    op.drop_table("evaluation_blocks")
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_checkpoints_run_id"))
        batch_op.drop_index(batch_op.f("ix_checkpoints_dataset"))

    op.drop_table("checkpoints")
    op.drop_table("workers")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index("uq_runs_share_key", sqlite_where=SHARED, postgresql_where=SHARED)
        batch_op.drop_index("ix_runs_state_priority_id")
        batch_op.drop_index(batch_op.f("ix_runs_key"))
        batch_op.drop_index(batch_op.f("ix_runs_depends_on"))

    op.drop_table("runs")
    with op.batch_alter_table("experiments", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_experiments_dataset"))

    op.drop_table("experiments")
