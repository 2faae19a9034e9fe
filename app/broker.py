"""The doorbell: tells Celery workers that a run waits. The database is the truth, so a ring that is lost or
heard twice does no harm: the sweeper rings again, and a run can be claimed once.

Messages hold a run's id and nothing else. Tasks are sent by name, `spikeproof.train` for one, since nothing
here may import the workers.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

KINDS = ("train", "branch", "quantise", "shard", "evaluate", "verify", "attack")
QUEUES = ("gpu", "cpu")  # a worker with a GPU listens to both, one without to "cpu" alone
SILENCE_SECONDS = 5.0  # of a broker that took a command: longer than a worker's BRPOP, which is answered each second
PATIENCE_SECONDS = 2.0  # to reach the broker; whoever rings has other work to do


def task_name(kind: str) -> str:
    """The Celery task of a kind of run."""
    return f"spikeproof.{kind}"


def make_celery(settings: Settings) -> "Celery":
    """The Celery application of senders and workers.

    Acknowledged early: a message whose worker dies is not delivered again behind the database's back. One
    message a worker, fetched when it is free: a run must not wait behind a busy worker while another idles.
    """
    from celery import Celery  # a service without a broker starts without it
    from kombu.entity import Queue

    celery = Celery("spikeproof", broker=settings.broker_url, set_as_current=False)
    celery.conf.update(
        task_ignore_result=True, task_acks_late=False, task_default_queue="cpu",
        task_queues=[Queue(name) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1, worker_disable_prefetch=True,
        worker_hijack_root_logger=False, worker_redirect_stdouts=False, worker_send_task_events=False,
        broker_connection_retry_on_startup=True, broker_connection_max_retries=None,
        broker_connection_timeout=PATIENCE_SECONDS,
        broker_transport_options={
            "socket_connect_timeout": PATIENCE_SECONDS, "socket_timeout": SILENCE_SECONDS, "socket_keepalive": True,
        },
    )
    return celery


class BrokerDown(Exception):
    """The broker cannot be reached just now."""


class Doorbell:
    """Rings for runs, and asks the broker how it is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _celery(self) -> "Celery":
        return make_celery(self._settings)

    def ring(self, runs: Iterable[tuple[str, str]], queue: str) -> None:
        """Sends a message for each (run id, kind). Raises BrokerDown, after which some may have been sent."""
        with self._connection() as connection:
            for run_id, kind in runs:
                self._celery.send_task(
                    task_name(kind), (run_id,), queue=queue, connection=connection, retry=False, ignore_result=True
                )

    def waiting(self, queues: Iterable[str] = QUEUES) -> int:
        """How many messages of these queues no worker has fetched yet. Raises BrokerDown."""
        with self._connection() as connection:
            return sum(_length(connection, name) for name in queues)

    def reachable(self) -> bool:
        """Whether the broker answers."""
        try:
            self.waiting()
        except BrokerDown:
            return False
        return True

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        from kombu.exceptions import OperationalError

        connection = self._celery.connection_for_write()
        try:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE_SECONDS, interval_start=0)
            yield connection
        except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
            raise BrokerDown(f"the broker cannot be reached ({type(error).__name__})") from error
        finally:
            connection.release()


def _length(connection: Any, queue: str) -> int:
    from kombu.exceptions import ChannelError

    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:  # nothing was ever sent to it
        return 0
