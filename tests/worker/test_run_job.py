"""What the process of a job makes of memory that does not suffice."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from app.storage.engine import Database
from app.storage.runs import Fence
from tests.app.work import Queue

ADDRESS_SPACE = 12 * 2**30  # bytes: enough for torch, not for the batch below
# A batch of all 1,294 images fills 22 GB behind the first convolution alone.
TOO_LARGE = {"epochs": 1, "image_size": 512, "stem": "imagenet", "batch_size": 4096}


def work(queue: Queue, fence: Fence) -> subprocess.CompletedProcess[str]:
    """The job, in a process of its own with little memory."""
    given = ["--owner", fence.owner, "--attempt", str(fence.attempt), "--parent", str(os.getpid())]
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(queue.data_dir),
                   "SPIKEPROOF_DATABASE_URL": f"sqlite:///{queue.data_dir / 'spikeproof.db'}"}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "worker.run_job", fence.run_id, *given], env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)),
    )  # fmt: skip


def test_a_training_without_enough_memory_fails_once_and_says_what_to_change(
    sqlite_template: Path, data_dir: Path
) -> None:
    (data_dir / "spikeproof.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{data_dir / 'spikeproof.db'}")
    queue = Queue(database, data_dir)
    queue.submit(architectures=["resnet18"], training=TOO_LARGE)
    fence = queue.must_claim()
    done = work(queue, fence)
    run = queue.run(fence.run_id)
    database.close()
    assert done.returncode == 1, done.stdout
    assert run.state == "failed", done.stdout
    assert run.error is not None
    assert run.error.startswith("out of memory on cpu: lower training.batch_size or training.image_size"), done.stdout
