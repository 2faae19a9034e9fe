"""The only reader of the environment. Every setting is `SPIKEPROOF_<NAME>`, also from `.env`; or, where that is not
set, the content of the file that `SPIKEPROOF_<NAME>_FILE` names.
"""

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

SCHEMES = {
    "database_url": ("sqlite", "postgresql", "postgresql+psycopg", "postgres"),
    "broker_url": ("redis", "rediss", "redis+socket"),
}


class Settings(BaseSettings):
    """All settings with their defaults; the README lists the same."""

    model_config = SettingsConfigDict(env_prefix="SPIKEPROOF_", env_file=".env", extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(Path("data"), description="checkpoints, logs, data sets, and the SQLite file")
    database_url: str = Field("", description="empty: SQLite in the data folder")
    broker_url: str = Field("", description="empty: workers poll the database; else Celery on this Redis")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0: any free port")
    keys: Literal["auto", "always"] = Field(
        "auto", description="auto: requests need a key where the service can be reached from beyond this machine"
    )
    published_host: str = Field("", description="where clients reach it, behind a proxy or in a container; empty: host")
    allowed_hosts: str = Field("", description="names beside localhost that a service without keys answers to")
    rate_limit: int = Field(6000, ge=0, description="requests a minute of one key or address; 0: any number")
    workers: int = Field(0, ge=0, le=64, description="worker processes; 0: one a GPU, or one on the CPU")
    threads_per_job: int = Field(0, ge=0, le=256, description="torch threads of a job; 0: cores divided by workers")
    lease_seconds: float = Field(60.0, gt=0, description="silence after which a run is taken up by another worker")
    heartbeat_seconds: float = Field(5.0, gt=0, description="how often a worker renews its lease")
    poll_seconds: float = Field(0.2, gt=0, description="how often an idle worker looks for work")
    grace_seconds: float = Field(8.0, ge=0, le=8, description="from asking a job to stop to killing it")
    stall_seconds: float = Field(1800.0, ge=0, description="without progress until a job is stopped; 0: never")
    time_limit_seconds: float = Field(0.0, ge=0, description="of a run whose experiment says none; 0: none")
    max_attempts: int = Field(5, ge=1, le=100, description="tries of a run, counted anew after a new checkpoint")
    attack_batch: int = Field(250, ge=1, le=100_000, description="images attacked at once; fewer where memory is short")
    features_disk_mib: int = Field(20_480, ge=0, description="kept outputs of frozen layers, in MiB; 0: none is kept")
    features_memory_mib: int = Field(4096, ge=0, description="those of one training that a GPU holds; 0: reads them")
    images_memory_mib: int = Field(4096, ge=0, description="a training set that a GPU holds; 0: is sent by the batch")
    compile: bool = Field(False, description="trainings on a GPU compile their encoder first")
    log_json: bool = Field(False, description="logs as JSON, one object a line")
    max_upload_mib: int = Field(16, ge=1, le=4096, description="largest request with images in MiB; other JSON: 1")
    max_weights_mib: int = Field(512, ge=1, le=65_536, description="the same for an upload of weights")
    predict_batch: int = Field(32, ge=1, le=1024, description="images of requests answered together; 1: none are")
    predict_wait_ms: float = Field(5.0, ge=0, le=1000, description="of a batch, for requests being decoded")
    predict_queue: int = Field(512, ge=1, le=100_000, description="images waiting for predictions at once")
    predict_cache_mib: int = Field(1024, ge=1, description="networks kept in memory for predictions")
    predict_device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:1")
    predict_threads: int = Field(1, ge=1, le=256, description="torch threads of predictions on a CPU")
    url: str = Field("http://127.0.0.1:8000", description="where the command line finds the service")
    api_key: str = Field("", repr=False, description="sent by the command line")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The first that knows a setting wins."""
        return init_settings, env_settings, dotenv_settings, InitSettingsSource(settings_cls, _from_named_files())

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError("SPIKEPROOF_LEASE_SECONDS must be at least twice SPIKEPROOF_HEARTBEAT_SECONDS")
        return self

    @field_validator("broker_url", "database_url")
    @classmethod
    def _is_a_url_of(cls, url: str, field: ValidationInfo) -> str:
        """Of a database or broker that the queue was built for; what is wrong is told without the password in it."""
        schemes = SCHEMES[str(field.field_name)]
        if url and not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must be one of {', '.join(f'{scheme}://...' for scheme in schemes)}")
        if url and not _can_be_read(url):
            raise ValueError("must be like scheme://user:password@host:1234/name, with %2F and %40 for / and @ inside")
        return url

    @property
    def resolved_database_url(self) -> str:
        """The database to open: as given, or SQLite in the data folder; Postgres through psycopg 3."""
        if not self.database_url:
            return f"sqlite:///{(self.data_dir / 'spikeproof.db').resolve()}"
        scheme, _, rest = self.database_url.partition("://")
        return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else self.database_url

    @property
    def reached_at(self) -> str:
        """The address at which clients reach the service."""
        return self.published_host or self.host

    @property
    def threads(self) -> int:
        """Torch threads of one job process."""
        return self.threads_per_job or max(1, (os.cpu_count() or 1) // max(1, self.workers))


def _can_be_read(url: str) -> bool:
    """Whether the port is a number, no password ends early, and the name of a Redis database is a number."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    name = parts.path.removeprefix("/")
    if "@" in name or parts.netloc.count("@") > 1:
        return False
    return parts.scheme not in ("redis", "rediss") or name == "" or name.isdigit()


def _from_named_files() -> dict[str, str]:
    """Settings kept in files, as containers are given secrets. Raises OSError where one cannot be read, or is empty."""
    found = {}
    for name in Settings.model_fields:
        variable = f"SPIKEPROOF_{name.upper()}_FILE"
        if path := os.environ.get(variable):
            found[name] = Path(path).read_text().strip()
            if not found[name]:
                raise OSError(f"{path} is empty, and {variable} names it")
    return found


@lru_cache
def this_host() -> str:
    """Names this machine since its start, as owners of runs carry it: by what is told here, a process is dead.

    With its boot and its process namespace, where the system tells them: cloned machines and containers share names,
    and a process id means another process after a restart.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    known = [boot.read_text().strip()[:8], str(namespace.stat().st_ino)] if boot.exists() else []
    return "-".join([socket.gethostname().replace(":", "."), *known])


@lru_cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
