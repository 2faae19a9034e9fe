"""The tables. Times are seconds since 1970 by the database's clock; JSON columns hold what is only shown."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Double, ForeignKey, Index, Integer, MetaData, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.storage.engine import now_epoch

Json = JSON().with_variant(JSONB(), "postgresql")
_SHARED = text("state IN ('queued', 'running', 'succeeded')")
_LIVE = text("revoked_at IS NULL")


class Table(DeclarativeBase):
    """Constraints have stable names, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: Json, list[Any]: Json}  # noqa: RUF012


class Experiment(Table):
    """What someone asked for. Its state follows from its runs'."""

    __tablename__ = "experiments"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    name: Mapped[str | None] = mapped_column(String(200))
    dataset: Mapped[str] = mapped_column(String(100), index=True)
    spec: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    body_digest: Mapped[str] = mapped_column(String(64))
    priority: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    time_limit_seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")  # 0: none
    cancelled_at: Mapped[float | None]
    archived_at: Mapped[float | None]


class Run(Table):
    """One job. `attempt` fences every write and only grows; `tries` counts since the last checkpoint."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_state_priority_id", "state", "priority", "id"),
        Index("ix_runs_listed", "kind", "state", "id"),  # a page of runs of one kind and state, newest first
        Index("ix_runs_counts", "state", "kind", "worked_seconds"),  # all that `/metrics` reads of a run
        # One live or successful run a specification: this is what makes sharing safe under races.
        Index("uq_runs_share_key", "share_key", unique=True, sqlite_where=_SHARED, postgresql_where=_SHARED),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    kind: Mapped[str] = mapped_column(String(20))
    key: Mapped[str] = mapped_column(String(64), index=True)
    share_key: Mapped[str] = mapped_column(String(110))
    spec: Mapped[dict[str, Any]]
    depends_on: Mapped[str | None] = mapped_column(ForeignKey("runs.id"), index=True)  # whose checkpoint it is about
    state: Mapped[str] = mapped_column(String(20), default="queued")
    priority: Mapped[int] = mapped_column(Integer, default=0)  # the highest of the live experiments that want it
    time_limit_seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")  # 0: none; the longest
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer, default=5)
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[float | None]
    cancel_requested_at: Mapped[float | None]
    started_at: Mapped[float | None]
    attempt_started_at: Mapped[float | None]
    worked_seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")  # of attempts that ended
    progress_at: Mapped[float | None]  # when this attempt last moved: its progress, phase, metrics, or a pulse
    finished_at: Mapped[float | None]
    announced_at: Mapped[float | None]  # when a broker was last told that it waits; without one, never
    progress: Mapped[float] = mapped_column(Double, default=0.0)
    phase: Mapped[str | None] = mapped_column(String(200))
    error: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)


class RunDependency(Table):
    """Which runs must have succeeded before a run may start: this alone decides, not `runs.depends_on`."""

    __tablename__ = "run_dependencies"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    needs_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True, index=True)
    position: Mapped[int] = mapped_column(Integer)  # as the plan lists them: the origin, then siblings


class ExperimentRun(Table):
    """Which runs an experiment wants; `reused`: someone had asked for it before."""

    __tablename__ = "experiment_runs"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True, index=True)
    position: Mapped[int] = mapped_column(Integer)
    reused: Mapped[bool] = mapped_column(Boolean, default=False)


class Checkpoint(Table):
    """The weights that a run published; `path` is relative to the data folder."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    epoch: Mapped[int] = mapped_column(Integer)
    final: Mapped[bool] = mapped_column(Boolean, default=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id"))
    dataset: Mapped[str] = mapped_column(String(100), index=True)
    architecture: Mapped[str] = mapped_column(String(40))
    variant: Mapped[str] = mapped_column(String(20))
    seed: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(String(300))
    spec: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]


class EvaluationBlock(Table):
    """A stored block of an evaluation: an evaluation resumes at the first one that is missing."""

    __tablename__ = "evaluation_blocks"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    block: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    path: Mapped[str] = mapped_column(String(300))
    stored_at: Mapped[float | None] = mapped_column(Double, index=True)
    images: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")  # that its attacks took


class PastWork(Table):
    """What a run had done that is counted no more, as it was deleted or is tried again: totals must never fall."""

    __tablename__ = "past_work"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    worked_seconds: Mapped[float] = mapped_column(Double)
    images: Mapped[int] = mapped_column(BigInteger)  # of the blocks that went with it
    attack_seconds: Mapped[float] = mapped_column(Double)


class ImageRow(Table):
    """What one attack did to one image at one radius."""

    __tablename__ = "image_rows"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    eps: Mapped[str] = mapped_column(String(40), primary_key=True)
    attack: Mapped[str] = mapped_column(String(40), primary_key=True)
    image_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    correct_share: Mapped[float]
    success: Mapped[bool]
    norm: Mapped[float]
    queries: Mapped[int]
    gradients: Mapped[int]


class ImageVerdict(Table):
    """What stands of one image at one radius after all attacks: its worst candidate, and how it was judged."""

    __tablename__ = "image_verdicts"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    eps: Mapped[str] = mapped_column(String(40), primary_key=True)
    image_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    attack: Mapped[str | None] = mapped_column(String(40))  # that found it; null: the unchanged image
    norm: Mapped[float]  # of the perturbation, the protocol's; then both
    linf: Mapped[float]
    l2: Mapped[float]
    ssim: Mapped[float | None]  # to the unchanged image; null for images too small for it
    correct_share: Mapped[float]  # of the fresh draws
    majority: Mapped[bool]  # whether their vote is right
    clean_correct_share: Mapped[float]  # the same on the unchanged image
    clean_majority: Mapped[bool]


class Figure(Table):
    """The robustness of one checkpoint at one radius under one protocol: what the leaderboard reads."""

    __tablename__ = "figures"
    __table_args__ = (
        Index("ix_figures_board", "dataset", "norm", "eps", "suite"),
        Index("ix_figures_version", "dataset", "created_at"),  # all that is read to know whether figures came or went
        Index("ix_figures_row", "training_group", "protocol_id"),  # a row's id is a digest of these two
    )

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    eps: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), index=True)
    dataset: Mapped[str] = mapped_column(String(100))
    architecture: Mapped[str] = mapped_column(String(40))
    variant: Mapped[str] = mapped_column(String(20))
    recipe: Mapped[str] = mapped_column(String(60))
    precision: Mapped[str] = mapped_column(String(20))
    epochs: Mapped[str] = mapped_column(String(40))
    settings: Mapped[str] = mapped_column(String(500), default="")
    group: Mapped[str] = mapped_column("training_group", String(64))
    seed: Mapped[int] = mapped_column(Integer)
    branch_seed: Mapped[int | None]
    norm: Mapped[str] = mapped_column(String(10))
    suite: Mapped[str] = mapped_column(String(40))
    images: Mapped[int] = mapped_column(Integer)
    protocol_id: Mapped[str] = mapped_column(String(64), index=True)
    protocol: Mapped[dict[str, Any]]
    clean_accuracy: Mapped[float]
    robust_accuracy: Mapped[float]
    attacks: Mapped[dict[str, Any]]
    verdict: Mapped[str] = mapped_column(String(40))
    reasons: Mapped[list[Any]]
    details: Mapped[dict[str, Any]]
    draws: Mapped[int] = mapped_column(Integer)
    parameters: Mapped[int] = mapped_column(BigInteger)


class Worker(Table):
    """A worker process that lives: `/readyz` asks whether there is one."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    started_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    seen_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    device: Mapped[str] = mapped_column(String(40))
    run_id: Mapped[str | None] = mapped_column(String(40))
    gpu_memory_used: Mapped[int | None] = mapped_column(BigInteger)  # bytes, of everybody on its GPU
    gpu_memory_total: Mapped[int | None] = mapped_column(BigInteger)


class ApiKey(Table):
    """Who may use the service from elsewhere. The key itself is not here: only its SHA-256."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index("uq_api_keys_name", "name", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),  # of live ones
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(20))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(20))  # the first characters of the key, to know it by
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class TrailEntry(Table):
    """Who did what: written with what was done, in one transaction, and never changed."""

    __tablename__ = "trail"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    key_id: Mapped[str | None] = mapped_column(String(40))  # null: no key was needed
    actor: Mapped[str] = mapped_column(String(100))  # the key's name, or "local"
    action: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(40), index=True)
    request_id: Mapped[str | None] = mapped_column(String(64))


class Event(Table):
    """What happened to a run or an experiment, in the order of the commits; written with the change itself."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_run_id_id", "run_id", "id"),
        {"sqlite_autoincrement": True},  # a number is never given twice, also after a sweep
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, server_default=now_epoch())
    run_id: Mapped[str | None] = mapped_column(String(40))
    experiment_id: Mapped[str | None] = mapped_column(String(40), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]]
