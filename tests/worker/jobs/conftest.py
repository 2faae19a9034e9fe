"""Jobs in the process of the test, on a queue and files of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import update

from app.domain.errors import JobError
from app.domain.spec import VerifySpec
from app.storage import results, runs, verifications
from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue
from tests.service import make_settings
from worker.jobs.attack import run_attack
from worker.jobs.evaluate import run_evaluate
from worker.jobs.job import Job
from worker.jobs.quantise import run_quantise
from worker.jobs.shard import run_shard
from worker.jobs.train import run_train
from worker.jobs.verify import run_verify
from worker.progress import Progress

JOBS: dict[str, Callable[[Job], None]] = {
    "train": run_train, "quantise": run_quantise, "shard": run_shard, "evaluate": run_evaluate, "verify": run_verify,
    "attack": run_attack,
}  # fmt: skip
SHORT = {"attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 2}}], "eps": ["2/255", "8/255"]}


@pytest.fixture(scope="session")
def backend() -> str:
    """The jobs use the database through `app.storage`, which is tested on both."""
    return "sqlite"


@dataclass
class Workshop:
    """Does what workers do, here and now."""

    queue: Queue
    settings: Any

    def work(self, stop_after_blocks: int | None = None) -> Run:
        """The next run that is ready, done; a JobError fails it, as it does in a process of its own."""
        fence = self.queue.must_claim()
        run = self.queue.run(fence.run_id)
        progress = Progress(self.queue.database, fence)
        job = Job(run, fence, self.queue.database, self.settings, progress, torch.device("cpu"))
        if stop_after_blocks is not None:
            self._stop(progress, run.id, stop_after_blocks)
        try:
            JOBS[run.kind](job)
        except JobError as error:
            self.queue.do(runs.fail, fence, error.detail)
        except KeyboardInterrupt:
            self.queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
        return self.queue.run(run.id)

    def _stop(self, progress: Progress, run_id: str, blocks: int) -> None:
        def report(share: float, phase: str) -> None:
            with self.queue.database.reading() as session:
                if len(results.blocks(session, run_id)) >= blocks:
                    raise KeyboardInterrupt

        progress.report = report  # type: ignore[method-assign]

    def trained(self, seed: int = 0) -> str:
        """The id of a checkpoint of an untrained ResNet-20 that nobody wants evaluated."""
        checkpoint = self.queue.trained(seed=seed)
        self.change(Run, state="cancelled")(Run.kind == "evaluate", Run.state == "queued")
        return checkpoint

    def evaluated(self, **evaluation: Any) -> Run:
        """An evaluation that succeeded."""
        self.trained()
        self.queue.submit(evaluation={**SHORT, "images": 12, **evaluation})
        return self.finish_evaluations()[-1]

    def finish_evaluations(self) -> list[Run]:
        done = []
        while self.queue.do(runs.any_ready):
            done.append(self.work())
            assert done[-1].state == "succeeded", done[-1].error
        return done

    def verify(self, checkpoint: str, **wanted: Any) -> Run:
        """A verification, done; `metrics` has what came of it."""
        asked = VerifySpec(**wanted)
        run = self.queue.do(verifications.request, checkpoint, asked, max_attempts=3)
        assert run.state == "queued"
        done = self.work()
        assert done.id == run.id
        return done

    def change(self, table: Any, **values: Any) -> Callable[..., None]:
        """`change(Figure, robust_accuracy=1.0)(Figure.eps == "2/255")`: tampers with stored rows."""
        return lambda *where: self.queue.do(lambda session: session.execute(update(table).where(*where).values(values)))


@pytest.fixture
def workshop(database: Database, data_dir: Path) -> Workshop:
    torch.set_num_threads(1)
    return Workshop(Queue(database, data_dir), make_settings(data_dir=data_dir, database_url=database.url))
