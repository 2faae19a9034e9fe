"""Leaderboard, matrix, curves and comparisons as tables; `app.reports.markup` writes them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from app.domain.architectures import variant_name
from app.domain.leaderboard import OK
from app.domain.published import marks_text

# The columns of the leaderboard's CSV; two for each attack stand before the protocol's.
_NAMES = ("rank", "architecture", "variant", "recipe", "precision", "epochs", "settings", "verdict", "draws",
          "parameters", "id")
_ACCURACIES = tuple(
    f"{figure}_accuracy{part}" for figure in ("clean", "robust") for part in ("", "_sd", "_low", "_high")
)
# What a prediction takes, and what common corruptions leave; empty where it is not known.
_COSTS = ("size", "latency_p50_ms", "latency_machine", "energy_microjoules", "multiply_adds", "synaptic_operations",
          "input_spike_rate", "neuron_spike_rate", "corruption_accuracy", "corruption_accuracy_sd")
# What every CSV names, beside the data set; `images`: of how many the figure is.
_PROTOCOL = ("norm", "suite", "suite_version", "images")

_CURVE_NAMES = ("dataset", "figure", "label", "architecture", "variant", "recipe", "precision", "epochs", "settings")
_POINT_NAMES = ("eps", "eps_text", "accuracy", "accuracy_sd", "accuracy_low", "accuracy_high", "seeds", "verdict",
                "row")
_CELL_NAMES = ("mean", "sd", "low", "high", "n", "epochs", "settings", "verdict", "others")
_MATRIX_NAMES = ("dataset", "metric", "variant", "architecture", *_CELL_NAMES, *_PROTOCOL, "eps")
_DIFFERENCE_NAMES = ("dataset", "figure", "attack", "eps", "eps_text", "seed", "a", "b", "difference", "sd", "low",
                     "high", "seeds", "p", *_PROTOCOL)
NORMS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True)
class Table:
    """For people: `header` and `rows` of text, and a `note` of what it shows. For programs: `records` of raw values
    under `columns`."""

    header: list[str]
    rows: list[list[str]]
    columns: list[str]
    records: list[dict[str, Any]]
    note: str = ""


def percent(figure: Mapping[str, Any] | None) -> str:
    """`{"mean": .9213, "sd": .0021, ...}` -> `"92.1 ± 0.2"`, without a deviation where there is one seed."""
    if figure is None:
        return "–"
    mean = f"{100 * figure['mean']:.1f}"
    return mean if figure["sd"] is None else f"{mean} ± {100 * figure['sd']:.1f}"


def measured_under(protocol: Mapping[str, Any] | None, *, radius: bool = True) -> str:
    """`"suite quick v1, L∞ eps 8/255, 1000 images"`; `radius`: whether it is of one."""
    if not protocol or not protocol.get("suite"):
        return "nothing has been measured yet"
    eps = f" eps {protocol['eps_text']}" if radius else ""
    version = f" v{protocol['suite_version']}" if "suite_version" in protocol else ""
    marked = marks_text(protocol.get("as_published", ()))
    suite, norm, images = protocol["suite"], NORMS[protocol["norm"]], protocol["images"]
    return f"suite {suite}{version}, {norm}{eps}, {images} images" + (f", {marked}" if marked else "")


def clean_images(rows: Iterable[Mapping[str, Any]], protocol: Mapping[str, Any]) -> str:
    """Of how many images the clean accuracies of rows or cells are, where fewer were attacked: `"clean: all 10,000
    test images"`; else nothing."""
    counts = sorted({row["test_images"] for row in rows})
    return f"clean: all {counts[-1]:,} test images" if counts and counts != [protocol.get("images")] else ""


def row_label(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """`"resnet20 LIF"`, with what tells it from other `rows` of the same name: epochs, settings, recipe."""
    alike = [r for r in rows if (r["architecture"], r["variant"]) == (row["architecture"], row["variant"])]
    telling = [n for n in ("epochs", "settings", "recipe") if len({r[n] for r in alike}) > 1 and row[n]]
    return " ".join([row["architecture"], variant_name(row["variant"]), *(str(row[name]) for name in telling)])


def leaderboard_table(rows: Sequence[Mapping[str, Any]], dataset: str, note: str = "") -> Table:
    """The leaderboard's rows; a column for each attack any of them has."""
    attacks = list(dict.fromkeys(name for row in rows for name in row["attacks"]))
    header = ["rank", "architecture", "variant", "recipe", "epochs", "settings", "clean %", "robust %"]
    header += [f"{name} %" for name in attacks] + ["seeds", "verdict"]
    shown = [column for column in _costs_shown(rows) if any(column.text(row) != "–" for row in rows)]
    header += [column.name for column in shown]
    text = []
    for row in rows:
        figures = [row["clean_accuracy"], row["robust_accuracy"], *(row["attacks"].get(name) for name in attacks)]
        names = [row["architecture"], variant_name(row["variant"]), row["recipe"], row["epochs"]]
        names.append(", ".join(filter(None, [row["settings"], marks_text(row.get("as_published", ()))])))
        text.append([str(row["rank"] or "–"), *names, *map(percent, figures),
                     str(row["robust_accuracy"]["n"]), row["verdict"], *(column.text(row) for column in shown)])
    of_attacks = [name for attack in attacks for name in (attack, f"{attack}_sd")]
    columns = ["dataset", *_NAMES, *_ACCURACIES, "clean_accuracy_subset", "test_images", "seeds", *of_attacks,
               *_PROTOCOL, "eps", "as_published", *_COSTS]  # fmt: skip
    return Table(header, text, columns, [{"dataset": dataset, **_record(row, attacks)} for row in rows], note)


@dataclass(frozen=True)
class _Column:
    name: str
    text: Callable[[Mapping[str, Any]], str]


def _costs_shown(rows: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """Columns of what a prediction takes; precision where there are several."""
    several = len({row["precision"] for row in rows}) > 1
    return [
        *([_Column("precision", lambda row: str(row["precision"]))] if several else []),
        _Column("MB", lambda row: megabytes(row.get("size"))),
        _Column("ms", lambda row: milliseconds(row.get("latency"))),
        _Column("µJ", lambda row: microjoules(row.get("energy"))),
        _Column("corrupted %", lambda row: percent(row.get("corruptions"))),
    ]


def megabytes(size: float | None) -> str:
    """Of a file, in millions of bytes."""
    return "–" if size is None else f"{size / 1e6:.2f}"


def milliseconds(latency: Mapping[str, Any] | None) -> str:
    """The median of a prediction."""
    return "–" if latency is None else f"{latency['p50_ms']:.2f}"


def microjoules(energy: Mapping[str, Any] | None) -> str:
    """Of a prediction, estimated."""
    return "–" if energy is None else f"{energy['microjoules']:.1f}"


def matrix_table(matrix: Mapping[str, Any], note: str = "") -> Table:
    """Variants down, architectures across: `92.1 ± 0.2 <5,5>`; `(+2 more)` for rows of other settings."""
    architectures = matrix["architectures"]
    text = [
        [variant_name(line["variant"]), *(_cell(line["cells"][name]) for name in architectures)]
        for line in matrix["rows"]
    ]
    context = {"dataset": matrix["dataset"], "metric": matrix["metric"], **_protocol(matrix["protocol"], "eps")}
    clean = matrix["metric"] == "clean_accuracy"
    records = [
        {"variant": line["variant"], "architecture": name, **_cell_record(cell), **context,
         **({"images": cell["test_images"]} if clean else {})}
        for line in matrix["rows"]
        for name in architectures
        if (cell := line["cells"][name]) is not None
    ]
    return Table(["variant", *architectures], text, [*_MATRIX_NAMES], records, note)


def clean_cells(matrix: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cells of a matrix that hold clean accuracies: all or none."""
    clean = matrix["metric"] == "clean_accuracy"
    return [cell for line in matrix["rows"] for cell in line["cells"].values() if clean and cell]


def _protocol(protocol: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """What figures were measured under, a column each."""
    return {name: protocol.get(name) for name in (*_PROTOCOL, *more)}


def curves_table(answer: Mapping[str, Any]) -> Table:
    """The answer of `/curves`. For people a row a line and a column a radius; for programs a record a point. At eps 0
    stands the accuracy on the same images, unchanged."""
    lines, protocol = answer["lines"], {"norm": answer["norm"], **(answer["protocol"] or {})}
    context = {"dataset": answer["dataset"], "figure": answer["attack"] or "robust_accuracy", **_protocol(protocol)}
    radii = dict(sorted((p["eps"], p["eps_text"]) for line in lines for p in line["points"]))
    text, records = [], []
    for line in lines:
        at = {p["eps"]: p for p in line["points"]}
        cells = [percent(at[eps]["accuracy"]) if eps in at else "–" for eps in radii]
        text.append([line["label"], percent(line["clean_accuracy_subset"]), *cells, line["verdict"]])
        names = context | {name: line[name] for name in _CURVE_NAMES if name not in context}
        records += [names | _point_record(point) for point in (unattacked(line), *line["points"])]
    header = ["row", "eps 0 %", *(f"{text} %" for text in radii.values()), "verdict"]
    note = f"{answer['dataset']}: {measured_under(protocol, radius=False)}; mean ± standard deviation over seeds"
    return Table(header, text, [*_CURVE_NAMES, *_POINT_NAMES, *_PROTOCOL], records, note)


def unattacked(line: Mapping[str, Any]) -> dict[str, Any]:
    """The point at eps 0 of a line of `/curves`, or of a row's curve: of the images that are attacked at the others."""
    return {"eps": 0.0, "eps_text": "0", "accuracy": line["clean_accuracy_subset"], "verdict": OK, "row": None}


def comparison_table(answer: Mapping[str, Any]) -> Table:
    """The answer of `/compare`: a row a figure, in points of a per cent; for programs also a record a seed."""
    a, b, common = answer["a"], answer["b"], answer["seeds"]["common"]
    labels = [f"{letter}: {row_label(row, [a, b])} %" for letter, row in (("A", a), ("B", b))]
    context = {"dataset": answer["dataset"], **_protocol(answer["protocol"])}
    text, records = [], []
    for names, sides, difference in _compared(answer):
        of = {"images": a["test_images"]} if names["figure"] == "clean_accuracy" else {}
        shares = [_over(side, common) for side in sides]
        text.append([_figure_text(names, answer["protocol"]), *(_percent_of(s) for s in shares),
                     *_difference_text(difference)])
        records += [context | of | record for record in _difference_records(names, sides, shares, difference)]
    header = ["figure", *labels, "A − B, points", "95 % interval", "p", "seeds"]
    images = clean_images((a, b), answer["protocol"])
    under = "; ".join(filter(None, [measured_under(answer["protocol"]), images]))
    note = f"{answer['dataset']}: {under}. {answer['conclusion']}"
    return Table(header, text, list(_DIFFERENCE_NAMES), records, note)


Compared = tuple[dict[str, Any], tuple[Mapping[str, Any] | None, Mapping[str, Any] | None], Mapping[str, Any]]


def _compared(answer: Mapping[str, Any]) -> Iterable[Compared]:
    """What is compared: its names, the figure of either side, their difference."""
    a, b, protocol = answer["a"], answer["b"], answer["protocol"]
    at = {"eps": protocol["eps"], "eps_text": protocol["eps_text"]}
    if answer["clean_accuracy"] is None:
        return
    for name in ("clean_accuracy", "clean_accuracy_subset"):
        yield {"figure": name}, (a[name], b[name]), answer[name]
    curves = [{point["eps"]: point["robust_accuracy"] for point in row["curve"]} for row in (a, b)]
    for point in answer["curve"]:
        names = {"figure": "robust_accuracy", "eps": point["eps"], "eps_text": point["eps_text"]}
        yield names, (curves[0].get(point["eps"]), curves[1].get(point["eps"])), point["robust_accuracy"]
    for name, difference in answer["attacks"].items():
        yield {"figure": "attack", "attack": name, **at}, (a["attacks"][name], b["attacks"][name]), difference


def _over(figure: Mapping[str, Any] | None, seeds: Sequence[int]) -> float | None:
    """Its mean over these seeds."""
    return None if figure is None else fmean(figure["by_seed"][str(seed)] for seed in seeds)


def _percent_of(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def points(share: float) -> str:
    """`"+3.1"` points of a per cent; `"−0.4"` with a minus as long as the plus."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _figure_text(names: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    if names["figure"] == "clean_accuracy":
        return "clean accuracy, all test images"
    if names["figure"] == "clean_accuracy_subset":
        return "clean accuracy, attacked images"
    if names["figure"] == "robust_accuracy":
        return f"robust accuracy, eps {names['eps_text']}"
    return f"{'after' if protocol.get('survivors') else 'under'} {names['attack']}, eps {names['eps_text']}"


def _difference_text(difference: Mapping[str, Any]) -> list[str]:
    interval = "–" if difference["ci95"] is None else " to ".join(map(points, difference["ci95"]))
    p = difference["p"]
    p_text = "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [points(difference["mean"]), interval, p_text, str(difference["n"])]


def _difference_records(
    names: Mapping[str, Any], sides: tuple[Mapping[str, Any] | None, ...], shares: Sequence[float | None],
    difference: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One over all common seeds (its `seed` is empty), then one a seed."""
    low, high = difference["ci95"] or (None, None)
    over_all = {"a": shares[0], "b": shares[1], "difference": difference["mean"], "sd": difference["sd"], "low": low,
                "high": high, "seeds": difference["n"], "p": difference["p"]}  # fmt: skip
    by_seed = [
        {"seed": int(seed), "difference": value,
         **{name: side and side["by_seed"][seed] for name, side in zip("ab", sides, strict=True)}}
        for seed, value in difference["by_seed"].items()
    ]  # fmt: skip
    return [{**names, **record} for record in (over_all, *by_seed)]


def _point_record(point: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = point["accuracy"]
    values = (point["eps"], point["eps_text"], accuracy["mean"], accuracy["sd"], *accuracy["ci95"], accuracy["n"],
              point["verdict"], point["row"])  # fmt: skip
    return dict(zip(_POINT_NAMES, values, strict=True))


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return f"{percent(cell)} {cell['epochs']}" + (f" (+{cell['others']} more)" if cell["others"] else "")


def _cell_record(cell: Mapping[str, Any]) -> dict[str, Any]:
    low, high = cell["ci95"]
    same = {name: cell[name] for name in _CELL_NAMES if name not in ("low", "high")}
    return same | {"low": low, "high": high}


def _cost_record(row: Mapping[str, Any]) -> dict[str, Any]:
    latency, energy, corruptions = (row.get(name) or {} for name in ("latency", "energy", "corruptions"))
    rates = energy.get("spike_rates", {})
    values = (
        _count(row.get("size")), latency.get("p50_ms"), latency.get("machine"), energy.get("microjoules"),
        _count(energy.get("multiply_adds")), energy.get("synaptic_operations"), rates.get("input"),
        rates.get("neurons"), corruptions.get("mean"), corruptions.get("sd"),
    )
    return dict(zip(_COSTS, values, strict=True))


def _count(mean: float | None) -> float | None:
    """A mean over seeds of something counted: whole where all seeds have the same."""
    return int(mean) if mean is not None and mean == int(mean) else mean


def _record(row: Mapping[str, Any], attacks: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {name: row[name] for name in _NAMES} | {"as_published": " ".join(row["as_published"])}
    for name in ("clean_accuracy", "robust_accuracy"):
        figure = row[name]
        record |= {name: figure["mean"], f"{name}_sd": figure["sd"], f"{name}_low": figure["ci95"][0],
                   f"{name}_high": figure["ci95"][1]}
    record["seeds"] = row["robust_accuracy"]["n"]
    record |= {"clean_accuracy_subset": row["clean_accuracy_subset"]["mean"], "test_images": row["test_images"]}
    record |= _cost_record(row)
    for attack in attacks:
        figure = row["attacks"].get(attack) or {}
        record |= {attack: figure.get("mean"), f"{attack}_sd": figure.get("sd")}
    return record | _protocol(row["protocol"], "eps")
