"""Redis is asked as long as it answers in time, and left alone for a while when it does not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis

from workers.config import RedisSettings
from workers.shared_cache.redis_client import RedisClient


class Asked:
    """A client of a Redis that nobody connects to, with a clock of its own; what is asked says how long it takes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.questions = 0
        self.failures = 0
        self.client = RedisClient(RedisSettings(timeout_seconds=0.25, retry_seconds=5.0), monotonic=lambda: self.now)

    def ask(self, *, seconds: float = 0.0, error: Exception | None = None) -> str | None:
        def question(_redis: Any) -> str:
            self.questions += 1
            self.now += seconds
            if error is not None:
                raise error
            return "reply"

        def failed() -> None:
            self.failures += 1

        return self.client.ask(question, failed=failed)


@pytest.mark.parametrize("error", [redis.ConnectionError("refused"), redis.TimeoutError("slow"), OSError("gone")])
def test_after_a_call_that_failed_nobody_asks_for_a_while(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked = Asked()
    assert asked.ask() == "reply"
    assert asked.ask(error=error) is None
    asked.now += 4.9
    assert asked.ask() is None
    assert (asked.questions, asked.failures) == (2, 1)
    asked.now += 0.2
    assert asked.ask(error=error) is None
    asked.now += 5.1
    assert asked.ask() == "reply"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"], (
        "once when it goes, once when it is back"
    )


def test_a_redis_that_answers_drop_by_drop_is_left_alone_too(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked()
    assert asked.ask(seconds=0.9) == "reply"
    assert not caplog.records
    assert asked.ask(seconds=1.1) == "reply", "what it said is used"
    assert asked.ask() is None
    assert (asked.questions, asked.failures) == (2, 1)
    assert "1.1 s" in caplog.text
    asked.now += 5.1
    assert asked.ask() == "reply"
