"""Log records as JSON lines or for a terminal. Modules use :mod:`logging`; what they pass as ``extra`` are fields."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable
from typing import IO, TextIO

import structlog
from typing_extensions import override

from workers.config import WorkerSettings
from workers.printable import escaped

__all__ = ["Throttle", "configure_logging"]

_NOISY = ("aiokafka", "faust", "mode", "kafka", "httpx", "httpcore")


class Throttle(logging.Filter):
    """Lets a library's record through ``most`` times in ``seconds``, then only counts it.

    In an outage the Kafka clients say the same thing some hundred times a second. The first record of the next period
    says in ``suppressed`` how many were left out.
    """

    def __init__(
        self, *, most: int = 5, seconds: float = 10.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most = most
        self._seconds = seconds
        self._monotonic = monotonic
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_NOISY):
            return True
        key = (record.name, str(record.msg))
        now = self._monotonic()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= self._seconds:
            if count > self._most:
                record.suppressed = count - self._most
            since, count = now, 0
        self._seen[key] = (since, count + 1)
        return count < self._most


def _escape(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Names and texts from elsewhere do not command the terminal, nor do they begin a line that looks like a record."""
    del logger, name
    return {
        key: escaped(value, lines=key in ("event", "exception", "stack")) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _escaped_traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(escaped(text.getvalue()))


def configure_logging(settings: WorkerSettings, *, stream: IO[str] | None = None) -> None:
    """Send every record to ``stream`` (standard error), in the format that ``worker.log_format`` names.

    The libraries' own records appear from warnings on, unless ``worker.log_level`` is ``debug``.
    """
    out = sys.stderr if stream is None else stream
    json = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [_escape, structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=_escaped_traceback)]
    )
    handler = logging.StreamHandler(out)
    if settings.log_level != "debug":
        handler.addFilter(Throttle())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    for previous in list(root.handlers):
        root.removeHandler(previous)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
