"""Leaderboard and matrix as CSV, Markdown and LaTeX.

CSV has the raw fractions of the JSON; Markdown and LaTeX have per cent with deviations.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["csv", "md", "latex"]
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "md": "text/markdown", "latex": "application/x-latex"}
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
          ">": r"\textgreater{}", "±": r"$\pm$"}  # fmt: skip


# The columns of the leaderboard's CSV; one for each attack stands before the protocol's.
_NAMES = ("rank", "architecture", "variant", "recipe", "precision", "epochs", "settings", "verdict", "draws",
          "parameters", "id")
_ACCURACIES = tuple(
    f"{figure}_accuracy{part}" for figure in ("clean", "robust") for part in ("", "_sd", "_low", "_high")
)
_PROTOCOL = ("norm", "eps", "suite", "images")

_CURVE_NAMES = ("label", "architecture", "variant", "recipe", "precision", "epochs", "settings")
_POINT_NAMES = ("eps", "eps_text", "accuracy", "accuracy_sd", "accuracy_low", "accuracy_high", "seeds", "verdict",
                "row")


@dataclass(frozen=True)
class Table:
    """For people: `header` and `rows` of text. For programs: `records` of raw values under `columns`."""

    header: list[str]
    rows: list[list[str]]
    columns: list[str]
    records: list[dict[str, Any]]


def percent(figure: Mapping[str, Any] | None) -> str:
    """`{"mean": .9213, "sd": .0021, ...}` -> `"92.1 ± 0.2"`, without a deviation where there is one seed."""
    if figure is None:
        return "–"
    mean = f"{100 * figure['mean']:.1f}"
    return mean if figure["sd"] is None else f"{mean} ± {100 * figure['sd']:.1f}"


def leaderboard_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The leaderboard's rows; a column for each attack any of them has."""
    attacks = list(dict.fromkeys(name for row in rows for name in row["attacks"]))
    header = ["rank", "architecture", "variant", "recipe", "epochs", "settings", "clean %", "robust %"]
    header += [f"{name} %" for name in attacks] + ["seeds", "verdict"]
    text = []
    for row in rows:
        figures = [row["clean_accuracy"], row["robust_accuracy"], *(row["attacks"].get(name) for name in attacks)]
        names = [row[name] for name in ("architecture", "variant", "recipe", "epochs", "settings")]
        text.append([str(row["rank"] or "–"), *names, *map(percent, figures),
                     str(row["robust_accuracy"]["n"]), row["verdict"]])
    columns = [*_NAMES, *_ACCURACIES, "seeds", *attacks, *_PROTOCOL]
    return Table(header, text, columns, [_record(row, attacks) for row in rows])


def matrix_table(matrix: Mapping[str, Any]) -> Table:
    """Variants down, architectures across: `92.1 ± 0.2 <5,5>`; `(+2 more)` for rows of other settings."""
    architectures = matrix["architectures"]
    text = [
        [line["variant"], *(_cell(line["cells"][name]) for name in architectures)] for line in matrix["rows"]
    ]
    values = ("mean", "sd", "n", "epochs", "settings", "others")
    records = [
        {"variant": line["variant"], "architecture": name, **{k: cell[k] for k in values}}
        for line in matrix["rows"]
        for name in architectures
        if (cell := line["cells"][name]) is not None
    ]
    return Table(["variant", *architectures], text, ["variant", "architecture", *values], records)


def curves_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """For people a row a line and a column a radius; for programs a record a point."""
    radii = dict(sorted((p["eps"], p["eps_text"]) for line in lines for p in line["points"]))
    text, records = [], []
    for line in lines:
        at = {p["eps"]: p for p in line["points"]}
        cells = [percent(at[eps]["accuracy"]) if eps in at else "–" for eps in radii]
        text.append([line["label"], percent(line["clean_accuracy"]), *cells, line["verdict"]])
        names = {name: line[name] for name in _CURVE_NAMES}
        records += [names | _point_record(point) for point in line["points"]]
    header = ["row", "clean %", *(f"{text} %" for text in radii.values()), "verdict"]
    return Table(header, text, [*_CURVE_NAMES, *_POINT_NAMES], records)


def _point_record(point: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = point["accuracy"]
    values = (point["eps"], point["eps_text"], accuracy["mean"], accuracy["sd"], *accuracy["ci95"], accuracy["n"],
              point["verdict"], point["row"])  # fmt: skip
    return dict(zip(_POINT_NAMES, values, strict=True))


def render(table: Table, form: Format) -> str:
    """The table as text of that form."""
    return {"csv": _csv, "md": _markdown, "latex": _latex}[form](table)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return f"{percent(cell)} {cell['epochs']}" + (f" (+{cell['others']} more)" if cell["others"] else "")


def _record(row: Mapping[str, Any], attacks: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {name: row[name] for name in _NAMES}
    for name in ("clean_accuracy", "robust_accuracy"):
        figure = row[name]
        record |= {name: figure["mean"], f"{name}_sd": figure["sd"], f"{name}_low": figure["ci95"][0],
                   f"{name}_high": figure["ci95"][1]}
    record["seeds"] = row["robust_accuracy"]["n"]
    record |= {name: (row["attacks"].get(name) or {}).get("mean") for name in attacks}
    return record | {name: row["protocol"][name] for name in _PROTOCOL}


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=table.columns)
    writer.writeheader()
    writer.writerows(table.records)
    return out.getvalue()


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("<", "&lt;") for c in cells) + " |\n"

    return line(table.header) + "|" + "---|" * len(table.header) + "\n" + "".join(map(line, table.rows))


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(ch, "--" if ch == "–" else ch) for ch in c) for c in cells) + " \\\\\n"

    body = line(table.header) + "\\midrule\n" + "".join(map(line, table.rows))
    begin = f"\\begin{{tabular}}{{{'l' * len(table.header)}}}"
    return f"% needs \\usepackage{{booktabs}}\n{begin}\n\\toprule\n{body}\\bottomrule\n\\end{{tabular}}\n"
