"""What happens, to everybody who watches: one thread a process looks into the database, and hands out what it finds.

    watching = hub.watch(experiment_id, last_id, loop)   # blocks for a few queries
    async for chunk in watching.chunks(): ...            # holds no session and no thread

However many streams are open, a look is two queries and the logs of the runs that work. Numbered events are the rows of
`events`, so that a stream resumes exactly; progress and log lines follow from what is there, and have no number.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.domain.errors import ServiceUnavailable
from app.domain.lifecycle import TERMINAL, experiment_state
from app.domain.outlook import eta, progress, tallies_of
from app.logs import get_logger
from app.storage import events, experiments
from app.storage import watching as seen
from app.storage.engine import Database, to_json
from app.storage.run_logs import LogTails
from app.storage.tables import Event
from app.storage.watching import Brief

LOOK_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
MOST_STREAMS = 1000
MOST_WAITING = 200  # looks that a slow client may lag behind before its stream ends; it resumes then
EVENTS_A_LOOK = 1000
logger = get_logger(__name__)
Message = tuple[int | None, bytes]  # with the number of its event


def message(kind: str, data: Mapping[str, Any], number: int | None = None) -> Message:
    """As it goes over the wire."""
    text = to_json(data)
    return number, format_sse_event(data_str=text, event=kind, id=None if number is None else str(number))


def told(event: Event) -> Message:
    """A stored event."""
    of = {"run": event.run_id} if event.run_id else {"experiment": event.experiment_id}
    return message(event.kind, {**of, **event.data}, event.id)


@dataclass(eq=False)
class Watching:
    """One open stream. `since`: it has all events up to this number."""

    since: int
    loop: asyncio.AbstractEventLoop
    first: list[Message]
    ended: bool = False  # nothing more will come
    gone: bool = False  # nobody listens any more
    _queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))

    async def chunks(self) -> AsyncIterator[bytes]:
        """What to send, until the experiment or the service ends, or the client lags too far behind."""
        try:
            yield b"retry: 2000\n\n" + b"".join(text for _, text in self.first)
            while not (self.ended and self._queue.empty()):
                try:
                    chunk = await asyncio.wait_for(self._queue.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield b": keep-alive\n\n"
                    continue
                if chunk is None:
                    return
                yield chunk
        finally:
            self.gone = True

    @property
    def missed(self) -> bool:
        """Whether something that is numbered comes first."""
        return any(number is not None for number, _ in self.first)

    def put(self, messages: Sequence[Message], *, last: bool = False) -> None:
        """From the hub's thread."""
        chunk = b"".join(text for number, text in messages if number is None or number > self.since)
        try:
            if chunk:
                self.loop.call_soon_threadsafe(self._put, chunk)
            if last:
                self.loop.call_soon_threadsafe(self._put, None)
        except RuntimeError:  # the loop has been closed: the service has stopped
            self.gone = True

    def _put(self, chunk: bytes | None) -> None:
        if not self.ended and self._queue.full():
            while not self._queue.empty():
                self._queue.get_nowait()
            chunk, self.gone = None, True
        if chunk is None:
            self.ended = True
        if not self._queue.full():
            self._queue.put_nowait(chunk)


@dataclass
class Channel:
    """An experiment that somebody watches."""

    id: str
    cancelled: bool
    runs: dict[str, Brief]
    watching: list[Watching] = field(default_factory=list)
    told: Mapping[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing will happen unless somebody tries something again."""
        stopping = any(r.state == "running" and r.cancel_requested for r in self.runs.values())
        return self._state in (*TERMINAL, "partial") and not stopping

    @property
    def _state(self) -> str:
        states: list[Any] = [r.state for r in self.runs.values()]
        return experiment_state(states, cancelled=self.cancelled)

    def news(self) -> list[Message]:
        """Its state, progress and time left, where they differ from what was told last."""
        found = tallies_of(self.runs.values())
        now = {"id": self.id, "state": self._state, "progress": progress(found), "eta_seconds": eta(found)}
        same, self.told = now == self.told, now
        return [] if same else [message("experiment", now)]


class Hub:
    """One a process. Its thread sleeps while nobody watches."""

    def __init__(self, database: Database, data_dir: Path, look_seconds: float = LOOK_SECONDS) -> None:
        self._database, self._look_seconds = database, look_seconds
        self._logs = LogTails(data_dir)
        self._lock = threading.Lock()
        self._woken, self._closed = threading.Event(), False
        self._channels: dict[str, Channel] = {}
        self._seen = 0  # number of the last event handed out
        self._thread: threading.Thread | None = None

    def watch(self, experiment_id: str, last_id: int | None, loop: asyncio.AbstractEventLoop) -> Watching:
        """A stream of an experiment: from after event `last_id` on, else from how things stand.

        Raises NotFound, ServiceUnavailable (too many streams).
        """
        with self._lock:
            if self._closed or self.streams() >= MOST_STREAMS:
                raise ServiceUnavailable("too many event streams are open, or the service stops; try again later")
            with self._database.reading() as session:
                channel, watching = self._open(session, experiment_id, last_id, loop)
            watching.first += [message("experiment", channel.told)] if channel.told else channel.news()
            if channel.over:
                watching.first.append(message("end", {"id": channel.id, "state": channel.told["state"]}))  # type: ignore[index]
                watching.ended = True
                return watching
            if not self._channels:
                self._seen = watching.since
            self._channels.setdefault(experiment_id, channel).watching.append(watching)
            self._start()
        return watching

    def streams(self) -> int:
        """How many are open."""
        return sum(len(channel.watching) for channel in list(self._channels.values()))

    def _open(
        self, session: Session, experiment_id: str, last_id: int | None, loop: asyncio.AbstractEventLoop
    ) -> tuple[Channel, Watching]:
        row, newest = experiments.get(session, experiment_id), events.newest(session)
        channel = self._channels.get(experiment_id) or Channel(
            row.id, row.cancelled_at is not None, {b.id: b for b in seen.briefs_of(session, row.id)}
        )
        self._logs.follow(b.id for b in channel.runs.values() if b.state not in TERMINAL)
        if last_id is not None and events.is_kept(session, last_id):
            missed = events.after_of(session, last_id, row.id, list(channel.runs))
            since = max([newest, *(e.id for e in missed)])
            return channel, Watching(since, loop, [told(e) for e in missed])
        now = seen.briefs_of(session, row.id)
        first = [message("state", _standing(brief), newest) for brief in now]
        working = [brief.id for brief in now if brief.state == "running"]
        for run_id, metrics in seen.metrics_of(session, working).items():
            first.append(message("metrics", {"run": run_id, **events.brief_metrics(metrics)}, newest))
        return channel, Watching(newest, loop, first)

    def _start(self) -> None:
        self._woken.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="event hub", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Every stream ends; clients come back to the next process and miss nothing."""
        self._closed = True
        self._woken.set()
        with self._lock:
            for channel in self._channels.values():
                for watching in channel.watching:
                    watching.put([], last=True)
            self._channels.clear()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            if not self._channels:
                self._woken.wait()
                self._woken.clear()
            try:
                with self._lock:
                    self._look()
            except SQLAlchemyError as error:  # the database may come back
                logger.warning("events cannot be read", error=str(error).partition("\n")[0])
            except Exception:  # a bug in one look must not end all streams
                logger.exception("a look at events failed")
            time.sleep(self._look_seconds)

    def _look(self) -> None:
        self._forget_gone()
        if not self._channels:
            return
        with self._database.reading() as session:
            new = events.after(session, self._seen, EVENTS_A_LOOK)
            rows = seen.briefs(session, {e.run_id for e in new if e.run_id})
            cancelled = seen.cancelled(session, self._channels) if any(map(_may_revive, new)) else None
        for channel in list(self._channels.values()):
            channel.cancelled = channel.cancelled if cancelled is None else channel.id in cancelled
            self._hand_out(channel, new, [row for row in rows if row.id in channel.runs])
        self._logs.read_on()
        self._seen = new[-1].id if new else self._seen

    def _hand_out(self, channel: Channel, new: Iterable[Event], rows: Sequence[Brief]) -> None:
        ours = [e for e in new if e.run_id in channel.runs or e.experiment_id == channel.id]
        channel.cancelled |= any(e.kind == "cancelled" for e in ours)
        changed = [row for row in rows if row != channel.runs[row.id]]
        channel.runs |= {row.id: row for row in changed}
        found = [message("log", piece) for row in rows for piece in self._logs.of(row.id)]
        found += [told(event) for event in ours]
        found += [message("progress", _progress(row)) for row in changed if row.state == "running"]
        found += channel.news() if changed or ours else []
        over = channel.over
        if over:
            found.append(message("end", {"id": channel.id, "state": channel.told["state"]}))  # type: ignore[index]
            del self._channels[channel.id]
        for watching in channel.watching:
            watching.put(found, last=over)

    def _forget_gone(self) -> None:
        for channel in list(self._channels.values()):
            channel.watching = [w for w in channel.watching if not w.gone]
            if not channel.watching:
                del self._channels[channel.id]
        self._logs.keep({run_id for channel in self._channels.values() for run_id in channel.runs})


def _may_revive(event: Event) -> bool:
    """A run that is tried again is queued, and a cancelled experiment with it."""
    return event.kind == "state" and event.data.get("state") == "queued"


def _standing(brief: Brief) -> dict[str, Any]:
    return {"run": brief.id, "kind": brief.kind, "state": brief.state, "attempt": brief.attempt,
            "progress": brief.progress, "phase": brief.phase, "cancel_requested": brief.cancel_requested}  # fmt: skip


def _progress(brief: Brief) -> dict[str, Any]:
    return {"run": brief.id, "progress": brief.progress, "phase": brief.phase}
