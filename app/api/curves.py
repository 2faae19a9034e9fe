"""`/curves`: accuracy against eps."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from app.api.boards import VARY, FreezeDepth, Images, answers_in, as_report, best_format, measured_of, per_image_of
from app.api.dependencies import Services, ServicesOf
from app.api.fast_json import FastJson
from app.domain.architectures import ArchitectureName, Variant
from app.domain.attacks import ATTACKS, Norm
from app.domain.curves import curves
from app.domain.datasets import KNOWN
from app.domain.errors import NotFound, SpikeproofError
from app.domain.leaderboard import Measured, choose_family, row_id
from app.domain.recipes import MeasuredRecipe
from app.domain.spec import Precision
from app.domain.suites import MeasuredSuite
from app.reports.curve_plot import curves_picture
from app.reports.tables import curves_table
from app.storage import datasets

router = APIRouter(tags=["leaderboard"])
CurveFormat = Annotated[
    Literal["json", "csv", "md", "latex", "png", "svg"] | None, Query(description="else by `Accept`")
]
RowIds = Annotated[list[str] | None, Query(max_length=1000, description="of the leaderboard; without one: all rows")]
AttackName = Annotated[str | None, Query(max_length=100, description="without one: the robust accuracy")]


@router.get("/curves", summary="Accuracy against eps, one line a row", responses=answers_in())
def show(
    request: Request,
    services: ServicesOf,
    dataset: str,
    attack: AttackName = None,
    norm: Norm = "linf",
    architecture: ArchitectureName | None = None,
    variant: Variant | None = None,
    recipe: MeasuredRecipe | None = None,
    precision: Precision | None = None,
    freeze_depth: FreezeDepth = None,
    suite: MeasuredSuite | None = None,
    images: Images = None,
    rows: RowIds = None,
    format: CurveFormat = None,
) -> Response:
    """Lines of one protocol but for its radii: by default of the strongest suite that is complete. A line begins at
    `clean_accuracy_subset`, of the images that are attacked; `clean_accuracy` is of all `test_images`. In a suite on
    survivors an attack's figure is the running union after it (`kind`). `others` counts lines left out. `rows` names
    rows of the leaderboard, at any radius; of several protocols, one is drawn."""
    measured = measured_of(services, dataset, norm, suite=suite, images=images)
    measured = _with_attack(_of_rows(measured, rows) if rows else measured, attack)
    family = choose_family(measured)
    kept = [
        m for m in measured
        if architecture in (None, m.architecture) and variant in (None, m.variant)
        and recipe in (None, m.recipe) and precision in (None, m.precision)
        and freeze_depth in (None, m.freeze_depth)
    ]
    protocol = next((_without_radius(m) for m in measured if m.protocol["family"] == family), None)
    answer: dict[str, Any] = {
        "dataset": dataset, "norm": norm, "attack": attack, "kind": _kind(protocol, attack),
        "chance": chance_of(services, dataset), "protocol": protocol,
        "others": len({(m.group, m.protocol["family"]) for m in measured if m.protocol["family"] != family}),
        "lines": curves(kept, family, attack, per_image_of(services)),
    }
    return _as(format or best_format(request), answer)


def _as(wanted: str, answer: dict[str, Any]) -> Response:
    report = as_report(wanted, lambda: curves_table(answer), lambda form: curves_picture(answer, form))
    return report or FastJson(answer, headers=VARY)  # for a browser's page too


def _of_rows(measured: Sequence[Measured], rows: list[str]) -> Sequence[Measured]:
    """The rows' figures at all their radii. Raises NotFound."""
    ids = [row_id(m.group, m.protocol_id) for m in measured]
    if missing := set(rows) - set(ids):
        raise NotFound.of("leaderboard row", min(missing), ids)
    lines = {(m.group, m.protocol["family"]) for m, name in zip(measured, ids, strict=True) if name in rows}
    return [m for m in measured if (m.group, m.protocol["family"]) in lines]


def _with_attack(measured: Sequence[Measured], attack: str | None) -> Sequence[Measured]:
    """Those that have its figure. Raises NotFound for an attack that there is not."""
    if attack is None:
        return measured
    found = [m for m in measured if attack in m.attacks]
    if not found and attack not in ATTACKS:
        raise NotFound.of("attack", attack, {*ATTACKS, *(name for m in measured for name in m.attacks)})
    return found


def _without_radius(m: Measured) -> dict[str, Any]:
    return {name: value for name, value in m.protocol.items() if name not in ("eps", "eps_text")}


def _kind(protocol: dict[str, Any] | None, attack: str | None) -> str | None:
    if protocol is None:
        return None
    if attack is None:
        return "robust accuracy"
    return "running union" if protocol["survivors"] else "alone"


def chance_of(services: Services, dataset: str) -> float | None:
    """Of guessing; null for a folder that cannot be read any more."""
    try:
        known = KNOWN.get(dataset) or datasets.find(dataset, services.settings.data_dir)
    except SpikeproofError:
        return None
    return 1 / len(known.classes)
