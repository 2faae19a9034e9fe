"""Runs that attack one image of somebody's choice: shared where the same was asked before.

    run, new = attacks.request(database, data_dir, checkpoint_id, wanted, pixels, limits)
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.lifecycle import SHARED
from app.domain.plan import PlannedRun
from app.domain.single_attack import PRIORITY, AttackRequest, attack_run, check_attack, check_test_image
from app.storage import artifacts, datasets, results, runs
from app.storage.engine import lock_graph
from app.storage.identifiers import new_id
from app.storage.tables import Checkpoint, Run

INPUT = "input.npy"


def plan(session: Session, data_dir: Path, row: Checkpoint, wanted: AttackRequest, pixels: bytes | None) -> PlannedRun:
    """The run to be. pixels: an .npy file of float32 (C, H, W), or None for a test image. Raises InvalidInput."""
    classes = row.spec["classes"]
    if problems := check_attack(wanted, classes):
        raise InvalidInput(problems)
    facts = {"id": row.id, "dataset": row.dataset, "epochs": row.spec["epochs"], "classes": classes}
    image = {"sha256": hashlib.sha256(pixels).hexdigest()} if pixels is not None else _test_image(data_dir, row, wanted)
    return attack_run(wanted, runs.get(session, row.run_id).spec, facts, image)


def _test_image(data_dir: Path, row: Checkpoint, wanted: AttackRequest) -> dict[str, Any]:
    assert wanted.test_image is not None
    try:
        dataset = datasets.find(row.dataset, data_dir)
    except NotFound as error:
        raise InvalidInput([Problem("/test_image", f"{error.detail}; send an image of your own")]) from error
    if problems := check_test_image(wanted.test_image, dataset, row.spec["model"]["image_shape"]):
        raise InvalidInput(problems)
    return {"test_image": wanted.test_image, "fingerprint": dataset.fingerprint}


def place_input(data_dir: Path, pixels: bytes) -> tuple[str, str]:
    """Writes the pixels into the folder of a run to be: (its id, the file as the database keeps it)."""
    run_id = new_id("run")
    path = artifacts.run_folder(data_dir, run_id) / INPUT
    artifacts.publish(path, lambda beside: _write(beside, pixels))
    return run_id, artifacts.relative(data_dir, path)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def forget_input(data_dir: Path, run_id: str) -> None:
    """Of a run that was not to be."""
    shutil.rmtree(data_dir / "runs" / run_id, ignore_errors=True)


def request(
    session: Session, checkpoint_id: str, planned: PlannedRun, *, fresh: bool, placed: tuple[str, str] | None,
    limits: Mapping[str, Any],
) -> tuple[Run, bool]:
    """The run that does it, and whether it is a new one. `placed`: what `place_input` gave. Raises NotFound."""
    lock_graph(session)
    row = results.checkpoint(session, checkpoint_id)
    known = None if fresh else _known(session, planned)
    if known is not None:
        if known.state == "running":
            known.cancel_requested_at = None  # wanted again
        return known, False
    run_id = placed[0] if placed else new_id("run")
    run = Run(
        id=run_id, kind=planned.kind, key=planned.key, share_key=f"{planned.key}:{run_id}", spec=planned.spec,
        depends_on=row.run_id, priority=PRIORITY, metrics={"input": placed[1]} if placed else {}, **limits,
    )
    session.add(run)
    session.flush()
    session.refresh(run)
    return run, True


def _known(session: Session, planned: PlannedRun) -> Run | None:
    same = select(Run).where(Run.key == planned.key, Run.state.in_(SHARED)).order_by(Run.id.desc())
    return session.scalars(same.with_for_update()).first()
