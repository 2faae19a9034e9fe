"""Server-sent events, read line by line (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """What happened: `kind` is "state", "metrics", "progress", "log", "experiment", "cancelled" or "end"; `id` is that
    of the last numbered event so far."""

    kind: str
    data: dict[str, Any]
    id: str | None


def events_in(lines: Iterable[str], last_id: str | None = None) -> Iterator[Event]:
    """The events of a stream; one that was cut short is left out."""
    kind, data = "message", list[str]()
    for line in lines:
        if line == "":
            if data:
                yield Event(kind, json.loads("\n".join(data)), last_id)
            kind, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
