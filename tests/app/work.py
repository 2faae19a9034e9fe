"""The queue as the API and the workers use it, without any training."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from sqlalchemy import update

from app.domain.plan import expand
from app.domain.protocol import Protocol
from app.domain.spec import ExperimentSpec
from app.storage import datasets, experiments, results, runs
from app.storage.engine import Database, now_epoch
from app.storage.identifiers import new_id
from app.storage.runs import Fence
from app.storage.tables import Checkpoint, Figure, Run

MODEL = {"image_shape": [1, 8, 8]}


@dataclass
class Queue:
    """The database as the API and the workers use it: one transaction a call."""

    database: Database
    data_dir: Path

    def submit(self, *, key: str | None = None, max_attempts: int = 3, dataset: str = "digits", **body: Any) -> str:
        """The id of a new experiment; by default one seed of the default variant: a training, an evaluation."""
        body = {"dataset": dataset, "variants": ["default"], "seeds": [0], **body}
        spec = ExperimentSpec.model_validate(body)
        planned = expand(spec, datasets.find(dataset, self.data_dir))
        with self.database.writing() as session:
            return experiments.create(session, spec, planned, idempotency_key=key, max_attempts=max_attempts).id

    def runs(self, experiment_id: str) -> list[Run]:
        with self.database.reading() as session:
            return [wanted.run for wanted in experiments.runs_of(session, experiment_id)]

    def reused(self, experiment_id: str) -> list[bool]:
        with self.database.reading() as session:
            return [wanted.reused for wanted in experiments.runs_of(session, experiment_id)]

    def run(self, run_id: str) -> Run:
        with self.database.reading() as session:
            return runs.get(session, run_id)

    def states(self, experiment_id: str) -> list[str]:
        return [run.state for run in self.runs(experiment_id)]

    def state(self, experiment_id: str) -> str:
        with self.database.reading() as session:
            experiment = experiments.get(session, experiment_id)
            return experiments.state_of(experiment, experiments.runs_of(session, experiment_id))

    def claim(self, owner: str = "worker:1", lease: float = 60.0) -> Fence | None:
        with self.database.writing() as session:
            run = runs.claim(session, owner, lease)
            return run and Fence(run.id, owner, run.attempt)

    def must_claim(self, owner: str = "worker:1", lease: float = 60.0) -> Fence:
        fence = self.claim(owner, lease)
        assert fence is not None
        return fence

    def do(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """`operation(session, ...)` in a transaction of its own."""
        with self.database.writing() as session:
            return operation(session, *arguments, **options)

    def succeed(self, fence: Fence) -> None:
        self.do(runs.succeed, fence, {})

    def cancel(self, experiment_id: str) -> None:
        self.do(experiments.cancel, experiment_id)

    def expire(self, *fences: Fence) -> None:
        """As if the lease had run out."""
        with self.database.writing() as session:
            past = update(Run).where(Run.id.in_([f.run_id for f in fences]))
            session.execute(past.values(lease_expires_at=now_epoch() - 1))

    def checkpoint(self, fence: Fence, **given: Any) -> str:
        """The id of a checkpoint row of the run in hand."""
        run = self.run(fence.run_id)
        values: dict[str, Any] = {
            "id": new_id("ckpt"), "run_id": run.id, "epoch": 5, "final": True, "parent_id": None,
            "dataset": run.spec["dataset"]["name"], "architecture": run.spec["architecture"],
            "variant": run.spec["variant"], "seed": run.spec["seed"], "sha256": "0" * 64, "size": 1,
            "path": f"runs/{run.id}/model.safetensors", "metrics": {"parameters": 10},
            "spec": {"model": MODEL, "classes": list("0123456789"), "epochs": "<5>"}, **given,
        }  # fmt: skip
        self.do(results.add_checkpoint, fence, Checkpoint(**values))
        return str(values["id"])

    def trained(self, variant: str = "default", seed: int = 0) -> str:
        """The id of a checkpoint of an untrained ResNet-20 for digits, its file published."""
        experiment = self.submit(variants=[variant], seeds=[seed])
        for run in self.runs(experiment):
            if run.state == "queued" and run.kind != "evaluate":
                self._publish(run)
        last = next(run for run in self.runs(experiment) if run.spec.get("variant") == variant)
        return str(self.do(results.checkpoint_of_run, last.id).id)

    def _publish(self, run: Run) -> None:
        fence = self.must_claim()
        while fence.run_id != run.id:
            fence = self.must_claim()
        self.publish(fence, run)
        self.succeed(fence)

    def publish(self, fence: Fence, run: Run) -> None:
        """The file and the row of an untrained network for digits."""
        import torch

        from models import checkpoint as checkpoint_file
        from models.registry import ModelSpec, build

        torch.manual_seed(run.spec["seed"])
        model = build(ModelSpec("resnet20", run.spec["variant"], 10, (1, 8, 8), mean=(0.3,), std=(0.4,)))
        path = self.data_dir / "runs" / run.id / "model.safetensors"
        path.parent.mkdir(parents=True)
        sha256 = checkpoint_file.save(path, model, {})
        spec = {"model": model.spec.to_dict(), "classes": list("0123456789"), "epochs": "<5>"}
        self.checkpoint(fence, sha256=sha256, size=path.stat().st_size, spec=spec)

    def work_off(
        self, measure: Callable[[Run], dict[str, float]] | None = None,
        judge: Callable[[Run, str], list[dict[str, Any]]] | None = None, files: bool = False,
    ) -> None:
        """Does every run that is ready, with checkpoints, and `files` of them; `measure` gives the figures of an
        evaluation, `judge` its verdicts at a radius."""
        while (fence := self.claim()) is not None:
            run = self.run(fence.run_id)
            if run.kind == "shard":
                pass  # only its evaluation has something to show
            elif run.kind != "evaluate":
                self.publish(fence, run) if files else self.checkpoint(fence)
            elif measure is not None:
                self.do(results.add_figures, fence, self.figures(run, **measure(run)))
                radii = run.spec["protocol"]["eps"] if judge is not None else []
                self.do(results.add_verdicts, fence, [row for eps in radii for row in judge(run, eps)])  # type: ignore[misc]
            self.succeed(fence)

    def figures(self, run: Run, **given: Any) -> list[Figure]:
        """One a radius of the run's protocol; robust accuracy falls by a tenth from radius to radius."""
        protocol = Protocol.from_dict(run.spec["protocol"])
        assert run.depends_on is not None
        with self.database.reading() as session:
            trained = results.checkpoint_of_run(session, run.depends_on)
        return [
            make_figure(run, protocol, eps, trained.id, {**given, "robust_accuracy": robust})
            for number, eps in enumerate(protocol.eps)
            for robust in [max(0.0, given.get("robust_accuracy", 0.5) - 0.1 * number)]
        ]


def make_figure(run: Run, protocol: Protocol, eps: Fraction, checkpoint: str, given: dict[str, Any]) -> Figure:
    values: dict[str, Any] = {
        **run.spec["subject"], "run_id": run.id, "eps": str(eps), "checkpoint_id": checkpoint, "norm": protocol.norm,
        "suite": protocol.suite, "images": protocol.images, "protocol_id": protocol.identity(eps),
        "protocol": protocol.describe(eps), "clean_accuracy": 0.9, "robust_accuracy": 0.5,
        "attacks": {stage.attack: given["robust_accuracy"] for stage in protocol.stages_at(eps)}, "verdict": "ok",
        "reasons": [], "details": {"test_images": 359, "clean_accuracy_subset": 0.97}, "draws": 1,
        "parameters": 10, **given,
    }  # fmt: skip
    return Figure(**values)


def verdict(image: int, eps: str = "8/255", right: float = 0.0, attack: str | None = "pgd") -> dict[str, Any]:
    """What stands of an image at a radius."""
    return {"eps": eps, "image_id": image, "attack": attack, "norm": 0.03, "linf": 0.03, "l2": 0.2, "ssim": 0.9,
            "correct_share": right, "majority": right > 0.5, "clean_correct_share": 1.0,
            "clean_majority": True}  # fmt: skip


def in_threads(work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> None:
    """Does the work once an argument tuple, all at the same time; returns when all are done."""
    threads = [threading.Thread(target=work, args=given) for given in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
