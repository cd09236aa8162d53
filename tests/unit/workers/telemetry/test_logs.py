"""Log records: what modules pass as ``extra`` are fields of the line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from workers.config import WorkerSettings
from workers.telemetry.logs import Throttle, configure_logging


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    names = ("aiokafka", "faust", "mode", "kafka")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


def test_json_lines_have_the_document_and_the_trace() -> None:
    out = io.StringIO()
    configure_logging(WorkerSettings(log_format="json"), stream=out)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("workers.stages.stage_worker").exception(
            "%s gave up", "extract", extra={"document_id": "größe", "trace_id": "4bf9"}
        )
    logging.getLogger("workers.x").debug("not shown")
    logging.getLogger("faust.app").info("not shown either")
    (line,) = out.getvalue().splitlines()
    record = json.loads(line)
    assert (record["event"], record["level"], record["logger"]) == (
        "extract gave up",
        "error",
        "workers.stages.stage_worker",
    )
    assert (record["document_id"], record["trace_id"]) == ("größe", "4bf9")
    assert "ValueError" in record["exception"]
    assert record["timestamp"].endswith("Z")


def test_console_lines_are_for_people_and_json_is_for_pipes() -> None:
    out = io.StringIO()
    configure_logging(WorkerSettings(log_format="console"), stream=out)
    logging.getLogger("workers").warning("hello", extra={"document_id": "d"})
    assert "hello" in out.getvalue()
    assert "document_id" in out.getvalue()
    assert not out.getvalue().startswith("{")
    out = io.StringIO()
    configure_logging(WorkerSettings(log_format="auto"), stream=out)
    logging.getLogger("workers").warning("hello")
    assert json.loads(out.getvalue())["event"] == "hello"


def test_what_a_library_repeats_is_counted_instead_of_shown() -> None:
    now = 0.0
    throttle = Throttle(most=2, seconds=10.0, monotonic=lambda: now)

    def record(name: str, message: str, *arguments: object) -> logging.LogRecord:
        return logging.LogRecord(name, logging.ERROR, "", 0, message, arguments, None)

    shown = [throttle.filter(record("aiokafka.client", "no connection to %s", node)) for node in range(5)]
    assert shown == [True, True, False, False, False]
    # Something else, and whatever we say ourselves, is not held back.
    assert throttle.filter(record("aiokafka.client", "metadata"))
    assert all(throttle.filter(record("workers.run", "ready")) for _ in range(5))
    now = 10.0
    again = record("aiokafka.client", "no connection to %s", 1)
    assert throttle.filter(again)
    assert again.suppressed == 3  # type: ignore[attr-defined]
