"""Log records as JSON lines or for a terminal. Modules use :mod:`logging`; what they pass as ``extra`` are fields."""

from __future__ import annotations

import logging
import sys
from typing import IO

import structlog

from workers.config import WorkerSettings

__all__ = ["configure_logging"]

_NOISY = ("aiokafka", "faust", "mode", "kafka")


def configure_logging(settings: WorkerSettings, *, stream: IO[str] | None = None) -> None:
    """Send every record to ``stream`` (standard error), in the format that ``worker.log_format`` names.

    The libraries' own records appear from warnings on, unless ``worker.log_level`` is ``debug``.
    """
    out = sys.stderr if stream is None else stream
    json = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = logging.StreamHandler(out)
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
    for known in list(root.handlers):
        root.removeHandler(known)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
