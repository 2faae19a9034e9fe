"""What runs found: checkpoints, blocks of an evaluation with their per-image rows, figures."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, func, insert, outerjoin, select, tuple_
from sqlalchemy.orm import Session, aliased

from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.leaderboard import Measured, row_id
from app.domain.protocol import Protocol
from app.domain.published import marks
from app.storage.engine import Database, now_epoch
from app.storage.runs import Fence, check_fence
from app.storage.tables import Checkpoint, EvaluationBlock, Experiment, Figure, ImageRow, ImageVerdict, Run

if TYPE_CHECKING:
    from app.domain.statistics import Shares

PAGE = 10_000  # per-image rows read at once
_IN_DETAILS = ("size", "latency", "energy", "corruptions")  # unknown of figures from before there were any
MOST_GONE = 100  # figures of a data set that are remembered though they were deleted; some KiB each
MOST_LISTS = 8  # questions whose answers are kept: those of the data sets, norms and suites that people look at


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
    session: Session, fence: Fence, block: int, path: str, rows: Sequence[Mapping[str, Any]], *,
    images: int = 0, seconds: float = 0.0,
) -> None:
    """Stores a block of an evaluation with its per-image rows; attacking its images took so long. Raises LeaseLost."""
    check_fence(session, fence)
    session.add(
        EvaluationBlock(
            run_id=fence.run_id, block=block, attempt=fence.attempt, path=path, images=images, seconds=seconds,
            stored_at=now_epoch(),
        )
    )
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


def verdicts(
    session: Session, run_id: str, *, after: str | None, limit: int, eps: str | None = None
) -> tuple[list[ImageVerdict], str | None]:
    """Verdicts by image and radius, or at one radius: one page and the cursor of the next. Raises InvalidInput."""
    place = (ImageVerdict.image_id, ImageVerdict.eps)
    query = select(ImageVerdict).where(ImageVerdict.run_id == run_id).order_by(*place).limit(limit + 1)
    if eps is not None:
        query = query.where(ImageVerdict.eps == eps)
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*_image_cursor(f"{after}:")[:2]))
    found = list(session.scalars(query))
    return found[:limit], (f"{found[limit - 1].image_id}:{found[limit - 1].eps}" if len(found) > limit else None)


def add_verdicts(session: Session, fence: Fence, rows: Sequence[Mapping[str, Any]]) -> None:
    """Stores what stands of each image, once all its attacks have ended. Raises LeaseLost."""
    check_fence(session, fence)
    session.execute(delete(ImageVerdict).where(ImageVerdict.run_id == fence.run_id))
    if rows:
        session.execute(insert(ImageVerdict), [{"run_id": fence.run_id, **row} for row in rows])


def correct_shares(session: Session, run_ids: Sequence[str], eps: str) -> "dict[str, Shares]":
    """The correct share of each image on its worst candidate, by run, in the order of the images' ids; evaluations
    from before these were stored are left out."""
    return _per_image(session, run_ids, eps, ImageVerdict.correct_share)


def majorities(session: Session, run_ids: Sequence[str], eps: str) -> "dict[str, Shares]":
    """Likewise 1 where the vote of the fresh draws is right, else 0."""
    return _per_image(session, run_ids, eps, ImageVerdict.majority)


def _per_image(session: Session, run_ids: Sequence[str], eps: str, column: Any) -> "dict[str, Shares]":
    import numpy as np

    query = select(ImageVerdict.run_id, column).where(ImageVerdict.run_id.in_(run_ids), ImageVerdict.eps == eps)
    found: dict[str, list[float]] = {}
    for run_id, value in session.execute(query.order_by(ImageVerdict.run_id, ImageVerdict.image_id)):
        found.setdefault(run_id, []).append(float(value))
    return {run_id: np.array(values) for run_id, values in found.items()}


def all_image_rows(database: Database, run_id: str) -> Iterator[dict[str, Any]]:
    """Every per-image row of an evaluation as a dictionary, by image; a page at a time."""
    names = [column.name for column in ImageRow.__table__.columns if column.name != "run_id"]
    after = None
    while True:
        with database.reading() as session:
            rows, after = image_rows(session, run_id, after=after, limit=PAGE)
        yield from ({name: getattr(row, name) for name in names} for row in rows)
        if after is None:
            return


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


@dataclass(frozen=True)
class BoardRow:
    """Where the figures of a leaderboard row are, and what they were measured and trained with."""

    dataset: str
    norm: str
    group: str
    protocol_id: str
    protocol: dict[str, Any]  # as the evaluation's specification has it, with the row's radius alone
    training: dict[str, Any]  # the specification that its checkpoints come from


def board_row(session: Session, name: str) -> BoardRow:
    """The leaderboard row of that id, over all data sets. Raises NotFound naming the nearest.

    Ids are digests, so those of all rows are made: from one index, at microseconds a row.
    """
    keys = session.execute(select(Figure.group, Figure.protocol_id).distinct())
    known = {row_id(group, protocol_id): (group, protocol_id) for group, protocol_id in keys}
    if name not in known:
        raise NotFound.of("leaderboard row", name, known)
    group, protocol_id = known[name]
    trained = aliased(Run)
    query = select(Figure, Run.spec, trained.spec).join(Run, Figure.run_id == Run.id)
    query = query.join(Checkpoint, Figure.checkpoint_id == Checkpoint.id).join(trained, Checkpoint.run_id == trained.id)
    query = query.where(Figure.group == group, Figure.protocol_id == protocol_id).order_by(Figure.run_id).limit(1)
    figure, evaluation, training = session.execute(query).one()
    protocol = Protocol.from_dict(evaluation["protocol"])
    eps = parse_epsilon(figure.eps)
    at_eps = replace(protocol, eps=(eps,), stages=tuple(replace(s, grid=None) for s in protocol.stages_at(eps)))
    shown = {**at_eps.to_dict(), "eps": format_epsilon(eps)}
    return BoardRow(figure.dataset, figure.norm, group, protocol_id, shown, training)


def figures(session: Session, run_id: str) -> list[Figure]:
    """The figures of an evaluation, one a radius."""
    return list(session.scalars(select(Figure).where(Figure.run_id == run_id)))


def figures_of_checkpoint(session: Session, checkpoint_id: str) -> list[Figure]:
    """All figures of a checkpoint, by protocol as they were measured, then by radius."""
    found = session.scalars(select(Figure).where(Figure.checkpoint_id == checkpoint_id))
    return sorted(found, key=lambda f: (f.created_at, f.run_id, parse_epsilon(f.eps)))


def figures_of(session: Session, run_ids: Sequence[str]) -> dict[str, list[Figure]]:
    """The figures of evaluations that have some, by run, from the smallest radius on."""
    found: dict[str, list[Figure]] = {}
    for figure in session.scalars(select(Figure).where(Figure.run_id.in_(run_ids))):
        found.setdefault(figure.run_id, []).append(figure)
    return {run_id: sorted(of_run, key=lambda f: parse_epsilon(f.eps)) for run_id, of_run in found.items()}


def evaluations(session: Session, checkpoint: Checkpoint) -> list[Run]:
    """The evaluations of a checkpoint that have succeeded, oldest first."""
    done = select(Run).where(Run.depends_on == checkpoint.run_id, Run.kind == "evaluate", Run.state == "succeeded")
    found = session.scalars(done.order_by(Run.id))
    return [run for run in found if run.metrics.get("checkpoint") == checkpoint.id]


def robust_of_parent(session: Session, trained: Checkpoint, protocol_ids: Sequence[str]) -> dict[str, float]:
    """Exact radius -> robust accuracy of the checkpoint that `trained` branched from, the newest where measured
    twice; of these protocols only. Empty where there is none."""
    query = select(Figure).where(Figure.checkpoint_id == trained.parent_id, Figure.protocol_id.in_(protocol_ids))
    return {f.eps: f.robust_accuracy for f in session.scalars(query.order_by(Figure.created_at, Figure.run_id))}


def any_measured(session: Session, dataset: str) -> bool:
    """Whether there is any figure of the data set."""
    return session.scalar(select(Figure.run_id).where(Figure.dataset == dataset).limit(1)) is not None


def any_stored(session: Session, dataset: str) -> bool:
    """Whether any experiment or checkpoint is of the data set, here or not."""
    wanted = select(Experiment.id).where(Experiment.dataset == dataset)
    made = select(Checkpoint.id).where(Checkpoint.dataset == dataset)
    return any(session.scalar(query.limit(1)) is not None for query in (wanted, made))


def measured_datasets(session: Session) -> list[str]:
    """Those with figures, measured last first."""
    last = func.max(Figure.created_at).desc()
    return list(session.scalars(select(Figure.dataset).group_by(Figure.dataset).order_by(last, Figure.dataset)))


_VERSION = select(func.count(), func.coalesce(func.sum(Figure.created_at), 0.0)).where(
    Figure.dataset == bindparam("dataset")
)


def figures_version(connection: Connection, dataset: str) -> tuple[int, float]:
    """Another one whenever figures of the data set came or went: published, they never change."""
    count, total = connection.execute(_VERSION, {"dataset": dataset}).one()
    return count, total


_Name = tuple[str, str, float]  # of a figure: run, eps, when it was published


class KnownFigures:
    """`measured`, from one call to the next: a figure that was read once is not read again, and of figures that are
    the same as before nothing is."""

    def __init__(self) -> None:
        self._known: dict[str, dict[_Name, Measured]] = {}  # by data set
        self._lists: dict[Hashable, tuple[Hashable, tuple[Measured, ...]]] = {}  # a question: version, answer

    def measured(self, session: Session, dataset: str, **equal: Any) -> Sequence[Measured]:
        """As the function of that name. Threads may call it at once: at worst both read the same."""
        version = figures_version(session.connection(), dataset)  # before the figures: these may be newer, never older
        question = dataset, *sorted(equal.items())
        before = self._lists.get(question)
        if before is not None and before[0] == version:
            return before[1]
        found = self._read(session, dataset, equal, version[0])
        kept = {name: of for name, of in self._lists.items() if name != question}
        self._lists = dict([*kept.items(), (question, (version, found))][-MOST_LISTS:])
        return found

    def _read(self, session: Session, dataset: str, equal: Mapping[str, Any], there: int) -> tuple[Measured, ...]:
        """`there`: how many figures the data set has, whatever is asked for."""
        wanted = _names(session, dataset, equal)
        known = self._known.get(dataset, {})
        if new := sorted({name[0] for name in wanted if name not in known}):
            for start in range(0, len(new), PAGE):
                some = Figure.run_id.in_(new[start : start + PAGE])
                known = known | {(m.run_id, m.eps, m.created_at): m for m in measured(session, dataset, some)}
            if len(known) > there + MOST_GONE:
                kept = {*_names(session, dataset, {}), *wanted}
                known = {name: found for name, found in known.items() if name in kept}
            self._known = {**self._known, dataset: known}
        return tuple(known[name] for name in wanted)


def _names(session: Session, dataset: str, equal: Mapping[str, Any]) -> list[_Name]:
    """Of the figures that are asked for, in the order of a board's."""
    keys = select(Figure.run_id, Figure.eps, Figure.created_at).where(*_equal(dataset, equal))
    # By the connection: half the time of the session's own rows, and there are thousands.
    rows = session.connection().execute(keys.order_by(Figure.run_id, Figure.eps)).all()
    return [(run_id, eps, at) for run_id, eps, at in rows]


def _equal(dataset: str, equal: Mapping[str, Any]) -> list[Any]:
    given = [getattr(Figure, name) == value for name, value in equal.items() if value is not None]
    return [Figure.dataset == dataset, *given]


def measured(session: Session, dataset: str, *where: Any, **equal: Any) -> list[Measured]:
    """The figures of a data set as the leaderboard takes them; filters that are None do not count."""
    depth = Run.spec["training"]["freeze_depth"].as_integer()
    trained = outerjoin(Figure, Checkpoint, Figure.checkpoint_id == Checkpoint.id)
    decoder = Run.spec["decoder"]
    query = select(Figure, depth, decoder).select_from(trained.outerjoin(Run, Checkpoint.run_id == Run.id))
    query = query.where(*_equal(dataset, equal), *where).order_by(Figure.run_id, Figure.eps)
    return [_measured(figure, frozen, head) for figure, frozen, head in session.execute(query)]


def _measured(figure: Figure, freeze_depth: int | None, decoder: Mapping[str, Any] | None) -> Measured:
    derived = {"test_images", "clean_accuracy_subset", "freeze_depth", "mean_norm", "ssim", "as_published"}
    columns = Measured.__dataclass_fields__.keys() - derived - {*_IN_DETAILS}
    known: dict[str, Any] = {name: figure.details.get(name) for name in _IN_DETAILS}
    return Measured(
        test_images=int(figure.details["test_images"]), freeze_depth=freeze_depth,
        clean_accuracy_subset=float(figure.details["clean_accuracy_subset"]),
        as_published=marks(decoder, figure.protocol.get("as_published", ())),
        mean_norm=figure.details.get("mean_norm"), ssim=figure.details.get("mean_ssim"),
        **known, **{name: getattr(figure, name) for name in columns},
    )
