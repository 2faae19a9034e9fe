"""`spikeproof`: the command line. Each command loads only what it needs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.keys import keys_cli
from app.commands.maintenance import commands
from app.domain.errors import SpikeproofError

if TYPE_CHECKING:
    from app.client import Client
    from app.launcher import Launcher

cli = typer.Typer(
    name="spikeproof", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Trains default, LIF and ParaLIF ResNets, attacks them, and tells how robust they really are.",
)
cli.add_typer(commands)
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port")]
Host = Annotated[str | None, typer.Option(help="address to listen on")]


def main() -> None:
    """Entry of the `spikeproof` command: an error of ours is one line, not a stack trace."""
    try:
        cli(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit("spikeproof: stopped; what was stored is gone on from next time")
    except Exception as error:
        detail = _in_one_line(error)
        if detail is None:
            raise
        sys.exit(f"spikeproof: {detail}")


def _in_one_line(error: Exception) -> str | None:
    """What to tell of an error that a user can do something about; None for a bug."""
    from pydantic import ValidationError
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, SpikeproofError):
        return error.detail
    if isinstance(error, ValidationError):
        return "; ".join(map(_setting_fault, error.errors()))
    if isinstance(error, SQLAlchemyError):
        return f"the database cannot be used ({str(error).splitlines()[0]}); check SPIKEPROOF_DATABASE_URL"
    return str(error) if isinstance(error, OSError) else None


def _setting_fault(fault: Any) -> str:
    name = "".join(f"SPIKEPROOF_{part.upper()}: " for part in fault["loc"])
    return name + str(fault["msg"]).removeprefix("Value error, ")


@cli.command()
def serve(
    port: Port = None,
    host: Host = None,
    api_only: Annotated[bool, typer.Option("--api-only", help="no workers: `spikeproof worker` starts them")] = False,
) -> None:
    """Start the service, API and workers, until Ctrl-C: embedded on SQLite unless the settings say otherwise."""
    from app.launcher import Launcher
    from app.settings import settings

    given = {name: value for name, value in {"port": port, "host": host}.items() if value is not None}
    launcher = Launcher(settings().model_copy(update=given), workers=not api_only)
    _run(launcher, lambda: f"spikeproof is at {launcher.url}  (API: {launcher.url}/docs){launcher.advice()}")


@cli.command()
def worker() -> None:
    """Start workers on the database, broker and data folder of the settings, one a GPU, until Ctrl-C."""
    from app.launcher import Launcher
    from app.settings import settings

    launcher = Launcher(settings(), api=False)
    _run(launcher, lambda: f"spikeproof has {len(launcher.children)} worker(s) here, on {settings().data_dir}")


def _run(launcher: "Launcher", started: Callable[[], str]) -> None:
    from app.domain import catalogues
    from app.launcher import install_signals
    from app.logs import configure

    catalogues.load()
    configure(json=launcher.settings.log_json)
    install_signals(launcher)
    with launcher:
        print(started(), flush=True)
        launcher.run()


@cli.command()
def demo() -> None:
    """Train and attack ResNet-20 in three variants on real scans of digits; print the leaderboard."""
    from app.commands.demo import run_demo

    run_demo()


@cli.command()
def submit(
    file: Annotated[Path | None, typer.Argument(help="YAML or JSON: the body of POST /experiments")] = None,
    preset: Annotated[str | None, typer.Option(help="experiments by name, see `spikeproof presets`")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="of a preset: from scratch, without ImageNet")] = False,
    small: Annotated[bool, typer.Option("--small", help="of a preset: to see it run, in minutes on a CPU")] = False,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="of a preset: compute what the study computed, marked as such")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="stay until it has ended, showing progress")] = False,
) -> None:
    """Queue an experiment, from a file or by the name of a preset."""
    from app.commands.experiment_file import read_experiment
    from app.commands.presets import submit_preset
    from app.commands.progress_bars import follow

    if (file is None) == (preset is None):
        raise SpikeproofError("name either a file or, with --preset, a preset; `spikeproof presets` lists them")
    if file is None:
        with _client() as client:
            forms = {"offline": offline, "small": small, "as_published": as_published}
            done = submit_preset(client, str(preset), **forms, wait=wait)
        raise typer.Exit(0 if done else 1)
    if offline or small or as_published:
        said = "--offline, --small and --as-published are forms of a preset"
        raise SpikeproofError(f"{said}; a file says all of it itself")
    spec = read_experiment(file)
    with _client() as client:
        experiment = client.submit(spec)
        print(experiment["id"])
        if wait and follow(client, experiment)["state"] != "succeeded":
            raise typer.Exit(1)


@cli.command()
def experiments(dataset: str | None = None, state: str | None = None) -> None:
    """List the newest experiments."""
    with _client() as client:
        filters = {k: v for k, v in {"dataset": dataset, "state": state}.items() if v is not None}
        rows = [
            [e["id"], e["name"] or "", e["dataset"], e["state"], f"{e['progress']:.0%}", e["created_at"]]
            for e in client.experiments(**filters)
        ]
    _print_table(["id", "name", "dataset", "state", "done", "created"], rows)


@cli.command()
def cancel(id: Annotated[str, typer.Argument(help="of an experiment, or of a verification's run")]) -> None:
    """Cancel an experiment; runs that another one wants go on."""
    with _client() as client:
        print((client.cancel_run if id.startswith("run_") else client.cancel)(id)["state"])


@cli.command()
def verify(
    checkpoint: str,
    wait: Annotated[bool, typer.Option("--wait", help="stay until there is a verdict")] = False,
) -> None:
    """Compute the stored figures of a checkpoint again from its file; with --wait, 1 where they do not agree."""
    with _client() as client:
        run = client.verify(checkpoint)
        print(run["id"])
        if not wait:
            return
        run = client.wait_for_run(run["id"])
    if run["state"] != "succeeded":
        raise SpikeproofError(f"the verification came to no verdict: {run['error'] or run['state']}")
    print(run["metrics"]["text"])
    if not run["metrics"]["agrees"]:
        raise typer.Exit(1)


@cli.command()
def leaderboard(
    dataset: Annotated[str, typer.Option()],
    format: Annotated[str, typer.Option(help="table, md, csv, latex or json")] = "table",
    eps: str | None = None,
    norm: str | None = None,
    suite: str | None = None,
) -> None:
    """Print the leaderboard of a data set."""
    import json

    from app.commands.progress_bars import print_board

    if format not in ("table", "md", "csv", "latex", "json"):
        raise SpikeproofError(f"unknown format {format!r}; use table, md, csv, latex or json")
    filters = {k: v for k, v in {"eps": eps, "norm": norm, "suite": suite}.items() if v is not None}
    with _client() as client:
        if format in ("md", "csv", "latex"):
            print(client.leaderboard_text(dataset, format, **filters), end="")
        elif format == "json":
            print(json.dumps(client.leaderboard(dataset, **filters), indent=2))
        else:
            print_board(client.leaderboard(dataset, **filters))


@cli.command()
def report(
    experiment: str,
    output: Annotated[Path | None, typer.Option(help="the file to write; EXPERIMENT.html, if none is named")] = None,
) -> None:
    """Write all about an experiment as one HTML page that needs nothing else."""
    file = output or Path(f"{experiment}.html")
    with _client() as client:
        file.write_text(client.report(experiment), "utf-8")
    print(file)


@cli.command()
def card(checkpoint: str) -> None:
    """Print the model card of a checkpoint, in Markdown."""
    with _client() as client:
        print(client.card(checkpoint), end="")


@cli.command()
def predict(checkpoint: str, images: list[Path], draws: int = 20, seed: int = 0, top: int = 3) -> None:
    """Classify PNG or JPEG images with a checkpoint."""
    for path in images:
        if not path.is_file():
            raise SpikeproofError(f"there is no image {path}")
    with _client() as client:
        answer = client.predict(checkpoint, images, draws=draws, seed=seed, top=top)
    for path, prediction in zip(images, answer["predictions"], strict=True):
        print(f"{path}: " + ", ".join(map(_class_text, prediction["top"])))


def _class_text(entry: dict[str, Any]) -> str:
    spread = "" if entry["sd"] is None else f" ± {100 * entry['sd']:.1f}"
    return f"{entry['class']} {100 * entry['probability']:.1f}{spread} %"


@cli.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="a PyTorch state dict (.pth), or safetensors")],
    architecture: str | None = None,
    dataset: str | None = None,
    variant: str | None = None,
    stem: str | None = None,
    image_size: str | None = None,
    mean: Annotated[str | None, typer.Option(help="a channel each, comma separated")] = None,
    std: Annotated[str | None, typer.Option(help="a channel each, comma separated")] = None,
    seed: str | None = None,
    name: Annotated[str | None, typer.Option(help="label of its rows")] = None,
    epochs: Annotated[str | None, typer.Option(help="'<200>', or '<5,5>' for a branch")] = None,
    decoder: Annotated[str | None, typer.Option(help="settings of a spiking decoder, as JSON")] = None,
    output: Annotated[Path | None, typer.Option(help="only write this safetensors file, to upload elsewhere")] = None,
) -> None:
    """Make a checkpoint of weights of one's own; needs no running service."""
    from app.commands.importing import import_file

    said = {
        "architecture": architecture, "dataset": dataset, "variant": variant, "stem": stem, "image_size": image_size,
        "mean": mean, "std": std, "seed": seed, "name": name, "epochs": epochs, "decoder": decoder,
    }
    print(import_file(file, {key: value for key, value in said.items() if value is not None}, output))


@cli.command()
def export(
    checkpoint: str,
    format: Annotated[str, typer.Option(help="torch (torch.export) or onnx")] = "torch",
    part: Annotated[
        str, typer.Option(help="network; of a stochastic one expected (its mean logits) or encoder")
    ] = "network",
    output: Annotated[Path | None, typer.Option(help="else named by the checkpoint, here")] = None,
) -> None:
    """Write a network for another runtime, compared with itself on test images; needs no running service."""
    import runpy

    target = [] if output is None else ["--output", str(output)]
    sys.argv = ["spikeproof-export", checkpoint, "--format", format, "--part", part, *target]
    runpy.run_module("worker.export", run_name="__main__")


datasets_cli = typer.Typer()
cli.add_typer(datasets_cli, name="datasets")


@datasets_cli.callback(invoke_without_command=True)
def datasets(context: typer.Context) -> None:
    """List data sets, or fetch them; needs no running service."""
    if context.invoked_subcommand is not None:
        return
    from app.domain.errors import Conflict
    from app.settings import settings
    from app.storage import datasets as local

    rows = []
    for name in local.names(settings().data_dir):
        try:
            found = local.find(name, settings().data_dir)
        except Conflict as error:
            rows.append([name, "", "", "", error.detail])
            continue
        size = f"{found.train_size} + {found.test_size}"
        shape = "x".join(map(str, found.shape))
        rows.append([name, str(len(found.classes)), shape, size, "here" if found.present else "not here"])
    _print_table(["name", "classes", "shape", "train + test", ""], rows)


@datasets_cli.command()
def fetch(names: Annotated[list[str], typer.Argument(help="data sets to download now, or `all`")]) -> None:
    """Download data sets ahead of their first use; safe beside running workers."""
    import runpy

    sys.argv = ["spikeproof-fetch", *names]
    runpy.run_module("worker.fetch", run_name="__main__")


cli.add_typer(keys_cli, name="keys")


@cli.command()
def attacks() -> None:
    """List attacks and suites; needs no running service."""
    from app.domain.attacks import ATTACKS
    from app.domain.suites import SUITES

    rows = [[a.name, a.title, ", ".join(a.norms), a.box, a.reference] for a in ATTACKS.values()]
    _print_table(["attack", "", "norms", "box", "reference"], rows)
    _print_table(["suite", ""], [[s.name, s.title] for s in SUITES.values()])


@cli.command()
def presets() -> None:
    """List experiments by name; needs no running service."""
    from app.domain.presets import PRESETS, stages

    counts = {name: sum(map(len, stages(name))) for name in PRESETS}
    rows = [[p.name, p.title, str(counts[p.name]), "yes" if p.offline else "the same"] for p in PRESETS.values()]
    _print_table(["preset", "", "experiments", "other form offline"], rows)


@cli.command()
def doctor() -> None:
    """Check what the service needs here: versions, devices, data folder, database."""
    from app.commands.doctor import checks

    failed = False
    for name, ok, detail in checks():
        print(f"{'ok  ' if ok else 'FAIL'}  {name}: {detail}")
        failed |= not ok
    raise typer.Exit(1 if failed else 0)


def _client() -> "Client":
    from app.client import Client
    from app.settings import settings

    return Client(settings().url, settings().api_key)


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    from app.commands.terminal_table import print_table

    print_table(header, rows)


if __name__ == "__main__":
    main()
