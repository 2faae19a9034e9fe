"""Two rows against each other as a page: the finding in words, what to do about it, and its evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.curves import chart
from app.dashboard.figures import difference_drawn, points
from app.dashboard.filters import Field, fields
from app.dashboard.leaderboard import downloads
from app.dashboard.links import Query
from app.dashboard.rendering import environment, render
from app.domain.architectures import variant_name
from app.domain.leaderboard import OK
from app.domain.statistics import SIGNIFICANT, seeds_needed
from app.reports.tables import clean_images

environment.filters.update(points=points, difference_drawn=difference_drawn)


def comparison_page(found: Mapping[str, Any], chance: float | None) -> str:
    """`found` is the API's answer; `chance` the accuracy of guessing."""
    norm = found["protocol"]["norm"]
    return render(
        "compare.html", found=found, a=found["a"], b=found["b"], advice=advice(found), significant=SIGNIFICANT,
        chart=chart([_line("A", found["a"]), _line("B", found["b"])], norm, chance),
        clean=clean_images((found["a"], found["b"]), found["protocol"]),
        radii={p["eps"]: p["eps_text"] for side in ("a", "b") for p in found[side]["curve"]},
        seeds=(found["robust_accuracy"] or {}).get("by_seed", {}),
        downloads=downloads("/compare", [(side, found[side]["id"]) for side in ("a", "b")]),
    )


def choosing_page(
    board: Mapping[str, Any], offered: Mapping[str, Any], datasets: Sequence[str], query: Query, ticked: Sequence[str]
) -> str:
    """Where two rows are chosen: `ticked` came along, too few or too many."""
    rows = [(row["id"], _name(row)) for row in board["rows"]]
    chosen = [name for name in ticked if name in dict(rows)] + [name for name, _ in rows if name not in ticked]
    return render(
        "choose_two.html", board=board, ticked=ticked, enough=len(rows) > 1,
        measured=bool(offered["suite"]),
        fields=fields(("dataset", "norm", "eps", "suite"), offered, datasets, query),
        sides=[Field(side, side.upper(), rows, chosen[at]) for at, side in enumerate("ab")] if len(rows) > 1 else [],
    )


def advice(found: Mapping[str, Any]) -> list[str]:
    """What one may do next."""
    robust = found["robust_accuracy"]
    weak = [side.upper() for side in ("a", "b") if found[side]["verdict"] != OK]
    said = []
    if weak:
        said.append(f"Attack {' and '.join(weak)} with a stronger suite first (spiking, or audit): until its checks "
                    "pass, no difference to it should be quoted.")  # fmt: skip
    if robust is None:
        said.append("Train and evaluate both recipes with the same seeds.")
    elif robust["n"] == 1:
        said.append("Add seeds, three at the least: one pair of networks says nothing of the recipes.")
    elif robust["p"] is not None and robust["p"] >= SIGNIFICANT and robust["mean"]:
        said.append(_more_seeds(robust))
    if not weak and robust is not None and robust["p"] is not None and robust["p"] < SIGNIFICANT:
        said.append("The difference may be quoted with its interval, its number of seeds and the protocol.")
    also = _differing_beside_the_variant(found)
    if also and found["a"]["variant"] != found["b"]["variant"]:
        said.append(f"Before it is put down to the variant: {', '.join(also)} differ{'s' * (len(also) == 1)} as well.")
    return said


def _differing_beside_the_variant(found: Mapping[str, Any]) -> list[str]:
    """Settings that both have: what one has alone, and the epochs as they are written, come with its variant."""
    return [s["name"] for s in found["differing_settings"]
            if s["name"] not in ("variant", "epochs") and None not in (s["a"], s["b"])]  # fmt: skip


def _more_seeds(robust: Mapping[str, Any]) -> str:
    needed = seeds_needed(robust["mean"], robust["sd"])
    size = f"a difference of {abs(100 * robust['mean']):.1f} points"
    if needed is None:
        return f"With this spread over seeds, {size} cannot be told from none by any practical number of seeds."
    return (
        f"With this spread over seeds, {size} is found in four of five experiments that have {needed} seeds; here are "
        f"{robust['n']}."
    )


def _line(letter: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """As a line of the curves."""
    return {
        "label": f"{letter}: {_name(row)}", "variant": row["variant"], "verdict": row["verdict"],
        "clean_accuracy_subset": row["clean_accuracy_subset"],
        "points": [
            {"eps": p["eps"], "eps_text": p["eps_text"], "accuracy": p["robust_accuracy"], "verdict": row["verdict"]}
            for p in row["curve"]
        ],
    }


def _name(row: Mapping[str, Any]) -> str:
    rest = [row["precision"]] if row["precision"] != "float32" else []
    rest += [row["settings"]] if row["settings"] else []
    return ", ".join([f"{row['architecture']} {variant_name(row['variant'])} {row['epochs']}", *rest])
