"""What `docs/how-to/client.md` shows works as it stands there."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import settings
from app.storage.engine import Database
from tests.app.work import Queue
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-to" / "client.md"


@pytest.fixture
def worker(database: Database, data_dir: Path) -> Iterator[None]:
    """Does what is submitted, without training: networks as they are made, figures as they are given."""
    done = threading.Event()

    def work() -> None:
        queue = Queue(database, data_dir)
        while not done.wait(0.02):
            queue.work_off(lambda run: {"robust_accuracy": 0.2 + run.spec["subject"]["seed"] / 10}, files=True)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    done.set()
    thread.join()


def test_every_example_runs(
    api: httpx.Client, worker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKEPROOF_URL", str(api.base_url))
    monkeypatch.delenv("SPIKEPROOF_API_KEY", raising=False)
    settings.cache_clear()
    names: dict[str, Any] = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        settings.cache_clear()
        names["client"].close()
    said = capsys.readouterr().out
    assert "robust_accuracy_sd" in said
    assert "did you mean" in said
    assert "end {" in said
    written = {"table.tex", "curves.svg", "report.html", "net.safetensors", "net.md"}
    assert written <= {path.name for path in tmp_path.iterdir()}


def test_every_method_named_exists() -> None:
    from app.client import Client

    table = PAGE.read_text().partition("## Methods")[2].partition("`experiments` and")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert len(named) > 25
    assert {name for name in named if not hasattr(Client, name)} == set()
    public = {name for name in vars(Client) if not name.startswith("_")}
    frames = {name for name in public if name.endswith("_frame")}
    assert public - named - frames - {"healthy", "leaderboard_text"} == set()
