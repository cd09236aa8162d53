"""What a worker's log says while it is not ready yet."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from workers.telemetry.start_progress import StartProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any, Any]]:
    return [
        (record.getMessage(), getattr(record, "finished", None), getattr(record, "seconds_left", None))
        for record in caplog.records
    ]


def test_how_far_it_is_and_what_is_left_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    progress = StartProgress(clock)
    progress.start("reading pool a", 100)
    for _ in range(9):
        clock.now += 4
        progress.advance(10)
    progress.done()
    assert said(caplog) == [
        ("reading pool a", None, None),
        ("reading pool a", 30, 28),
        ("reading pool a", 60, 16),
        ("reading pool a", 90, 4),
    ]


def test_what_is_quick_or_of_unknown_size_is_one_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    progress = StartProgress(clock)
    progress.start("quick", 2)
    progress.advance(2)
    progress.done()
    progress.start("waiting", 0)
    clock.now += 60
    progress.advance(5)
    progress.done()
    assert said(caplog) == [("quick", None, None), ("waiting", None, None)]


def test_what_began_and_how_much_of_it_is_done_may_be_asked_for() -> None:
    progress = StartProgress(lambda: 0.0)
    assert (progress.started, progress.share) == (0, 0.0)
    progress.start("words", 8)
    progress.advance(2)
    assert (progress.started, progress.share) == (1, 0.25)
    progress.advance(9)
    assert progress.share == 1.0
    progress.start("something of unknown size", 0)
    assert (progress.started, progress.share) == (2, 0.0)
