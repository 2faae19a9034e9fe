"""The services of a compose file as processes of this machine, without Docker.

    with Compose(path, folder) as lab:
        lab.up()
        lab.exec("api", "spikeproof", "leaderboard", "--dataset", "digits")

Commands, environment, users, mounts, capabilities, health checks, order and grace periods are what the compose file
and the Dockerfile say. All services see one root, an overlay of this machine's own that has what the image would have,
and one network, in which nothing else listens. What a container has beyond that is not imitated: an init process, a
process namespace, restarts, published ports. Linux, and root, who alone may mount.
"""

import json
import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.postgres_server import NoServer, binary

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds until a service is healthy, on a machine that has other work
GRACE = "10s"  # Docker's own
UNITS = {"s": 1.0, "m": 60.0}
# What the entrypoint of the image `postgres` does before it starts the server.
POSTGRES = """
set -e
data=/var/lib/postgresql/data
if [ ! -e $data/PG_VERSION ]; then
  {initdb} --pgdata=$data --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust \
    --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --no-sync
  echo "CREATE DATABASE $POSTGRES_DB" | {postgres} --single -D $data postgres
fi
exec {postgres} -D $data -c 'listen_addresses=*' -c unix_socket_directories=/tmp
"""
IMAGE = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {root}
for path in /proc /sys /dev; do mount --rbind $path {root}$path; done
for path in {shown}; do mkdir -p {root}$path; mount --bind $path {root}$path; done
for path in {parents}; do chmod a+x {root}$path; done
mkdir -p {root}/opt
install --directory --owner=postgres --mode=0700 {root}/var/lib/postgresql/data
ln -sfn {venv} {root}/opt/venv
ln -sfn {repository}/docker {root}/opt/spikeproof
echo '127.0.0.1 localhost {names}' > {root}/etc/hosts
echo spikeproof:x:10001:10001::/home/spikeproof:/usr/sbin/nologin >> {root}/etc/passwd
install --directory --owner=10001 --group=10001 {root}/home/spikeproof
{folders}
ip link set lo up
touch {folder}/ready
exec sleep infinity
"""


class NotHere(Exception):
    """Services cannot be kept apart on this machine; the text says why."""


@dataclass
class Compose:
    """The services of `path`, with what they keep in `folder`."""

    path: Path
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    holder: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(_interpolated(self.path.read_text()))["services"]
        self.image = _Image((self.path.parent / "Dockerfile").read_text())
        self.root = self.folder / "root"

    def __enter__(self) -> "Compose":
        """Raises NotHere."""
        if os.geteuid() != 0:
            raise NotHere("only root may make a root and a network for services")
        for name in ("root", "upper", "work", "volumes"):
            (self.folder / name).mkdir()
        shown = sorted({str(REPOSITORY), sys.prefix, sys.base_prefix})
        script = IMAGE.format(
            folder=self.folder, root=self.root, repository=REPOSITORY, venv=sys.prefix, names=" ".join(self.services),
            shown=shlex.join(shown), folders="\n".join(self.image.folders(self.root)),
            parents=shlex.join(sorted({str(parent) for path in shown for parent in Path(path).parents})),
        )
        with (self.folder / "image.log").open("wb") as log:
            self.holder = subprocess.Popen(
                ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script], stdout=log, stderr=log
            )
        try:
            _until(lambda: (self.folder / "ready").exists(), self.holder, f"{self.folder}/image.log")
        except AssertionError as error:
            self.__exit__()
            raise NotHere(str(error)) from None
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.running.values(), self.holder]:
            if process is not None:
                process.kill()
                process.wait()

    def up(self) -> None:
        """Starts every service once what it depends on has come as far as the file asks."""
        waiting = {name: service.get("depends_on", {}) for name, service in self.services.items()}
        while waiting:
            name = next(name for name, needed in waiting.items() if not needed.keys() & waiting.keys())
            for other, needed in waiting.pop(name).items():
                self._await(other, needed["condition"])
            self.running[name] = self._start(name)
        for name in self.running:
            if "healthcheck" in self.services[name]:
                self._await(name, "service_healthy")

    def down(self) -> dict[str, int]:
        """Stops all, the last started first, each within its grace period; service -> exit status."""
        codes = {}
        for name in reversed(list(self.running)):
            process = self.running.pop(name)
            process.send_signal(self._stop_signal(name))
            grace = self.services[name].get("stop_grace_period", GRACE)
            try:
                codes[name] = process.wait(float(grace[:-1]) * UNITS[grace[-1]])
            finally:
                process.kill()
        return codes

    def exec(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker compose exec -T`: in the service's place, as its user, with its environment."""
        place = ["nsenter", "--target", str(self.running[name].pid), "--net", "--mount", "chroot", str(self.root)]
        inside = [*place, *self._as_user(name), *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def volume(self, name: str) -> Path:
        return self.folder / "volumes" / name

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        service = self.services[name]
        mounts = [self._mount(mount) for mount in service.get("volumes", [])]
        mounts += [f"mkdir -p {self.root}{p}; mount -t tmpfs tmpfs {self.root}{p}" for p in service.get("tmpfs", [])]
        entry = service.get("entrypoint", self.image.entrypoint if self._ours(name) else [])
        command = [*entry, *service.get("command", [])] or ["sh", "-c", _postgres()]
        run = shlex.join(["exec", "chroot", str(self.root), *self._as_user(name), *command])
        alone = ["--net"] if service.get("network_mode") == "none" else []
        assert self.holder is not None
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "unshare", *alone, "--mount",
                 "--propagation", "private", "sh", "-ec", "\n".join([*mounts, run])],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _mount(self, mount: str) -> str:
        """A named volume; a new one takes over owner and mode of the folder that it is mounted on."""
        name, target, *options = mount.split(":")
        source, place = self.volume(name), self.root / target.lstrip("/")
        lines = [f"mkdir -p {place}"]
        if not source.exists():
            source.mkdir()
            lines.append(f"chown --reference={place} {source}; chmod --reference={place} {source}")
        lines.append(f"mount --bind {source} {place}")
        if options == ["ro"]:
            lines.append(f"mount -o remount,bind,ro {place}")
        return "\n".join(lines)

    def _as_user(self, name: str) -> list[str]:
        service = self.services[name]
        user, group = self._user(service.get("user", self.image.user))
        groups = ",".join([group, *map(str, service.get("group_add", []))])
        dropped = ["--bounding-set=-all", "--inh-caps=-all"] if service.get("cap_drop") == ["ALL"] else []
        if "no-new-privileges:true" in service.get("security_opt", []):
            dropped.append("--no-new-privs")
        return ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={groups}", *dropped,
                "env", "-i", "-C", "/home/spikeproof" if self._ours(name) else "/",
                *(f"{key}={value}" for key, value in self._environment(name).items())]  # fmt: skip

    def _environment(self, name: str) -> dict[str, str]:
        """The image's, then the file's; what the file only names comes from this process, where it is set."""
        found = {"PATH": os.defpath + ":/usr/local/bin"}
        found |= self.image.environment | {"HOME": "/home/spikeproof"} if self._ours(name) else {}
        for key, value in self.services[name].get("environment", {}).items():
            value = os.environ.get(key) if value is None else value
            if value is not None:
                found[key] = str(value)
        return found

    def _user(self, name: str) -> tuple[str, str]:
        if ":" in name:
            user, _, group = name.partition(":")
            return user, group
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise NotHere(f"there is no user {name} on this machine") from None
        return str(entry.pw_uid), str(entry.pw_gid)

    def _ours(self, name: str) -> bool:
        return bool(self.services[name]["image"] == self.services["secrets"]["image"])

    def _stop_signal(self, name: str) -> int:
        return signal.SIGINT if name == "postgres" else signal.SIGTERM  # STOPSIGNAL of its image

    def _await(self, name: str, condition: str) -> None:
        process, log = self.running[name], f"{self.folder}/{name}.log"
        if condition == "service_completed_successfully":
            assert process.wait(PATIENCE) == 0, self.log(name)
            return
        assert condition == "service_healthy", condition
        kind, *command = self.services[name]["healthcheck"]["test"]
        command = {"CMD": command, "CMD-SHELL": ["sh", "-c", *command]}[kind]
        _until(lambda: self.exec(name, *command).returncode == 0, process, log)


class _Image:
    """What the Dockerfile's last stage says of the image."""

    def __init__(self, dockerfile: str) -> None:
        last = re.sub(r"\\\n", " ", dockerfile).rpartition("\nFROM ")[2]
        words = {name: rest for name, _, rest in (line.partition(" ") for line in last.splitlines())}
        self.user = words["USER"].strip()
        self.entrypoint: list[str] = json.loads(words["ENTRYPOINT"])
        self.environment = dict(pair.split("=", 1) for pair in shlex.split(words["ENV"]))
        self.environment["PATH"] = self.environment["PATH"].replace("$PATH", os.defpath)
        self._installs = re.findall(r"install (--directory [^&\n]+)", last)

    def folders(self, root: Path) -> list[str]:
        """Shell commands that make them."""
        return [shlex.join(["install", *(f"{root}{w}" if w.startswith("/") else w for w in install.split())])
                for install in self._installs]


def _interpolated(text: str) -> str:
    """As compose does: ${NAME:-default} from the environment, $$ for a dollar."""
    known = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: os.environ.get(m[1]) or m[2], text)
    return known.replace("$$", "$")


def _postgres() -> str:
    try:
        return POSTGRES.format(initdb=binary("initdb"), postgres=binary("postgres"))
    except NoServer as error:
        raise NotHere(str(error)) from None


def _until(condition: Any, process: subprocess.Popen[bytes], log: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended with {process.poll()}: {Path(log).read_text(errors='replace')[-800:]}"
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {Path(log).read_text(errors='replace')[-800:]}"
        time.sleep(0.1)
