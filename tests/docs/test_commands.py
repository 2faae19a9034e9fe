"""Every command of the README and the pages that a CPU ends within a minute, typed as it stands there.

All run against one service, with the networks of the tutorial, whose experiment is made small.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from app.client import Client
from tests.conftest import REPOSITORY
from tests.docs.commands import Command, commands, files, missing
from tests.end_to_end.conftest import Service

pytestmark = pytest.mark.xdist_group("commands")  # one service
DOCS = REPOSITORY / "docs"
TUTORIAL = DOCS / "tutorial.md"
LAST = DOCS / "how-to" / "looking-after.md"  # it deletes the experiment
PAGES = [TUTORIAL, REPOSITORY / "README.md",
         *sorted({*DOCS.rglob("*.md")} - {TUTORIAL, LAST} - {*DOCS.glob("results/*"), *DOCS.glob("decisions/*")}), LAST]
SMALL = {"seeds": [0], "training": {"images": 400, "epochs": 4, "branch_epochs": 2}, "evaluation": {"images": 4}}
PATIENCE = 300  # seconds for a command on a machine that has other work


@dataclass
class Desk:
    """Where the commands are typed."""

    service: Service
    folder: Path
    attacked: str = ""

    @property
    def client(self) -> Client:
        return self.service.client()

    def write(self, page: Path) -> None:
        """The files that the page has one write, their experiments small."""
        for name, text in files(page).items():
            spec = yaml.safe_load(text)
            small = spec | SMALL | {"evaluation": spec.get("evaluation", {}) | SMALL["evaluation"]}
            (self.folder / name).write_text(yaml.safe_dump(small))

    def type(self, command: Command) -> subprocess.CompletedProcess[str]:
        """Runs it in a shell; what a request starts is not waited for, unless the command does so."""
        environment = {**os.environ, "SPIKEPROOF_URL": self.service.url, "COLUMNS": "200",
                       "SPIKEPROOF_DATA_DIR": str(self.service.data_dir), "PYTHONPATH": str(REPOSITORY),
                       "PATH": os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent),
                                                os.environ["PATH"]])}  # fmt: skip
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.filled(command.text)], cwd=self.folder, env=environment,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )
        if command.text.endswith("/attack"):
            self.attacked = self.client.wait_for_run(yaml.safe_load(done.stdout)["id"])["id"]
        for experiment in self.client.experiments():
            if experiment["state"] in ("queued", "running"):
                self.client.cancel(experiment["id"])
        return done

    def filled(self, text: str) -> str:
        """With the service's address and ids of what it has."""
        for address in ("http://127.0.0.1:8000", "localhost:8000"):
            text = text.replace(address, self.service.url)
        for word, found in {"CHECKPOINT": self._checkpoint, "EVALUATION": self._evaluation, "ROW": self._row,
                            "EXPERIMENT": self._experiment, "ATTACK": lambda _: self.attacked}.items():  # fmt: skip
            for number in range(text.count(word)):
                text = text.replace(word, found(number), 1)
        return text

    def _checkpoint(self, number: int) -> str:
        return str(self.client.checkpoints(dataset="digits", variant="paralif")[0]["id"])

    def _evaluation(self, number: int) -> str:
        runs = self.client.experiment(self._experiment(0))["runs"]
        return str(next(run["id"] for run in runs if run["kind"] == "evaluate"))

    def _row(self, number: int) -> str:
        return str(self.client.leaderboard("digits")["rows"][number]["id"])

    def _experiment(self, number: int) -> str:
        return str(self.client.experiments(state="succeeded")[0]["id"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A service, and a folder with images beside a `.venv` that is ours. `curl` fails where the answer is an error."""
    folder, data = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("data")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").mkdir()
    script(folder / ".venv" / "bin" / "spikeproof", f'exec "{sys.executable}" -m app.cli "$@"')
    (folder / "bin").mkdir()
    script(folder / "bin" / "curl", 'PATH=${PATH#*:} exec curl --fail-with-body "$@"')
    for name in ("a.png", "b.png"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / name)
    service = Service(data)
    try:
        yield Desk(service.start(), folder)
    finally:
        service.stop()


def script(place: Path, text: str) -> None:
    place.write_text(f"#!/usr/bin/env bash\n{text}\n")
    place.chmod(0o755)


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands(page, REPOSITORY)]], ids=lambda page: page.name)
def test_every_command_ends_well_and_shows_what_the_page_shows(page: Path, desk: Desk) -> None:
    desk.write(page)
    wrong: list[Any] = []
    for command in commands(page, REPOSITORY):
        done = desk.type(command)
        place = f"{command.page}:{command.line}: {command.text}"
        if done.returncode:
            wrong.append(f"{place}\nended with {done.returncode}: {done.stderr[-500:]}{done.stdout[-500:]}")
        elif lines := missing(command.output, done.stdout):
            wrong.append(f"{place}\ndid not show {lines[0]!r}, but\n{done.stdout[-1000:]}")
    assert not wrong, "\n\n".join(wrong)


def test_commands_that_are_not_run_say_why() -> None:
    for page in PAGES:
        assert "<!-- not run -->" not in page.read_text()
    found = [command for page in PAGES for command in commands(page, REPOSITORY)]
    assert len(found) > 40
    assert all("docker" not in command.text for command in found)


def test_an_output_of_another_form_is_missed() -> None:
    shown = " 1   resnet20   lif   12.0 ± 2.8   ok\n...\n"
    assert missing(shown, " 2  resnet20  lif  9 ± 1  ok") == []
    assert missing(shown, " 2  resnet20  lif  9  ok") == []
    assert missing(shown, " 2  resnet20  lif  9 ± 1  upper bound only") == [" 1   resnet20   lif   12.0 ± 2.8   ok"]
