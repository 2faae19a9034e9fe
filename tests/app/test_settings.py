"""Where settings come from."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings

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
