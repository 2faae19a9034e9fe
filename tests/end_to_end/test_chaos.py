"""Whatever is killed, frozen or lost, every run ends exactly once, with the figures of a quiet one.

The seed is SPIKEPROOF_CHAOS_SEED, and SPIKEPROOF_CHAOS_RUNS how many runs are disturbed; `benchmarks/chaos.py` tries
many."""

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.lifecycle import TERMINAL
from app.storage import garbage, results
from app.storage.engine import Database
from app.storage.references import references
from app.storage.tables import Checkpoint, Run
from tests.end_to_end.chaos import Chaos, account, frozen, jobs, keep_account, service_workers
from tests.end_to_end.conftest import Service, finished, parent_of, processes, run_of, wait_for

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("SPIKEPROOF_CHAOS_SEED", "1"))
EXPERIMENTS = int(os.environ.get("SPIKEPROOF_CHAOS_RUNS", "16")) // 4
DISTURBED_SECONDS = 4.0 * max(EXPERIMENTS, 6)
PATIENCE = 1500.0  # of a machine that has much other work; a quiet one needs a twentieth
SHORT_LEASE = {"heartbeat_seconds": "1", "lease_seconds": "4", "max_attempts": "100"}


def body(seed: int, *, fresh: bool) -> dict[str, Any]:
    """Four runs: a training, a branch, an evaluation of each; a second's work each, once torch is loaded."""
    return {"dataset": "digits", "seeds": [seed], "variants": ["default", "lif"], "fresh": fresh,
            "training": {"epochs": 1, "branch_epochs": 1}, "decoder": {"timesteps": 4, "hidden": 32},
            "evaluation": {"images": 110, "eps": ["32/255"], "attacks": [{"name": "fgsm"}]}}


def test_after_chaos_every_run_has_ended_once_as_a_quiet_one_and_nothing_lies_about(
    make_service: Callable[..., Service], request: pytest.FixtureRequest, back_end: dict[str, str]
) -> None:
    redis = request.getfixturevalue("redis_server") if back_end else None
    service = make_service(workers="3", **SHORT_LEASE, **({"broker_url": redis.url} if redis else {}))
    with service.database() as database:
        keep_account(database)
        finished(service.client(), body(0, fresh=False))
        chaos = Chaos(service, SEED, redis)
        began = time.monotonic()
        seeds = [number // 2 for number in range(EXPERIMENTS)]
        ids = chaos.disturb(DISTURBED_SECONDS, [body(seed, fresh=True) for seed in seeds])
        wait_for(lambda: all_ended(database), PATIENCE)
        print(f"\nchaos seed {SEED}: {chaos.done}, {time.monotonic() - began:.0f} s", flush=True)
        assert len(set(ids)) == EXPERIMENTS
        run_ids = each_run_ended_once(database, expected=4 + 4 * EXPERIMENTS)
        equal_specifications_have_equal_results(database)
        service.stop()
        wait_for(lambda: not any(processes("worker.run_job", run_id) for run_id in run_ids), 20)
        assert service.process is not None
        assert not processes("worker.", f" {service.process.pid}")
        every_file_has_its_row(database, service.data_dir)


def all_ended(database: Database) -> bool:
    with database.reading() as session:
        return all(state in TERMINAL for state in session.scalars(select(Run.state)))


def each_run_ended_once(database: Database, *, expected: int) -> list[str]:
    with database.reading() as session:
        found = {run.id: run for run in session.scalars(select(Run))}
    changes = account(database)
    assert len(found) == expected
    for run in found.values():
        states = [new for _, new, _ in changes[run.id]]
        assert run.state == "succeeded", run.error
        assert states.count("succeeded") == 1, changes[run.id]
        assert states[-1] == "succeeded", changes[run.id]
        assert not {"failed", "cancelled"} & set(states), changes[run.id]
        claimed = [attempt for _, new, attempt in changes[run.id] if new == "running"]
        assert claimed == list(range(1, run.attempt + 1)), "each attempt begins once, in order"
        assert [old for old, _, _ in changes[run.id]] == ["queued", *states[:-1]]
    return [*found]


def equal_specifications_have_equal_results(database: Database) -> None:
    by_key = defaultdict(list)
    with database.reading() as session:
        for run in session.scalars(select(Run)):
            by_key[run.key].append(_outcome(session, run))
    for key, outcomes in by_key.items():
        assert len(outcomes) >= 2, key
        assert all(outcome == outcomes[0] for outcome in outcomes), key


def _outcome(session: Any, run: Run) -> str:
    if run.kind != "evaluate":
        return " ".join(session.scalars(select(Checkpoint.sha256).where(Checkpoint.run_id == run.id)))
    rows, _ = results.image_rows(session, run.id, after=None, limit=10_000)
    verdicts, _ = results.verdicts(session, run.id, after=None, limit=10_000)
    assert len(verdicts) == run.spec["protocol"]["images"]
    assert rows
    shown = [[v.image_id, v.correct_share, v.majority, v.linf, v.ssim] for v in verdicts]
    return json.dumps([run.metrics["robust"], [[r.image_id, r.correct_share, r.norm] for r in rows], shown])


def every_file_has_its_row(database: Database, data_dir: Path) -> None:
    found = garbage.survey(database, data_dir, grace_seconds=0)
    assert found.missing == []
    garbage.remove(found)
    with database.reading() as session:
        wanted = {one.path for one in references(session)}
        stored = [(data_dir / row.path, row.sha256) for row in session.scalars(select(Checkpoint))]
    here = {p.relative_to(data_dir).as_posix() for p in (data_dir / "runs").rglob("*") if p.is_file()}
    assert {name for name in here if not name.endswith("/log.txt")} == wanted
    for path, sha256 in stored:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def test_a_worker_and_job_frozen_past_their_lease_give_no_second_result(make_service: Callable[..., Service]) -> None:
    service = make_service(workers="2", **SHORT_LEASE)
    client = service.client()
    with service.database() as database:
        keep_account(database)
        experiment = client.submit({**body(0, fresh=False), "variants": ["default"], "training": {"epochs": 8}})
        run_id = run_of(experiment, "train")["id"]
        wait_for(lambda: client.run(run_id)["metrics"].get("epochs"))
        [job] = processes("worker.run_job", run_id)
        with frozen(*_worker_of(service, job)):  # it wakes up last: it would end its job before that can do any harm
            with frozen(job):
                wait_for(lambda: client.run(run_id)["attempt"] == 2, 60)
                wait_for(lambda: client.run(run_id)["state"] == "succeeded", PATIENCE)
                published = client.run(run_id)["checkpoint"]
            wait_for(lambda: "no longer owns run" in client.run(run_id)["log"], 60)
        wait_for(lambda: job not in jobs(service) and job not in processes("worker.run_job"), 60)
        assert client.wait(experiment["id"])["state"] == "succeeded"
        assert client.run(run_id)["checkpoint"] == published
        assert client.run(run_id)["attempt"] == 2
        assert [c["run_id"] for c in client.checkpoints()] == [run_id]
        assert [new for _, new, _ in account(database)[run_id]] == ["running", "queued", "running", "succeeded"]


def _worker_of(service: Service, job: int) -> list[int]:
    """The worker that started the job, with its pool process."""
    parent = parent_of(job)
    return sorted({parent, *(pid for pid in service_workers(service) if pid == parent_of(parent))})
