"""Who reads pools beside the work on documents: in which order, what gives way to what, and what failures cost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from el4ner.engines.owner import OwnedEngine
from el4ner.errors import PoolReadingError
from workers.backoff import Backoff
from workers.stages.pool_reader import PoolReader
from workers.telemetry.start_progress import StartProgress

SECONDS = 20


class Pipeline:
    """Every pool takes ``slices``, which are kept. ``before``: called on the models' thread before each."""

    name, fingerprint, context_length = "pipeline", "", 0

    def __init__(self, *pools: str, slices: int = 3) -> None:
        self.unread_pools = list(pools)
        self.parts_of_reading = 2
        self.slices = slices
        self.kept: dict[str, int] = dict.fromkeys(pools, 0)
        self.read: list[str] = []
        """The pool of each slice, in the order in which they were read."""
        self.used: list[str] = []
        self.begun = 0
        """How often a pool was begun, or gone on with."""
        self.taught = 0
        """How often it is taught while it is read."""
        self.fails: list[Exception] = []
        self.before: Callable[[str], None] = lambda _: None
        self.elsewhere: set[str] = set()
        """Those that another process is at work on."""
        self.kept_at = 0.0
        """When that one has kept something last."""
        self.waited: list[str] = []
        """For which of them we have waited, a second each."""
        self.progress = StartProgress(lambda: 0.0)

    def read_beside(
        self, name: str, call: Callable[[Callable[[], Any]], Any], meanwhile: Callable[[float], None]
    ) -> int:
        if self.fails and name == "a":
            raise self.fails.pop(0)
        self.begun += 1
        self.progress.start(name, self.slices)
        self.progress.advance(self.kept[name])
        while name in self.elsewhere:
            self.waited.append(name)
            meanwhile(self.kept_at)
            threading.Event().wait(0.01)
        while self.kept[name] < self.slices:
            call(lambda: self._slice(name))
        self.progress.start(f"{name}, weighed", 1)
        return self.taught

    def _slice(self, name: str) -> None:
        self.before(name)
        self.read.append(name)
        self.kept[name] += 1
        self.progress.advance(1)

    def teach_beside(self, name: str, read: int, call: Callable[[Callable[[], Any]], Any]) -> int:
        return read - 1

    def use_read(self, name: str, read: int) -> bool:
        if not read:
            self.used.append(name)
        return not read

    def close(self) -> None:
        pass

    def generate(self, requests: Any) -> Any:
        raise NotImplementedError

    def score(self, requests: Any) -> Any:
        raise NotImplementedError

    def count_tokens(self, prompt: Any) -> int:
        raise NotImplementedError


@contextmanager
def reading(pipeline: Pipeline, **more: Any) -> Iterator[tuple[PoolReader, OwnedEngine[Any]]]:
    owner: OwnedEngine[Any] = OwnedEngine(lambda: pipeline)
    reader = PoolReader(owner, pipeline, progress=pipeline.progress, **{"quiet_seconds": 0.0, **more})
    try:
        yield reader, owner
    finally:
        reader.stop()
        owner.close(cancel=True)
        reader.join(SECONDS)


def ready(future: Future[None]) -> None:
    future.result(timeout=SECONDS)


def test_pools_are_read_in_the_order_in_which_they_are_needed_and_the_others_ahead() -> None:
    pipeline = Pipeline("a", "b", "c", "d")
    with reading(pipeline, ahead=["a", "b", "c", "d"]) as (reader, _):
        needed = [reader.need("c"), reader.need("b"), reader.need("c")]
        reader.start()
        for future in needed:
            ready(future)
        assert pipeline.used[:2] == ["c", "b"]
        ready(reader.need("a"))
        ready(reader.need("d"))
        assert pipeline.used == ["c", "b", "a", "d"]
        assert not reader.unread
        ready(reader.need("a"))
    assert pipeline.read == [pool for pool in "cbad" for _ in range(3)], "each once"


def test_without_reading_ahead_nothing_is_read_until_it_is_needed() -> None:
    pipeline = Pipeline("a", "b")
    with reading(pipeline) as (reader, _):
        reader.start()
        ready(reader.need("b"))
        assert set(pipeline.read) == {"b"}
        assert set(reader.unread) == {"a"}


def test_documents_are_worked_on_between_two_slices() -> None:
    pipeline = Pipeline("a", slices=40)
    order: list[str] = []
    with reading(pipeline, clock=lambda: 0.0) as (reader, owner):
        asked = threading.Event()
        answered: list[Future[None]] = []

        def before(_: str) -> None:
            order.append("slice")
            if len(order) == 3:  # while it is read, a document comes
                answered.append(owner.submit(lambda _: order.append("document")))
                asked.set()

        pipeline.before = before
        needed = reader.need("a")
        reader.start()
        assert asked.wait(SECONDS)
        answered[0].result(timeout=SECONDS)
        ready(needed)
    assert order.index("document") == 3, "not behind the pool: behind the slice that it met"
    assert order.count("slice") == 40


def test_a_pool_that_documents_wait_for_gets_half_of_the_models_time() -> None:
    """Batches of ten seconds and slices of one second take turns in time, not by number."""
    pipeline, now = Pipeline("a", slices=40), [0.0]
    order: list[str] = []
    with reading(pipeline, clock=lambda: now[0], handover_seconds=SECONDS) as (reader, owner):

        def work(_: Any) -> None:
            while not (owner.waiting or pipeline.used):  # the reader waits for its turn
                threading.Event().wait(0.01)
            order.append("batch")
            now[0] += 10.0
            if not pipeline.used:
                owner.submit(work)  # there is always another batch

        def before(_: str) -> None:
            order.append("slice")
            now[0] += 1.0

        pipeline.before = before
        begun = threading.Event()
        owner.submit(lambda _: begun.wait(SECONDS))
        owner.submit(work)
        needed = reader.need("a")
        reader.start()
        begun.set()
        ready(needed)
    spent = {kind: order.count(kind) * seconds for kind, seconds in (("batch", 10), ("slice", 1))}
    assert spent["slice"] == 40
    assert 20 <= spent["batch"] <= 60, order


def test_what_is_read_ahead_gives_way_to_a_pool_that_is_needed_and_goes_on_where_it_was() -> None:
    pipeline = Pipeline("ahead", "needed", slices=4)
    with reading(pipeline, ahead=["ahead", "needed"]) as (reader, _):
        needed: list[Future[None]] = []

        def before(name: str) -> None:
            if name == "ahead" and len(pipeline.read) == 1:
                needed.append(reader.need("needed"))

        pipeline.before = before
        reader.start()
        while not needed:
            threading.Event().wait(0.01)
        ready(needed[0])
        ready(reader.need("ahead"))
    assert pipeline.read == ["ahead", "ahead", *["needed"] * 4, "ahead", "ahead"]


def test_nothing_is_read_ahead_while_somebody_asks_for_something() -> None:
    pipeline, now = Pipeline("a", slices=1), [0.0]
    with reading(pipeline, ahead=["a"], quiet_seconds=2.0, clock=lambda: now[0]) as (reader, owner):
        reader.start()
        for _ in range(5):
            now[0] += 1.9
            owner.submit(lambda _: None).result(timeout=SECONDS)
            threading.Event().wait(0.25)  # the reader looks
            assert pipeline.read == []
        now[0] += 2.1
        while reader.unread:
            threading.Event().wait(0.01)
    assert pipeline.read == ["a"]


def test_what_is_read_ahead_is_left_when_a_document_comes_and_gone_on_with_when_it_is_quiet_again() -> None:
    """So another process that needs the pool at once need not wait for this one."""
    pipeline = Pipeline("a", slices=4)
    with reading(pipeline, ahead=["a"]) as (reader, owner):
        pipeline.before = lambda _: None if len(pipeline.read) != 1 else _ignored(owner.submit(lambda _: None))
        reader.start()
        while reader.unread:
            threading.Event().wait(0.01)
    assert pipeline.begun == 2
    assert pipeline.read == ["a"] * 4


def _ignored(_: object) -> None:
    pass


def test_while_another_process_reads_a_pool_others_that_are_needed_have_their_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    pipeline = Pipeline("a", "b", "c")
    pipeline.elsewhere = {"a", "c"}
    with reading(pipeline, elsewhere_seconds=0.0) as (reader, _):
        needed = {name: reader.need(name) for name in "abc"}
        reader.start()
        ready(needed["b"])
        assert pipeline.used == ["b"]
        while not {"a", "c"} <= set(pipeline.waited):
            threading.Event().wait(0.01)
        pipeline.elsewhere = {"a"}
        ready(needed["c"])
        assert not needed["a"].done()
        pipeline.elsewhere = set()
        ready(needed["a"])
    assert pipeline.used == ["b", "c", "a"]
    told = [vars(line)["pool"] for line in caplog.records if line.message == "another process reads the pool"]
    assert told == ["a", "c"], "once each"


def test_that_another_process_is_waited_for_is_no_sign_of_life_but_what_it_keeps_is() -> None:
    pipeline, now = Pipeline("a"), [0.0]
    pipeline.elsewhere = {"a"}

    def waits() -> None:
        seconds = len(pipeline.waited) + 3
        while len(pipeline.waited) < seconds:
            threading.Event().wait(0.01)

    with reading(pipeline, clock=lambda: now[0]) as (reader, _):
        needed = reader.need("a")
        reader.start()
        for now[0] in (50.0, 1_000.0):
            waits()
            assert reader.idle_seconds == now[0]
        pipeline.kept_at = 7.0
        waits()
        assert reader.idle_seconds == 0.0
        now[0] = 1_030.0
        waits()
        assert reader.idle_seconds == 30.0
        pipeline.elsewhere = set()
        ready(needed)


def test_what_is_taught_while_the_pool_is_read_is_in_it() -> None:
    pipeline = Pipeline("a")
    pipeline.taught = 2
    with reading(pipeline) as (reader, _):
        reader.start()
        ready(reader.need("a"))
    assert pipeline.used == ["a"]


def test_a_pool_that_cannot_be_read_is_tried_again_and_then_whoever_needs_it_hears_why() -> None:
    pipeline = Pipeline("a")
    error = PoolReadingError("pool 'a' cannot be read: no room")
    pipeline.fails = [error] * 3
    retried: list[str] = []
    with reading(pipeline, retries=2) as (reader, _):
        reader.retried = retried.append
        reader.start()
        with pytest.raises(PoolReadingError, match="no room"):
            ready(reader.need("a"))
        assert retried == ["pool-reading"] * 2
        assert set(reader.unread) == {"a"}
        ready(reader.need("a"))  # there is room now


def test_where_it_is_tried_for_as_long_as_it_takes_the_others_have_their_turn() -> None:
    pipeline = Pipeline("a", "b", "c")
    pipeline.fails = [PoolReadingError("no room")] * 8
    retried: list[str] = []
    with reading(pipeline, ahead=["c"], retries=None, backoff=Backoff(0.01, 0.02)) as (reader, _):
        reader.retried = retried.append
        needed = {name: reader.need(name) for name in "ab"}
        reader.start()
        ready(needed["b"])
        ready(needed["a"])
        ready(reader.need("c"))
    assert retried == ["pool-reading"] * 8
    assert pipeline.used.index("b") < pipeline.used.index("a")


def test_a_pool_that_waits_for_its_next_try_keeps_no_other_from_being_read_ahead() -> None:
    pipeline = Pipeline("a", "b")
    pipeline.fails = [PoolReadingError("no room")] * 8
    with reading(pipeline, ahead=["a", "b"], retries=None, backoff=Backoff(1_000.0, 1_000.0)) as (reader, _):
        needed = reader.need("a")
        reader.start()
        while "b" in reader.unread:
            threading.Event().wait(0.01)
        assert not needed.done()


def test_who_needs_a_pool_while_its_failure_is_told_has_it_tried_again() -> None:
    pipeline = Pipeline("a")
    pipeline.fails = [PoolReadingError("no room")]
    again: list[Future[None]] = []
    with reading(pipeline) as (reader, _):
        first = reader.need("a")
        first.add_done_callback(lambda _: again.append(reader.need("a")))
        reader.start()
        with pytest.raises(PoolReadingError):
            ready(first)
        while not again:
            threading.Event().wait(0.01)
        ready(again[0])


def test_a_pool_that_cannot_be_read_ahead_is_left_until_it_is_needed() -> None:
    pipeline = Pipeline("a", "b")
    pipeline.fails = [PoolReadingError("no room")]
    with reading(pipeline, ahead=["a", "b"]) as (reader, _):
        reader.start()
        while "b" in reader.unread:
            threading.Event().wait(0.01)
        assert set(reader.unread) == {"a"}
        ready(reader.need("a"))


def test_a_bug_is_no_reason_to_try_again() -> None:
    pipeline = Pipeline("a")
    pipeline.fails = [KeyError("bug")]
    with reading(pipeline, retries=5) as (reader, _):
        reader.start()
        with pytest.raises(KeyError):
            ready(reader.need("a"))


def test_it_says_how_far_it_is_and_for_how_long_the_models_read() -> None:
    pipeline, now = Pipeline("a", slices=4), [0.0]
    seen: list[tuple[dict[str, float], float | None]] = []
    with reading(pipeline, clock=lambda: now[0]) as (reader, _):

        def before(_: str) -> None:
            now[0] += 5.0
            seen.append((dict(reader.ratios), reader.slice_seconds))

        pipeline.before = before
        reader.start()
        ready(reader.need("a"))
        assert reader.slice_seconds is None
        now[0] += 3.0
        assert reader.idle_seconds == 3.0
    # Two parts: the slices, and the weighing.
    assert seen == [({"a": share}, 5.0) for share in (0.0, 0.125, 0.25, 0.375)]


def test_a_process_that_ends_waits_for_no_pool() -> None:
    pipeline = Pipeline("a", slices=10_000)
    with reading(pipeline) as (reader, _):
        reader.start()
        needed = reader.need("a")
        while not pipeline.read:
            threading.Event().wait(0.01)
    assert not needed.done()
    assert not reader._thread.is_alive()
    assert len(pipeline.read) < 10_000
