"""What runs found: checkpoints, blocks of an evaluation with their per-image rows, figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, outerjoin, select, tuple_
from sqlalchemy.orm import Session

from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.leaderboard import Measured
from app.storage.runs import Fence, check_fence
from app.storage.tables import Checkpoint, EvaluationBlock, Figure, ImageRow, Run


def add_checkpoint(session: Session, fence: Fence, checkpoint: Checkpoint) -> None:
    """Publishes the weights of a run; an earlier attempt's of the same epoch give way. Raises LeaseLost."""
    check_fence(session, fence)
    repeated = delete(Checkpoint).where(Checkpoint.run_id == fence.run_id, Checkpoint.epoch == checkpoint.epoch)
    session.execute(repeated)
    session.add(checkpoint)
    session.flush()


def checkpoint(session: Session, checkpoint_id: str) -> Checkpoint:
    """The checkpoint. Raises NotFound."""
    found = session.get(Checkpoint, checkpoint_id)
    if found is None:
        raise NotFound.of("checkpoint", checkpoint_id)
    return found


def checkpoint_of_run(session: Session, run_id: str, epoch: int | None = None) -> Checkpoint:
    """The last checkpoint of a run, or the one it kept after that epoch. Raises NotFound."""
    query = select(Checkpoint).where(Checkpoint.run_id == run_id)
    query = query.where(Checkpoint.final) if epoch is None else query.where(Checkpoint.epoch == epoch)
    found = session.scalar(query)
    if found is None:
        raise NotFound.of("checkpoint of run", run_id)
    return found


def checkpoints(
    session: Session, *, after: str | None, limit: int, **equal: Any
) -> tuple[list[Checkpoint], str | None]:
    """Newest first: one page and the cursor of the next, or None."""
    query = select(Checkpoint).order_by(Checkpoint.id.desc()).limit(limit + 1)
    for name, value in equal.items():
        if value is not None:
            query = query.where(getattr(Checkpoint, name) == value)
    if after is not None:
        query = query.where(Checkpoint.id < after)
    found = list(session.scalars(query))
    return found[:limit], (found[limit - 1].id if len(found) > limit else None)


def add_block(
    session: Session, fence: Fence, block: int, path: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Stores a block of an evaluation with its per-image rows. Raises LeaseLost."""
    check_fence(session, fence)
    session.add(EvaluationBlock(run_id=fence.run_id, block=block, attempt=fence.attempt, path=path))
    session.flush()
    if rows:
        session.execute(insert(ImageRow), [{"run_id": fence.run_id, **row} for row in rows])


def blocks(session: Session, run_id: str) -> dict[int, str]:
    """The stored blocks of an evaluation: number -> path of its arrays."""
    found = select(EvaluationBlock.block, EvaluationBlock.path).where(EvaluationBlock.run_id == run_id)
    return {int(block): str(path) for block, path in session.execute(found)}


def image_rows(
    session: Session, run_id: str, *, after: str | None, limit: int
) -> tuple[list[ImageRow], str | None]:
    """Per-image rows by image, radius, attack: one page and the cursor of the next, or None. Raises InvalidInput."""
    place = (ImageRow.image_id, ImageRow.eps, ImageRow.attack)
    query = select(ImageRow).where(ImageRow.run_id == run_id).order_by(*place).limit(limit + 1)
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*_image_cursor(after)))
    found = list(session.scalars(query))
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], f"{last.image_id}:{last.eps}:{last.attack}"


def _image_cursor(cursor: str) -> tuple[int, str, str]:
    image, _, rest = cursor.partition(":")
    eps, separator, attack = rest.partition(":")
    if not (image.isascii() and image.isdigit() and len(image) < 10 and separator):
        raise InvalidInput([Problem("/cursor", f"in the query: {cursor!r} is not the `next` of a page")])
    return int(image), eps, attack


def add_figures(session: Session, fence: Fence, figures: Sequence[Figure]) -> None:
    """Stores the figures of an evaluation. Raises LeaseLost."""
    check_fence(session, fence)
    session.execute(delete(Figure).where(Figure.run_id == fence.run_id))
    session.add_all(figures)
    session.flush()


def robust_of_parent(session: Session, trained: Checkpoint, protocol_ids: Sequence[str]) -> dict[str, float]:
    """Exact radius -> robust accuracy of the checkpoint that `trained` branched from, the newest where measured
    twice; of these protocols only. Empty where there is none."""
    query = select(Figure).where(Figure.checkpoint_id == trained.parent_id, Figure.protocol_id.in_(protocol_ids))
    return {f.eps: f.robust_accuracy for f in session.scalars(query.order_by(Figure.created_at, Figure.run_id))}


def any_measured(session: Session, dataset: str) -> bool:
    """Whether there is any figure of the data set."""
    return session.scalar(select(Figure.run_id).where(Figure.dataset == dataset).limit(1)) is not None


def measured(session: Session, dataset: str, **equal: Any) -> list[Measured]:
    """The figures of a data set as the leaderboard takes them; filters that are None do not count."""
    depth = Run.spec["training"]["freeze_depth"].as_integer()
    trained = outerjoin(Figure, Checkpoint, Figure.checkpoint_id == Checkpoint.id)
    query = select(Figure, depth).select_from(trained.outerjoin(Run, Checkpoint.run_id == Run.id))
    query = query.where(Figure.dataset == dataset)
    for name, value in equal.items():
        if value is not None:
            query = query.where(getattr(Figure, name) == value)
    return [_measured(figure, frozen) for figure, frozen in session.execute(query.order_by(Figure.run_id))]


def _measured(figure: Figure, freeze_depth: int | None) -> Measured:
    columns = Measured.__dataclass_fields__.keys() - {"test_images", "freeze_depth"}
    return Measured(
        test_images=int(figure.details["test_images"]), freeze_depth=freeze_depth,
        **{name: getattr(figure, name) for name in columns},
    )
