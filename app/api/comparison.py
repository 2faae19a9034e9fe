"""`/compare`: two rows of the leaderboard against each other."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from app.api.boards import VARY, answers_in, as_report, best_format, per_image_of
from app.api.dependencies import Services, ServicesOf
from app.api.fast_json import FastJson
from app.domain.comparison import Side, compare, protocol_differences
from app.domain.errors import Conflict, InvalidInput, Problem
from app.domain.leaderboard import PerImage, latest, leaderboard, row_id
from app.domain.subject import settings_of
from app.reports.comparison_plot import comparison_picture
from app.reports.tables import comparison_table
from app.storage import results
from app.storage.results import BoardRow

router = APIRouter(tags=["leaderboard"])
RowId = Annotated[str, Query(max_length=100, description="the `id` of a leaderboard row")]
CompareFormat = Annotated[
    Literal["json", "csv", "md", "latex", "png", "svg"] | None, Query(description="else by `Accept`")
]


@router.get("/compare", summary="Two leaderboard rows: difference, interval, tests, differing settings",
            responses=answers_in())
def show(
    request: Request, services: ServicesOf, a: RowId, b: RowId, format: CompareFormat = None
) -> Response:
    """A minus B over the seeds they have in common, on the same images under the same protocol: a paired t test over
    seeds (`p` is null below 2), McNemar's test within each pair of networks, and a conclusion in words; the same
    difference under each attack, and at every radius that both were measured at. Rows of different protocols are a
    conflict, which says what differs."""
    answer = compared(services, a, b)
    wanted = format or best_format(request)
    report = as_report(wanted, lambda: comparison_table(answer), lambda form: comparison_picture(answer, form))
    return report or FastJson(answer, headers=VARY)


def compared(services: Services, a: str, b: str) -> dict[str, Any]:
    """The comparison itself, for pages too. Raises InvalidInput, NotFound, Conflict."""
    if a == b:
        raise InvalidInput([Problem("/b", f"in the query: a row cannot be compared with itself ({a!r} twice)")])
    with services.database.reading() as session:
        found = results.board_row(session, a), results.board_row(session, b)
        if found[0].protocol_id != found[1].protocol_id:
            what = "; ".join(protocol_differences(found[0].protocol, found[1].protocol))
            raise Conflict(f"only rows of one protocol, on the same images, can be compared; these differ in {what}")
        sides = _sides(services, session, found)
    found_out = compare(*sides, per_image=per_image_of(services), votes=_votes_of(services))
    return {"dataset": found[0].dataset, **found_out}


def _sides(services: Services, session: Session, found: Sequence[BoardRow]) -> list[Side]:
    """With the rows as the leaderboard shows them, ranks too."""
    first = found[0]
    suite, images = first.protocol["suite"], first.protocol["images"]
    measured = latest(results.measured(session, first.dataset, norm=first.norm, suite=suite, images=images))
    board = leaderboard(measured, first.protocol_id, per_image=per_image_of(services), known=services.rows)
    rows = {row["id"]: row for row in board}
    family = next(m.protocol["family"] for m in measured if m.protocol_id == first.protocol_id)
    return [
        Side(
            rows[row_id(row.group, row.protocol_id)],
            [m for m in measured if (m.group, m.protocol_id) == (row.group, row.protocol_id)],
            settings_of(row.training),
            [m for m in measured if (m.group, m.protocol["family"]) == (row.group, family)],
        )
        for row in found
    ]


def _votes_of(services: Services) -> PerImage:
    def read(run_ids: Sequence[str], eps: str) -> Mapping[str, Any]:
        with services.database.reading() as session:
            return results.majorities(session, run_ids, eps)

    return read
