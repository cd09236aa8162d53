from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest

from el4ner.engines.base import GenerateRequest, GenerateResult, Prompt
from el4ner.engines.instant import InstantEngine
from el4ner.engines.owner import OwnedEngine
from el4ner.errors import EngineAwayError, EngineError, ModelError


class Gate:
    """A call that begins, tells so, and goes on when it may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, engine: InstantEngine) -> str:
        self.begun.set()
        assert self.may_go_on.wait(10)
        return engine.name


def test_calls_run_in_order_on_one_thread_that_is_not_the_callers() -> None:
    seen: list[tuple[int, int]] = []
    with OwnedEngine(InstantEngine("a")) as owner:
        futures = [owner.submit(lambda _, n=n: seen.append((n, threading.get_ident()))) for n in range(10)]
        for future in futures:
            future.result(10)
    assert [number for number, _ in seen] == list(range(10))
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


def test_who_asks_shows_in_the_number_of_calls() -> None:
    with OwnedEngine(InstantEngine("a")) as owner:
        assert owner.submitted == 0
        for _ in range(3):
            owner.submit(lambda _: None).result(10)
        assert owner.submitted == 3


def test_an_engine_method_is_a_call() -> None:
    with OwnedEngine(InstantEngine("a", reply=lambda _: "yes")) as owner:
        (result,) = owner.submit(InstantEngine.generate, [GenerateRequest(Prompt("", "?"), 4)]).result(10)
    assert result.text == "yes"


def test_an_exception_goes_to_its_own_caller_only() -> None:
    def fails(_: InstantEngine) -> None:
        raise EngineError("broken")

    with OwnedEngine(InstantEngine("a")) as owner:
        bad, good = owner.submit(fails), owner.submit(lambda engine: engine.name)
        with pytest.raises(EngineError, match="broken"):
            bad.result(10)
        assert good.result(10) == "a"


def test_a_full_queue_holds_the_caller_back() -> None:
    gate = Gate()
    with OwnedEngine(InstantEngine("a"), capacity=2) as owner:
        running = owner.submit(gate)
        assert gate.begun.wait(10)
        waiting = [owner.submit(lambda engine: engine.name) for _ in range(2)]
        assert owner.waiting == 2
        with pytest.raises(queue.Full):
            owner.submit_within(0.01, lambda engine: engine.name)
        entered = threading.Event()

        def enter() -> None:
            owner.submit(lambda engine: engine.name).result(10)
            entered.set()

        caller = threading.Thread(target=enter)
        caller.start()
        assert not entered.wait(0.05)
        gate.may_go_on.set()
        assert entered.wait(10)
        caller.join()
        assert [future.result(10) for future in (running, *waiting)] == ["a"] * 3


def test_a_call_that_is_cancelled_in_time_is_not_run() -> None:
    gate, ran = Gate(), threading.Event()
    with OwnedEngine(InstantEngine("a")) as owner:
        owner.submit(gate)
        assert gate.begun.wait(10)
        future = owner.submit(lambda _: ran.set())
        assert future.cancel()
        gate.may_go_on.set()
        owner.submit(lambda engine: engine.name).result(10)
    assert not ran.is_set()


def test_closing_answers_what_waits_and_closes_the_engine() -> None:
    engine = InstantEngine("a")
    owner = OwnedEngine(engine)
    futures = [owner.submit(lambda engine: engine.name) for _ in range(5)]
    owner.close()
    owner.close()
    assert [future.result(0) for future in futures] == ["a"] * 5
    with pytest.raises(EngineError, match="closed"):
        owner.submit(lambda engine: engine.name)
    with pytest.raises(EngineError, match="closed"):
        engine.generate([])


def test_closing_can_cancel_what_waits() -> None:
    gate = Gate()
    owner = OwnedEngine(InstantEngine("a"))
    running = owner.submit(gate)
    assert gate.begun.wait(10)
    waiting = owner.submit(lambda engine: engine.name)
    closer = threading.Thread(target=lambda: owner.close(cancel=True))
    closer.start()
    with pytest.raises(CancelledError):
        waiting.result(10)
    gate.may_go_on.set()
    closer.join(10)
    assert running.result(0) == "a"


def test_a_caller_that_waits_for_a_place_learns_of_the_end() -> None:
    gate, told = Gate(), threading.Event()
    owner = OwnedEngine(InstantEngine("a"), capacity=1)
    owner.submit(gate)
    assert gate.begun.wait(10)
    owner.submit(lambda engine: engine.name)

    def wait() -> None:
        with pytest.raises(EngineError, match="closed"):
            owner.submit(lambda engine: engine.name)
        told.set()

    caller = threading.Thread(target=wait)
    caller.start()
    closer = threading.Thread(target=owner.close)
    closer.start()
    assert told.wait(10)
    gate.may_go_on.set()
    caller.join(10)
    closer.join(10)


def test_the_engine_can_be_loaded_by_its_owner() -> None:
    with OwnedEngine(lambda: InstantEngine("late")) as owner:
        assert owner.submit(lambda engine: engine.name).result(10) == "late"


def test_what_loading_raises_goes_to_every_call() -> None:
    def load() -> InstantEngine:
        raise ModelError("no weights")

    with OwnedEngine(load) as owner:
        for _ in range(2):
            with pytest.raises(ModelError, match="no weights"):
                owner.submit(lambda engine: engine.name).result(10)


async def test_an_event_loop_awaits_a_call() -> None:
    def answer(engine: InstantEngine, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        return engine.generate(requests)

    with OwnedEngine(InstantEngine("a", reply=lambda _: "yes")) as owner:
        future = owner.submit_within(0, answer, [GenerateRequest(Prompt("", "?"), 4)])
        (result,) = await asyncio.wrap_future(future)
    assert result.text == "yes"


class Waiting(InstantEngine):
    """Answers when it is interrupted, and not before."""

    def __init__(self) -> None:
        super().__init__("waiting")
        self.begun = threading.Event()
        self._interrupted = threading.Event()

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self.begun.set()
        assert self._interrupted.wait(10)
        raise EngineAwayError("interrupted")

    def interrupt(self) -> None:
        self._interrupted.set()


def test_closing_in_a_hurry_interrupts_the_engine() -> None:
    engine = Waiting()
    owner = OwnedEngine(engine)
    running = owner.submit(lambda engine: engine.generate([]))
    waiting = owner.submit(lambda engine: engine.name)
    assert engine.begun.wait(10)
    owner.close(cancel=True)
    with pytest.raises(EngineAwayError, match="interrupted"):
        running.result(10)
    assert waiting.cancelled()
