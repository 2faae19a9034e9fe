"""What `docker compose up` starts, as far as can be told without Docker: the files, and the script for the secrets."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url
from typer.testing import CliRunner

from app.cli import cli
from app.domain.access import keys_needed
from app.settings import Settings, this_host
from app.storage.engine import Database, now_epoch
from app.storage.tables import Worker
from tests.service import make_settings

ROOT = Path(__file__).resolve().parents[2]
MAKE_SECRETS = ROOT / "docker" / "make_secrets.py"
FILES = sorted(ROOT.glob("docker-compose*.yml"))
GUIDE = ROOT / "docs" / "how-to" / "lab-server.md"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAIN: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = MAIN["services"]
PUBLISHED = "${SPIKEPROOF_PUBLISHED_HOST:-127.0.0.1}"
LASTING = sorted(set(SERVICES) - {"secrets"})
OURS = ("secrets", "api", "worker")


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text())["services"]


def mounts(service: str) -> dict[str, bool]:
    """Volume -> whether it is read-only."""
    listed = SERVICES[service].get("volumes", [])
    return {mount.split(":")[0]: mount.endswith(":ro") for mount in listed}


def test_the_lab_server_is_api_workers_redis_and_postgres() -> None:
    assert set(SERVICES) == {"secrets", "api", "worker", "redis", "postgres"}


def test_only_the_api_is_reached_from_outside_and_unless_someone_says_so_only_from_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": [f"{PUBLISHED}:${{SPIKEPROOF_PORT:-8000}}:8000"]}
    assert not any("network_mode" in SERVICES[name] for name in LASTING)


def test_the_service_is_told_where_it_is_published_so_that_it_asks_for_keys_elsewhere() -> None:
    told = SERVICES["api"]["environment"]["SPIKEPROOF_PUBLISHED_HOST"]
    assert told == PUBLISHED
    image = make_settings(host="0.0.0.0")  # as the Dockerfile has it
    assert "SPIKEPROOF_HOST=0.0.0.0" in DOCKERFILE
    for address, needed in (("127.0.0.1", False), ("[::1]", False), ("0.0.0.0", True), ("10.0.0.1", True)):
        assert keys_needed("auto", image.model_copy(update={"published_host": address}).reached_at) == needed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_port_is_published_on_every_address(path: Path) -> None:
    for service in services_of(path).values():
        for port in service.get("ports", []):
            assert port.startswith((f"{PUBLISHED}:", "${LAB_ADDRESS:?")), port


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secret_is_written_in_a_file(path: Path) -> None:
    for name, service in services_of(path).items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|_URL", variable):
                assert str(value).startswith(("/secrets/", "${")), (name, variable)
    urls = re.findall(r"\w+://\S*?:([^/@\s]+)@", path.read_text())
    assert set(urls) <= {"PASSWORD"}


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_service_is_restarted_watched_and_unprivileged(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} == set(service["healthcheck"])
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service
    assert name in OURS or service["user"] == name  # ours has its user in the image


def test_the_worker_of_another_machine_is_started_watched_and_stopped_as_the_servers_is() -> None:
    here, there = SERVICES["worker"], services_of(ROOT / "docker-compose.worker.yml")["worker"]
    same = ("image", "pull_policy", "init", "restart", "cap_drop", "security_opt", "logging", "command",
            "stop_grace_period", "healthcheck")  # fmt: skip
    assert {key: there[key] for key in same} == {key: here[key] for key in same}
    assert there["build"] == SERVICES["secrets"]["build"]


def test_one_service_alone_builds_the_image_and_none_pulls_it() -> None:
    assert [name for name, service in SERVICES.items() if "build" in service] == ["secrets"]
    assert {SERVICES[name]["image"] for name in OURS} == {"spikeproof:local"}
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}


def test_everything_waits_for_what_it_needs() -> None:
    waits = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    made, healthy = {"secrets": "service_completed_successfully"}, "service_healthy"
    assert waits == {
        "secrets": {}, "postgres": made, "redis": made,
        "api": {**made, "postgres": healthy, "redis": healthy},
        "worker": {"api": healthy, "postgres": healthy, "redis": healthy},  # the API migrates
    }


def test_what_must_last_is_in_named_volumes_and_a_password_only_where_it_is_needed() -> None:
    assert {name: mounts(name) for name in SERVICES} == {
        "secrets": {"database-secret": False, "broker-secret": False},
        "postgres": {"database": False, "database-secret": True},
        "redis": {"broker-secret": True},
        "api": {"data": False, "database-secret": True, "broker-secret": True},
        "worker": {"data": False, "database-secret": True, "broker-secret": True},
    }
    assert set(MAIN["volumes"]) == {"data", "database", "database-secret", "broker-secret"}


def test_a_job_has_the_time_to_checkpoint_before_its_worker_is_killed() -> None:
    from app.launcher import STOP_MARGIN_SECONDS

    longest_grace = next(m.le for m in Settings.model_fields["grace_seconds"].metadata if hasattr(m, "le"))
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > 2 * (longest_grace + STOP_MARGIN_SECONDS)


def test_workers_keep_the_names_by_which_they_are_told_apart() -> None:
    assert not any("hostname" in s or "container_name" in s for path in FILES for s in services_of(path).values())


def test_without_gpus_nothing_asks_for_them() -> None:
    assert not any("gpus" in service or "deploy" in service for service in SERVICES.values())
    devices = services_of(ROOT / "docker-compose.gpu.yml")["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


@pytest.mark.parametrize(
    "path", [*FILES, ROOT / "Dockerfile", GUIDE, *sorted((ROOT / "docker").glob("*.py"))], ids=lambda path: path.name
)
def test_every_setting_it_names_exists(path: Path) -> None:
    known = {f"SPIKEPROOF_{name.upper()}" for name in Settings.model_fields}
    named = {name.removesuffix("_FILE") for name in re.findall(r"\bSPIKEPROOF_[A-Z_]+", path.read_text())}
    assert named <= known


@pytest.mark.parametrize("name", ["api", "worker"])
def test_it_starts_a_command_that_exists_with_options_that_exist(name: str) -> None:
    assert understood(SERVICES[name]["command"])


def test_the_guide_shows_commands_that_exist() -> None:
    shown = re.findall(r"(?:exec|run --rm) (?:api|worker) spikeproof ([^|>\n`]+)", GUIDE.read_text())
    assert shown
    for words in shown:
        assert understood(shlex.split(words)), words


def understood(words: list[str]) -> bool:
    """Whether the command line takes these words: its parser sees them all before it helps."""
    return CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize("words", ["serve --no-such-option", "no-such-command", "serve --port", "doctor --eps 1"])
def test_words_that_it_does_not_know_would_be_found(words: str) -> None:
    assert not understood(shlex.split(words))


def test_what_the_files_name_in_the_image_is_there() -> None:
    assert "COPY docker /opt/spikeproof\n" in DOCKERFILE
    for path in FILES:
        for script in re.findall(r"/opt/spikeproof/(\w+\.py)", path.read_text()):
            assert (ROOT / "docker" / script).is_file(), script


def test_the_image_runs_as_a_user_that_owns_the_data_and_shares_secrets_by_its_group() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    for name in ("postgres", "redis"):
        assert SERVICES[name]["group_add"] == ["10001"]


def test_what_the_image_is_built_from_is_not_ignored() -> None:
    kept = {line.removeprefix("!/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    packaged = yaml.safe_load((ROOT / "pyproject.toml").read_text().split("include = ")[1].splitlines()[0])
    assert kept == {"LICENSE", "README.md", "pyproject.toml", "docker", *(name.removesuffix("*") for name in packaged)}


# the script


def make_secrets(folder: Path) -> str:
    done = subprocess.run([sys.executable, MAKE_SECRETS, folder], capture_output=True, text=True, check=True)
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_secrets_are_random_agree_and_are_nothing_but_the_files_asked_for(tmp_path: Path) -> None:
    make_secrets(tmp_path / "one")
    make_secrets(tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert set(one) == {"database/password", "database/url", "broker/password", "broker/redis.conf", "broker/url"}
    assert all(one[name] != two[name] for name in one)
    database, broker = make_url(one["database/url"]), make_url(one["broker/url"])
    assert (database.host, database.username, database.database) == ("postgres", "spikeproof", "spikeproof")
    assert database.password == one["database/password"]
    assert broker.host == "redis"
    assert broker.password == one["broker/password"]
    assert one["broker/redis.conf"] == f"requirepass {one['broker/password']}\n"
    assert one["database/password"] != one["broker/password"]
    assert len(one["database/password"]) >= 40  # 256 bits


def test_secrets_are_made_once_and_never_overwritten(tmp_path: Path) -> None:
    assert make_secrets(tmp_path).count("made ") == 5
    before = contents(tmp_path)
    assert make_secrets(tmp_path) == ""
    assert contents(tmp_path) == before


def test_a_secret_that_is_missing_is_made_to_fit_those_that_are_there(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = contents(tmp_path)
    for name in ("database/url", "broker/url", "broker/redis.conf"):
        (tmp_path / name).unlink()
    make_secrets(tmp_path)
    assert contents(tmp_path) == before


def test_secrets_are_read_by_owner_and_group_and_written_by_nobody(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make_secrets(tmp_path)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o440}
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("database", "broker")} == {0o750}


def test_two_that_make_secrets_at_once_agree(tmp_path: Path) -> None:
    both = [subprocess.Popen([sys.executable, MAKE_SECRETS, tmp_path], stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(30) for process in both] == [0] * 4
    made = contents(tmp_path)
    assert make_url(made["database/url"]).password == made["database/password"]
    assert make_url(made["broker/url"]).password == made["broker/password"]
    assert len(made) == 5


def test_secrets_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "database").write_text("in the way")
    done = subprocess.run([sys.executable, MAKE_SECRETS, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"make_secrets\.py: .*database.*\n", done.stderr)


# the worker's health check


@pytest.mark.parametrize(
    ("owner", "silent_for", "healthy"),
    [("{host}:7:1", 0, True), ("{host}:7:1", 3600, False), ("{host}x:7:1", 0, False), (None, 0, False)],
    ids=["alive", "silent for long", "of another machine", "none"],
)
def test_the_worker_is_healthy_while_one_of_this_machine_gives_signs_of_life(
    database: Database, owner: str | None, silent_for: float, healthy: bool
) -> None:
    if owner is not None:
        with database.writing() as session:
            session.add(Worker(id=owner.format(host=this_host()), device="cpu", seen_at=now_epoch() - silent_for))
    done = worker_alive(database.url)
    assert (done.returncode == 0) == healthy
    assert done.stderr == ("" if healthy else f"no worker of {this_host()} gave a sign of life lately\n")


def test_a_worker_whose_database_is_away_is_not_healthy_and_says_no_password() -> None:
    done = worker_alive("postgresql://spikeproof:hush@127.0.0.1:1/spikeproof")
    assert (done.returncode, done.stderr) == (1, "the database cannot be reached (OperationalError)\n")


def worker_alive(url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SPIKEPROOF_DATABASE_URL": url}
    command = [sys.executable, ROOT / "docker" / "worker_alive.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
