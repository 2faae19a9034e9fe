"""`/metrics` for Prometheus. Whatever the database knows is counted there at each scrape; only the latencies of
requests are this process's own."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.api.dependencies import ServicesOf
from app.domain.lifecycle import RUN_STATES
from app.storage import census
from app.storage.engine import Database

KINDS = ("train", "branch", "quantise", "shard", "evaluate", "verify", "attack")
RUN_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0)
REQUEST_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LATELY_SECONDS = 900.0
router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response,
            responses={200: {"content": {"text/plain": {}}, "description": "the text format of Prometheus"}})
def metrics(services: ServicesOf) -> Response:
    """Runs by state and kind, their durations, attacked images a second, workers, GPU memory, latencies of requests."""
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """What one process has to show."""

    def __init__(self, database: Database, lease_seconds: float, open_streams: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._latencies = Histogram(
            "spikeproof_request_seconds", "Time to the answer; of event streams to its beginning",
            ("method", "route", "status"), registry=self.registry, buckets=REQUEST_SECONDS,
        )
        ProcessCollector(registry=self.registry)
        self.predictions = PredictionFigures(self.registry)
        self.registry.register(_Rows(database, lease_seconds, open_streams))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._latencies.labels(method, route, str(status)).observe(seconds)


class PredictionFigures:
    """Batches of predictions in this process, told by the batcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"spikeproof_predict_{name}", text, registry=registry, buckets=buckets)

        self._images = histogram("batch_images", "Images of a batch", BATCH_IMAGES)
        self._seconds = histogram("batch_seconds", "Time that a batch took", BATCH_SECONDS)
        self._waits = histogram("wait_seconds", "Time of a request in the queue, before its first batch", BATCH_SECONDS)
        self._refused = CounterMetric(
            "spikeproof_predict_refused", "Requests that found the queue full", registry=registry
        )
        self._queue = Gauge("spikeproof_predict_queue_images", "Being decoded, waiting or running", registry=registry)
        self._models = Gauge("spikeproof_predict_model_bytes", "Networks kept in memory", registry=registry)

    def show(self, queue: Callable[[], float], model_bytes: Callable[[], float]) -> None:
        """Asked at each scrape."""
        self._queue.set_function(queue)
        self._models.set_function(model_bytes)

    def batch(self, images: int, seconds: float, waits: Sequence[float]) -> None:
        """One was run."""
        self._images.observe(images)
        self._seconds.observe(seconds)
        for wait in waits:
            self._waits.observe(wait)

    def refused(self) -> None:
        """One more."""
        self._refused.inc()


class _Rows(Collector):
    """Asks the database at each scrape; while it is away, `spikeproof_database_up` is 0 and its counts are missing."""

    def __init__(self, database: Database, lease_seconds: float, open_streams: Callable[[], int]) -> None:
        self._database, self._lease_seconds, self._open_streams = database, lease_seconds, open_streams

    def describe(self) -> list[Any]:
        """Nothing is asked when this is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """Every family."""
        yield GaugeMetricFamily("spikeproof_event_streams", "Open event streams", value=self._open_streams())
        try:
            with self._database.reading() as session:
                found = [*_runs(session), *_attacked(session), *_workers(session, self._lease_seconds)]
        except SQLAlchemyError:
            found = []
        yield GaugeMetricFamily("spikeproof_database_up", "Whether the database answered", value=float(bool(found)))
        yield from found


def _runs(session: Session) -> Iterator[Any]:
    counts = census.runs_by_kind_and_state(session)
    depth = GaugeMetricFamily("spikeproof_runs", "Runs by kind and state", labels=("kind", "state"))
    for kind in KINDS:
        for state in RUN_STATES:
            depth.add_metric((kind, state), counts.get((kind, state), 0))
    yield depth
    took = HistogramMetricFamily("spikeproof_run_seconds", "Work of runs that ended", labels=("kind", "state"))
    for one in census.durations(session, RUN_SECONDS):
        buckets = [*zip(map(str, RUN_SECONDS), one.within, strict=True), ("+Inf", one.count)]
        took.add_metric((one.kind, one.state), buckets, one.seconds)
    yield took


def _attacked(session: Session) -> Iterator[Any]:
    images, seconds = census.attacked(session)
    yield CounterMetricFamily("spikeproof_attacked_images", "Images that were attacked", value=images)
    yield CounterMetricFamily("spikeproof_attack_seconds", "Time that attacks took, of all jobs", value=seconds)
    images, seconds = census.attacked(session, LATELY_SECONDS)
    speed = images / seconds if seconds else 0.0
    text = "Images a second of one job, over the last quarter of an hour"
    yield GaugeMetricFamily("spikeproof_attack_images_per_second", text, value=speed)


def _workers(session: Session, lease_seconds: float) -> Iterator[Any]:
    found = census.living_workers(session, lease_seconds)
    alive = GaugeMetricFamily("spikeproof_workers", "Workers that live", labels=("device", "busy"))
    counts = Counter((worker.device, worker.run_id is not None) for worker in found)
    for device in ("cpu", "cuda"):
        for busy in (False, True):
            alive.add_metric((device, str(busy).lower()), counts[device, busy])
    yield alive
    used = GaugeMetricFamily("spikeproof_gpu_memory_used_bytes", "Of a worker's GPU", labels=("worker",))
    total = GaugeMetricFamily("spikeproof_gpu_memory_total_bytes", "Of a worker's GPU", labels=("worker",))
    for worker in found:
        if worker.gpu_memory_used is not None and worker.gpu_memory_total is not None:
            name = worker.id.rpartition(":")[0]
            used.add_metric((name,), worker.gpu_memory_used)
            total.add_metric((name,), worker.gpu_memory_total)
    yield from (used, total)
