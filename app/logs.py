"""Structured logs: one line an event, readable in a terminal, or JSON."""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog


class _Unfailing:
    """A log that cannot be written, as on a full disk, must not stop what it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure(*, json: bool = False) -> None:
    """Once a process."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = structlog.processors.JSONRenderer() if json else plain
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
    )


def get_logger(name: str) -> Any:
    """A logger whose keyword arguments become fields."""
    return structlog.get_logger(component=name)
