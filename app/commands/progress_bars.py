"""What the command line shows while an experiment runs, and at its end."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.client import Client
from app.domain.architectures import variant_name
from app.domain.lifecycle import TERMINAL
from app.reports.tables import clean_images, measured_under, percent

_BOUNDLESS = Console(width=100_000)
MOST_ACROSS = 4  # radii that fit beside a row's name in 80 columns


def follow(client: Client, experiment: dict[str, Any], console: Console | None = None) -> dict[str, Any]:
    """A bar a run until the experiment has ended. Without a terminal: a line each time a run ends."""
    console = console or Console()
    if not console.is_terminal:
        return _follow_in_lines(client, experiment, console)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def update(now: dict[str, Any]) -> None:
            for run in now["runs"]:
                if run["id"] not in tasks:
                    tasks[run["id"]] = progress.add_task(describe(run), total=1.0, state=run["state"], start=False)
                if run["state"] != "queued":
                    progress.start_task(tasks[run["id"]])
                shown = run["phase"] or run["state"]
                progress.update(tasks[run["id"]], completed=_done(run), state=shown)
                if run["state"] in TERMINAL:
                    progress.stop_task(tasks[run["id"]])

        return client.wait(experiment["id"], update)


def _follow_in_lines(client: Client, experiment: dict[str, Any], console: Console) -> dict[str, Any]:
    told: set[str] = set()

    def update(now: dict[str, Any]) -> None:
        for run in now["runs"]:
            if run["state"] in TERMINAL and run["id"] not in told:
                told.add(run["id"])
                console.print(f"[{len(told)}/{len(now['runs'])}] {describe(run)}: {run['state']}", markup=False)

    return client.wait(experiment["id"], update)


def describe(run: dict[str, Any]) -> str:
    """`"branch resnet20 lif, seed 0"`."""
    return f"{run['kind']} {run['architecture']} {variant_name(run['variant'])}, seed {run['seed']}"


def _done(run: dict[str, Any]) -> float:
    return 1.0 if run["state"] in TERMINAL else float(run["progress"])


def print_board(board: dict[str, Any], console: Console | None = None) -> None:
    """The leaderboard for a terminal, with the robust accuracy of each row at every radius measured."""
    console = console or Console()
    if not board["rows"]:
        console.print(f"nothing has been measured on {board['dataset']} yet")
        return
    protocol = board["protocol"]
    title = (
        f"{board['dataset']}: {measured_under(protocol)}, {_seeds(board['rows'][0]['robust_accuracy']['n'])}"
    )
    if images := clean_images(board["rows"], protocol):
        title += f"; {images}"
    names = ["rank", "architecture", "variant", "epochs"]
    header = [*names, "clean %", "robust %", "verdict"]
    _show(console, title, header, [_line(row) for row in board["rows"]], ("epochs", "architecture", "clean %"))
    attacks = list(board["rows"][0]["attacks"])
    left = [[*_name(row), *(percent(row["attacks"].get(name)) for name in attacks)] for row in board["rows"]]
    title = f"accuracy % left after each attack at {protocol['eps_text']}"
    under = [f"{name} %" for name in attacks]
    _show(console, title, ["architecture", "variant", *under], left, ("architecture", *under))
    _show(console, *_curves(board["rows"]))
    for row in board["rows"]:
        for reason in row["reasons"]:
            console.print(f"{row['architecture']} {variant_name(row['variant'])}: {reason}")


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _curves(rows: Sequence[dict[str, Any]]) -> tuple[str, list[str], list[list[str]], Sequence[str]]:
    """Robust accuracy at every radius measured; what there is less of, radii or rows, goes across."""
    title = "robust accuracy % as eps grows"
    radii = {point["eps"]: point["eps_text"] for row in rows for point in row["curve"]}
    at = [{point["eps"]: percent(point["robust_accuracy"]) for point in row["curve"]} for row in rows]
    curves = [[curve.get(eps, "") for eps in sorted(radii)] for curve in at]
    names = [radii[eps] for eps in sorted(radii)]
    if len(names) <= max(len(rows), MOST_ACROSS):
        body = [[*_name(row), *curve] for row, curve in zip(rows, curves, strict=True)]
        return title, ["architecture", "variant", *names], body, ("architecture", *names)
    across = [f"{' '.join(_name(row))} %" for row in rows]
    return title, ["eps", *across], [[name, *(c[i] for c in curves)] for i, name in enumerate(names)], across[::-1]


def _name(row: dict[str, Any]) -> list[str]:
    """Architecture and variant; two rows that differ in their settings can be told apart."""
    return [row["architecture"], " ".join(filter(None, (variant_name(row["variant"]), row["settings"])))]


def _line(row: dict[str, Any]) -> list[str]:
    figures = (percent(row["clean_accuracy"]), percent(row["robust_accuracy"]))
    return [str(row["rank"] or "–"), *_name(row), row["epochs"], *figures, row["verdict"]]


def _show(
    console: Console, title: str, header: list[str], rows: list[list[str]], dispensable: Sequence[str]
) -> None:
    """As wide as it needs where nobody looks; in a narrow terminal without `dispensable` columns, the first of them
    first, as many as it takes, and says which."""
    left_out: list[str] = []
    table = _rich(title, header, rows)
    width = _width(table)
    while console.is_terminal and width > console.width and len(left_out) < len(dispensable):
        left_out.append(dispensable[len(left_out)])
        kept = [place for place, name in enumerate(header) if name not in left_out]
        table = _rich(title, [header[place] for place in kept], [[row[place] for place in kept] for row in rows])
        width = _width(table)
    if not console.is_terminal:
        console.width = max(console.width, width, len(title))
    console.print(table)
    if left_out:
        console.print(f"without {', '.join(left_out)}: the terminal is too narrow", markup=False)


def _width(table: Table) -> int:
    """That no cell is cut at."""
    return Measurement.get(_BOUNDLESS, _BOUNDLESS.options, table).maximum


def _rich(title: str, header: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if "%" in name or name[0].isdigit() else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
