"""When a call ends early, and how much is tried at a time."""

from __future__ import annotations

import threading

import pytest

from el4ner.engines.exllama.limits import BatchLimit, CallLimit
from el4ner.errors import EngineAwayError, EngineError


class TestBatchLimit:
    def test_is_halved_down_to_one_and_widened_again_after_a_while(self) -> None:
        batch_limit = BatchLimit(5, patience=3)
        assert batch_limit.halve()
        assert batch_limit.now == 2
        assert batch_limit.halve()
        assert batch_limit.now == 1
        assert not batch_limit.halve()
        seen = []
        for _ in range(12):
            batch_limit.passed()
            seen.append(batch_limit.now)
        assert seen == [1, 1, 2, 2, 2, 4, 4, 4, 5, 5, 5, 5]


class TestCallLimit:
    def test_lets_a_call_pass_until_its_deadline(self) -> None:
        now = [10.0]
        call_limit = CallLimit("m", 5.0, threading.Event(), lambda: now[0])
        now[0] = 14.9
        call_limit.check()
        now[0] = 15.0
        with pytest.raises(EngineError, match=r"^m: no answer within 5 seconds"):
            call_limit.check()

    def test_an_interruption_comes_first(self) -> None:
        interrupted = threading.Event()
        call_limit = CallLimit("m", 0.0, interrupted, lambda: 0.0)
        interrupted.set()
        with pytest.raises(EngineAwayError):
            call_limit.check()
