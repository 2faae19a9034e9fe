"""`shard` runs: some of the blocks of an evaluation, attacked for it.

Blocks are what an evaluation stores and resumes at anyway, and their bits do not depend on who attacks them. So the
evaluation, which waits for its shards, goes on as if it had been stopped after its last block.
"""

from app.storage import results, runs
from worker.jobs.job import Job, open_checkpoint
from worker.jobs.measure import Measure, measured_blocks, note_conditions


def run_shard(job: Job) -> None:
    """Every so many-th block from its own number on; per-image rows are the evaluation's to store."""
    _, model = open_checkpoint(job, job.run.depends_on)
    measure = Measure.open(job, job.run.id, job.spec, model, lambda size: _note_conditions(job, size))
    _note_conditions(job, measure.batch.size)
    count = len(measure.parts())
    mine = range(job.spec["shard"], count, job.spec["shards"])  # none where fewer images are answered right than asked

    def report(number: int, share: float) -> None:
        done = (mine.index(number) + share) / len(mine)
        job.progress.report(done, f"attacking, block {number + 1}/{count}")

    images = sum(len(block.ids) for block in measured_blocks(job, measure, report, rows=False, only=mine))
    with job.database.writing() as session:
        runs.succeed(session, job.fence, {**job.run.metrics, "blocks": len(mine), "images": images})


def _note_conditions(job: Job, batch: int) -> None:
    with job.database.reading() as session:
        anything = bool(results.blocks(session, job.run.id))
    note_conditions(job, batch, anything=anything)
