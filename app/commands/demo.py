"""The quick start, end to end: `spikeproof demo`."""

import json
import shutil
import signal
import threading
from typing import Any

from rich.console import Console

from app.client import Client
from app.commands.progress_bars import describe, follow, print_board
from app.domain.errors import SpikeproofError
from app.domain.presets import stages
from app.launcher import Launcher
from app.settings import settings

[[QUICK_START]] = stages("quickstart")
WORKERS = 2


def run_demo() -> None:
    """Starts the service on a free port, runs the quick start, prints and writes the leaderboard, stops.

    Raises SpikeproofError when a run fails.
    """
    console = Console()
    alone = {"host": "127.0.0.1", "published_host": "", "keys": "auto", "port": 0}  # whatever is set for a service
    config = settings().model_copy(update={**alone, "workers": settings().workers or WORKERS})
    config.data_dir.mkdir(parents=True, exist_ok=True)
    with (config.data_dir / "service.log").open("ab") as log, Launcher(config, output=log) as launcher:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way the service is stopped in order
        console.print(f"The service is at {launcher.url}, its log in {config.data_dir / 'service.log'}.")
        keeper = threading.Thread(target=launcher.run, daemon=True)
        keeper.start()
        try:
            with Client(launcher.url, api_key="") as client:
                experiment = follow(client, client.submit(QUICK_START), console)
                _check(client, experiment)
                board = client.leaderboard(QUICK_START["dataset"])
                checkpoints = client.checkpoints(dataset=QUICK_START["dataset"], variant="lif")
        finally:
            launcher.stop()
            keeper.join()
    path = config.data_dir / "leaderboard.json"
    path.write_text(json.dumps(board, indent=2) + "\n")
    print_board(board, console)
    console.print(f"\nThe same as data: {path}")
    command = "spikeproof" if shutil.which("spikeproof") else ".venv/bin/spikeproof"
    console.print(f"Now: `{command} serve`, then for a prediction", highlight=False)
    console.print(f"  {command} predict {checkpoints[0]['id']} IMAGE.png", highlight=False)


def _check(client: Client, experiment: dict[str, Any]) -> None:
    failed = [run for run in experiment["runs"] if run["state"] != "succeeded"]
    if failed:
        lines = [f"{describe(run)} {run['state']}: {run['error'] or 'no reason given'}" for run in failed]
        log = client.run(failed[0]["id"])["log"].strip().splitlines()[-5:]
        raise SpikeproofError("\n  ".join(["the demo did not succeed:", *lines, *log]))
