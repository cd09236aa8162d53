"""Who follows the topic: all of it before the process is ready, then what comes, whatever fails meanwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError

from el4ner.errors import EngineError
from el4ner.pools import Pool, PoolSentence
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import TaughtPool, taught_pool
from el4ner.types import Span
from tests.support.followed_topic import FollowedTopic
from workers.config import KafkaSettings
from workers.messages.pool_examples import ExampleKey, example_message
from workers.teaching import pool_follower
from workers.teaching.pool_follower import PoolFollower
from workers.teaching.taught_examples import ExampleRecord
from workers.telemetry.metrics import Metrics
from workers.topics import TopicError

BASE = Pool("p", {"person": "a human"}, (PoolSentence("Anna ran.", ((Span(0, 4, "Anna"), "person"),)),))
OTHER = Pool("q", {"person": "a human"}, (PoolSentence("Bo ran.", ()),))


def example(name: str, at: int = 0) -> PoolExample:
    return PoolExample(f"{name} sang.", ((Span(0, len(name), name), "person"),), {}, "ada", at)


def record(taught: PoolExample, pool: str = "p") -> ExampleRecord:
    message = example_message(ExampleKey(pool, taught.digest), taught, now_ms=0, random=bytes)
    return ExampleRecord(message.key, message.value, 0, 0)


class Pipeline:
    """Takes what it is given, and says which pools it goes by; ``fail``: what preparing raises, one after the other."""

    def __init__(self) -> None:
        self.used: queue.Queue[tuple[str, TaughtPool]] = queue.Queue()
        self.fail: list[Exception] = []
        self.refuse = 0
        self.renew_at = 100
        self.renewing, self.may_end = threading.Event(), threading.Event()
        self.fail_renewing: list[Exception] = []
        self.base = {"p": BASE, "q": OTHER}

    def prepare(self, name: str, taught: TaughtPool, call: Callable[[Callable[[], Any]], Any]) -> Any:
        if self.fail and taught.examples:
            raise self.fail.pop(0)
        return call(lambda: taught)

    def use_pool(self, name: str, prepared: TaughtPool) -> bool:
        if self.refuse:
            self.refuse -= 1
            return False
        self.used.put((name, prepared))
        return True

    def is_due(self, name: str, taught: TaughtPool) -> bool:
        return len(taught.examples) >= self.renew_at

    def renew(self, name: str, taught: TaughtPool, call: Callable[[Callable[[], Any]], Any]) -> None:
        self.renewing.set()
        assert self.may_end.wait(20)
        if self.fail_renewing:
            raise self.fail_renewing.pop()
        self.renew_at += 10

    def next_of(self, name: str) -> TaughtPool:
        while True:
            pool, taught = self.used.get(timeout=20)
            if pool == name:
                return taught


class Owner:
    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.waiting = 0

    def submit_within(self, seconds: float | None, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(self.pipeline, *args))
        return future


def topic_of(*begins: Sequence[ExampleRecord]) -> FollowedTopic:
    return FollowedTopic(*begins, away="no broker")


@contextmanager
def following(monkeypatch: pytest.MonkeyPatch, topic: FollowedTopic, pipeline: Pipeline) -> Iterator[PoolFollower]:
    monkeypatch.setattr(pool_follower, "followed_examples", topic.followed)
    monkeypatch.setattr(pool_follower, "_RETRY_SECONDS", 0.01)
    follower = PoolFollower(KafkaSettings(), Owner(pipeline), pipeline)  # type: ignore[arg-type]
    try:
        yield follower
    finally:
        follower.close(20)


def test_all_that_the_topic_has_is_in_use_when_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    anna, bo = example("Carla"), example("Bo", 1)
    topic, pipeline = (
        topic_of([record(anna), ExampleRecord(b"junk", b"{}", 0, 1), record(bo), record(bo, "nobodys")]),
        Pipeline(),
    )
    with following(monkeypatch, topic, pipeline) as follower:
        follower.start()
        assert pipeline.used.qsize() == 2  # each pool once
        assert pipeline.next_of("p").pool.fingerprint == taught_pool(BASE, [anna, bo]).pool.fingerprint
        metrics = Metrics(version="0")
        follower.observe(metrics)
        shown = metrics.exposition("")[0].decode()
        assert 'el4ner_pool_examples{pool="p",state="used"} 2.0' in shown
        assert 'el4ner_pool_examples_refused{code="key"} 1.0' in shown
        topic.coming.put([record(example("Zoe", 2))])
        assert len(pipeline.next_of("p").examples) == 3


def test_a_topic_that_cannot_be_read_at_the_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with following(monkeypatch, topic_of(), Pipeline()) as follower, pytest.raises(TopicError, match="no broker"):
        follower.start()


def test_a_pool_that_cannot_be_taught_at_the_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline()
    pipeline.fail.append(EngineError("no memory"))
    topic = topic_of([record(example("Bo"))])
    with following(monkeypatch, topic, pipeline) as follower, pytest.raises(EngineError, match="no memory"):
        follower.start()


def test_later_a_pool_serves_as_it_was_until_it_can_be_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    topic, pipeline = topic_of([]), Pipeline()
    with following(monkeypatch, topic, pipeline) as follower:
        follower.start()
        assert pipeline.next_of("p").pool is BASE
        pipeline.fail += [EngineError("busy"), OSError("no room")]
        pipeline.refuse = 2  # its files were read meanwhile
        topic.coming.put([record(example("Bo"))])
        assert [each.text for each in pipeline.next_of("p").examples] == ["Bo sang."]


def test_what_takes_long_is_estimated_anew_while_further_corrections_come_into_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic, pipeline = topic_of([]), Pipeline()
    pipeline.renew_at = 2
    with following(monkeypatch, topic, pipeline) as follower:
        follower.start()
        assert pipeline.next_of("p").examples == ()
        topic.coming.put([record(example("Bo")), record(example("Zoe", 1))])
        assert len(pipeline.next_of("p").examples) == 2
        assert pipeline.renewing.wait(20)
        # It goes on, and nobody waits for it.
        topic.coming.put([record(example("Ann", 2))])
        assert len(pipeline.next_of("p").examples) == 3
        assert not pipeline.may_end.is_set()
        pipeline.may_end.set()
        assert len(pipeline.next_of("p").examples) == 3  # once more: with what was estimated


def test_a_pool_whose_estimates_fail_serves_by_the_old_ones_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    topic, pipeline = topic_of([record(example("Bo"))]), Pipeline()
    pipeline.renew_at = 1
    pipeline.may_end.set()
    pipeline.fail_renewing.append(EngineError("no memory"))
    with following(monkeypatch, topic, pipeline) as follower:
        follower.start()
        assert len(pipeline.next_of("p").examples) == 1
        assert pipeline.renewing.wait(20)
        pipeline.renewing.clear()
        while not pipeline.renewing.is_set():  # with the next correction after the failure was told
            topic.coming.put([record(example(f"Zoe {time.monotonic_ns()}"))])
            pipeline.renewing.wait(0.2)
        assert pipeline.fail_renewing == []


def test_an_example_that_brings_out_a_bug_stops_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline()
    pipeline.fail.append(ZeroDivisionError())
    with following(monkeypatch, topic_of([record(example("Bo"))]), pipeline) as follower:
        follower.start()
        assert len(pipeline.next_of("p").examples) == 1


def test_a_broker_that_was_away_has_the_topic_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another topic of that name: what it does not have is not taught."""
    bo, zoe = example("Bo"), example("Zoe", 1)
    topic, pipeline = topic_of([record(bo)], [record(zoe)]), Pipeline()
    with following(monkeypatch, topic, pipeline) as follower:
        follower.start()
        assert pipeline.next_of("p").examples == (bo,)
        topic.coming.put(KafkaConnectionError("gone"))
        assert pipeline.next_of("p").examples == (zoe,)


def test_examples_that_make_no_pool_stop_no_process_and_no_other_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    made = taught_pool

    def failing(base: Pool, examples: Any) -> TaughtPool:
        examples = list(examples)
        if base is BASE and examples:
            raise AssertionError("a taught pool is a pool")
        return made(base, examples)

    pipeline = Pipeline()
    with following(monkeypatch, topic_of([record(example("Bo")), record(example("Zoe"), "q")]), pipeline) as follower:
        monkeypatch.setattr(pool_follower, "taught_pool", failing)
        follower.start()
        assert len(pipeline.next_of("q").examples) == 1
