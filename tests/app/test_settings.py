"""Where settings come from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings, this_host

URL = "postgresql://someone:word@server/runs"


@pytest.fixture
def url_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "url"
    path.write_text(f"{URL}\n")
    monkeypatch.delenv("SPIKEPROOF_DATABASE_URL", raising=False)
    monkeypatch.setenv("SPIKEPROOF_DATABASE_URL_FILE", str(path))
    return path


def test_a_setting_may_lie_in_a_file(url_file: Path) -> None:
    assert Settings(_env_file=None).database_url == URL


def test_a_setting_given_outright_counts_more_than_its_file(url_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEPROOF_DATABASE_URL", "sqlite:///given.db")
    assert Settings(_env_file=None).database_url == "sqlite:///given.db"
    assert Settings(_env_file=None, database_url="sqlite:///said.db").database_url == "sqlite:///said.db"


def test_what_a_file_holds_is_checked_as_any_setting_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text("70000")
    monkeypatch.setenv("SPIKEPROOF_PORT_FILE", str(tmp_path / "port"))
    with pytest.raises(ValueError, match="65535"):
        Settings(_env_file=None)


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_file_that_is_missing_or_empty_is_said_in_one_line_and_not_passed_over(
    url_file: Path, content: str | None
) -> None:
    url_file.unlink() if content is None else url_file.write_text(content)
    command = [sys.executable, "-m", "app.cli", "datasets"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=url_file.parent)
    assert done.returncode == 1
    assert str(url_file) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["database_url", "broker_url"])
@pytest.mark.parametrize(
    "url",
    ["mysql://someone:word@server/runs", "amqp://server", "redis", "sqla+sqlite:///broker.db", "{}://h:port/0",
     "{}://h:99999/0", "{}://:wo/rd@h/0", "{}://someone:wo@rd@h/0"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_password(name: str, url: str) -> None:
    url = url.format("redis" if name == "broker_url" else "postgresql")
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "datasets"], capture_output=True, text=True, check=False,
        env={**os.environ, f"SPIKEPROOF_{name.upper()}": url},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"spikeproof: SPIKEPROOF_{name.upper()}: must be ")
    assert done.stderr.count("\n") == 1
    assert "wo" not in done.stderr.replace("password", "")


def test_the_name_of_a_redis_database_must_be_a_number() -> None:
    for url in ("redis://h/1", "redis://:pass%2Fword@h:6379/0", "rediss://h", "redis+socket:///run/redis.sock"):
        assert Settings(_env_file=None, broker_url=url).broker_url == url
    with pytest.raises(ValueError, match="host:1234"):
        Settings(_env_file=None, broker_url="redis://h/name")


def test_a_machine_keeps_its_name_and_another_process_namespace_has_another() -> None:
    command = [sys.executable, "-c", "from app.settings import this_host; print(this_host())"]
    here = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert here == this_host()
    assert ":" not in here
    apart = subprocess.run(["unshare", "--pid", "--fork", *command], capture_output=True, text=True, check=False)
    if apart.returncode == 0:  # needs privileges
        assert apart.stdout.strip() != here
