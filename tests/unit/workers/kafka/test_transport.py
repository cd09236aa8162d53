"""The consumer without a broker: what it hands out, what it may commit, and what it does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from workers.config import load_stream_settings
from workers.kafka.stage_app import StageApp
from workers.kafka.transport import Consumer, Fetched
from workers.topics import Topic

A, B = TP("documents", 0), TP("documents", 1)
GENERATION = 3


@dataclass(frozen=True)
class Fetch:
    """A record as aiokafka brings it."""

    offset: int
    topic: str = "documents"
    partition: int = 0
    timestamp: int | None = 1_700_000_000_000
    timestamp_type: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: tuple[tuple[str, bytes | None], ...] = (("h", b"1"), ("empty", None))


@pytest.fixture
async def app(monkeypatch: pytest.MonkeyPatch) -> StageApp:
    made = StageApp("extract", load_stream_settings(environ={}), fatal=lambda _: None)
    monkeypatch.setattr(type(made), "consumer_generation_id", GENERATION)
    return made


@pytest.fixture
async def consumer(app: StageApp) -> AsyncIterator[Consumer]:
    made: Consumer = app.consumer
    yield made
    # It has a thread, which never began, and the thread a loop.
    made._thread.thread_loop.close()


def read(consumer: Consumer, tp: TP, *offsets: int) -> Any:
    """The event that a fetch becomes."""
    fetched = Fetched(tuple(Fetch(offset, tp.topic, tp.partition) for offset in offsets), offsets[0], offsets[-1] + 1)
    return consumer._to_message(tp, fetched)


def committable(consumer: Consumer) -> dict[TP, int]:
    return dict(consumer._filter_committable_offsets(list(consumer._filter_tps_with_pending_acks())))


async def test_an_event_is_all_that_a_fetch_brought_and_each_message_has_a_ticket(
    app: StageApp, consumer: Consumer
) -> None:
    consumer.begin()
    message = read(consumer, A, 4, 5, 9)
    assert (message.offset, message.generation_id) == (9, GENERATION)

    class Event:
        pass

    event = Event()
    event.message = message  # type: ignore[attr-defined]
    taken = list(app.take(event))
    assert [(record.offset, ticket.offset) for record, ticket in taken] == [(4, 4), (5, 5), (9, 9)]
    record, _ = taken[0]
    assert (record.topic, record.source, record.partition, record.key) == (Topic.DOCUMENTS, "documents", 0, b"k")
    assert record.headers == (("h", b"1"), ("empty", None))
    # A second time they are somebody's already.
    assert list(app.take(event)) == []


async def test_who_drains_takes_nothing_of_a_rebalance_that_ends_meanwhile(
    app: StageApp, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "assignment", lambda: {A})
    app.stopping = True
    await app._begin(GENERATION)
    assert not app.positions.is_open
    assert not app.ready.is_set()
    app.stopping = False
    await app._begin(GENERATION)
    assert app.positions.is_open


async def test_partitions_do_not_go_while_they_are_being_taken_over(
    app: StageApp, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or others would have them when they are fenced here."""
    order: list[str] = []
    fencing = asyncio.Event()

    async def take_over() -> None:
        await fencing.wait()
        order.append("fenced")

    async def told(name: str) -> None:
        order.append(name)

    monkeypatch.setattr(driver.Consumer, "on_partitions_revoked", lambda *_: told("gone"))
    app.prepare, consumer.drain = take_over, lambda: told("drained")
    app._beginning = asyncio.ensure_future(app._begin(GENERATION))
    going = asyncio.ensure_future(consumer.on_partitions_revoked({A}))
    for _ in range(10):
        await asyncio.sleep(0)
    assert order == []
    fencing.set()
    await going
    assert order == ["fenced", "drained", "gone"]


@pytest.mark.parametrize("stops", [False, True])
async def test_who_cannot_take_over_crashes_unless_it_stops(app: StageApp, stops: bool) -> None:
    crashes: list[BaseException] = []

    async def take_over() -> None:
        app.stopping = stops
        raise KafkaError("the consumer is closed")

    app.prepare, app._fatal = take_over, crashes.append
    await app._begin(GENERATION)
    assert len(crashes) == (not stops)


async def test_only_what_is_finished_without_a_gap_may_be_committed(app: StageApp, consumer: Consumer) -> None:
    consumer.begin()
    tickets = {}
    for tp in (A, B):
        for record in app.records(read(consumer, tp, 4, 5, 6).value):
            tickets[tp, record.offset] = app.ticket(record, GENERATION)
    assert committable(consumer) == {}
    app.positions.finish(tickets[A, 5])
    assert committable(consumer) == {}
    app.positions.finish(tickets[A, 4])
    app.positions.finish(tickets[B, 4])
    assert committable(consumer) == {A: 6, B: 5}


async def test_what_is_committed_is_not_committed_again(app: StageApp, consumer: Consumer) -> None:
    consumer.begin()
    (record,) = app.records(read(consumer, A, 4).value)
    ticket = app.ticket(record, GENERATION)
    assert ticket is not None
    app.positions.finish(ticket)
    consumer._committed_offset[A] = 5
    assert committable(consumer) == {}


async def test_fausts_own_acknowledgements_count_for_nothing(consumer: Consumer) -> None:
    consumer.begin()
    read(consumer, A, 4, 5)
    consumer._acked[A] = [4, 5]
    consumer._acked_index[A].update({4, 5})
    assert committable(consumer) == {}
    assert consumer._acked == {}


async def test_what_another_generation_read_has_no_ticket(
    app: StageApp, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.begin()
    (record,) = app.records(read(consumer, A, 4).value)
    monkeypatch.setattr(StageApp, "consumer_generation_id", GENERATION + 1)
    assert app.ticket(record, GENERATION + 1) is None


async def test_nothing_is_read_before_the_app_says_so_nor_of_topics_that_are_paused(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[TP]] = []

    async def getmany(_: Any, partitions: set[TP], timeout: float) -> dict[TP, Fetched]:
        asked.append(set(partitions))
        return {A: Fetched((Fetch(1), Fetch(2)), 1, 3), B: Fetched((), 4, 5)}

    monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
    other = TP("typed-entities", 0)
    assert await consumer._getmany({A, B, other}, 1.0) == {}
    consumer.begin()
    consumer.paused = frozenset({"typed-entities"})
    brought = await consumer._getmany({A, B, other}, 1.0)
    assert asked == [{A, B}]
    # Nothing is made of a partition that brought no message; but that reading has moved on in it is known.
    assert {tp: [one.offset for one in fetched] for tp, fetched in brought.items()} == {A: [2]}
    assert await consumer._getmany({other}, 1.0) == {}
    assert await consumer._getmany(None, 1.0) == {}
    assert asked == [{A, B}]
    assert committable(consumer) == {B: 5}


async def test_a_fetch_from_before_partitions_went_away_is_dropped_and_waited_for(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def getmany(_: Any, partitions: set[TP], timeout: float) -> dict[TP, Fetched]:
        begun.set()
        await gate.wait()
        return {A: Fetched((Fetch(1),), 1, 2), B: Fetched((), 1, 2)}

    async def seek(_: Any) -> None:
        told.append("seek")

    async def revoked(_: Any, __: Any) -> None:
        told.append("revoked")

    async def drained() -> None:
        told.append("drained")

    monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
    monkeypatch.setattr(driver.Consumer, "perform_seek", seek)
    monkeypatch.setattr(driver.Consumer, "on_partitions_revoked", revoked)
    consumer.drain = drained
    consumer.begin()
    fetching = asyncio.create_task(consumer._getmany({A}, 1.0))
    async with asyncio.timeout(30):
        await begun.wait()
        await consumer.on_partitions_revoked({A})
        assert told == ["drained", "revoked"]
        assert not consumer.positions.is_open
        seeking = asyncio.create_task(consumer.perform_seek())
        await asyncio.sleep(0)
        assert told == ["drained", "revoked"]
        gate.set()
        assert await fetching == {}
        await seeking
    assert told == ["drained", "revoked", "seek"]


async def test_who_has_left_the_group_commits_nothing_and_waits_for_nothing(
    app: StageApp, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partitions are others', and it is about to end."""
    told: list[str] = []

    async def commit(_: Any, offsets: Any) -> bool:
        told.append("committed")
        return True

    async def revoked(_: Any, __: Any) -> None:
        told.append("revoked")

    async def drained() -> None:
        told.append("drained")

    monkeypatch.setattr(Consumer, "assignment", lambda _: {A})
    monkeypatch.setattr(Consumer, "_commit", commit)
    monkeypatch.setattr(driver.Consumer, "on_partitions_revoked", revoked)
    consumer.drain = drained
    consumer.begin()
    event = read(consumer, A, 1)
    (record,) = app.records(event.value)
    ticket = app.ticket(record, event.generation_id)
    assert ticket is not None
    app.positions.finish(ticket)
    consumer.leave()
    await consumer.commit_all()
    await consumer.on_partitions_revoked({A})
    assert told == ["revoked"]


# --- what is committed by others ---


class Driver:
    """As much of aiokafka's consumer as is asked where a partition's reading stands. ``places``: position and end."""

    def __init__(self, **places: tuple[int, int]) -> None:
        self.places = {TP("documents", int(name[1:])): place for name, place in places.items()}
        states = {tp: SimpleNamespace(position=at, has_valid_position=True) for tp, (at, _) in self.places.items()}
        self.states = states
        assignment = SimpleNamespace(tps=states.keys(), state_value=states.__getitem__)
        subscription = SimpleNamespace(assignment=assignment)
        self._fetcher = SimpleNamespace(_subscriptions=SimpleNamespace(subscription=subscription))

    def last_stable_offset(self, tp: TP) -> int:
        return self.places[tp][1]

    def highwater(self, tp: TP) -> int:
        raise AssertionError("the end of the log is not the end of what can be read")


async def test_workers_read_what_is_committed(consumer: Consumer) -> None:
    made = consumer._thread._create_worker_consumer(consumer.transport)
    made._closed = True  # it never began, and would complain about not having been stopped
    assert made._isolation_level == "read_committed"
    assert made._fetch_max_wait_ms < 1000, "a rebalance would wait for it"


async def test_a_fetch_says_from_where_to_where_it_went_also_where_it_brought_nothing(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Driver(p0=(3, 9), p1=(7, 9), p2=(2, 2))

    async def fetch(*_: Any, **__: Any) -> dict[TP, list[Fetch]]:
        client.states[A].position, client.states[B].position = 6, 9
        return {A: [Fetch(3), Fetch(4)]}

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    brought = await consumer._thread._fetch_records(client, {A, B, TP("documents", 2), TP("documents", 3)})
    assert {tp: (len(one.records), one.begin, one.end) for tp, one in brought.items()} == {A: (2, 3, 6), B: (0, 7, 9)}


async def test_lag_ends_at_the_last_stable_offset_with_marks_and_aborted_messages_before_it(
    app: StageApp, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Committed 0 to 2 and their mark 3; aborted 4 and 5 and their mark 6; 7 is open: the stable end is 7.
    monkeypatch.setattr(consumer._thread, "_consumer", Driver(p0=(7, 7)))
    consumer.begin()
    fetched = Fetched(tuple(Fetch(offset) for offset in (0, 1, 2)), 0, 7)
    message = consumer._to_message(A, fetched)
    assert app.lag == 7
    for record in app.records(fetched):
        ticket = app.ticket(record, message.generation_id)
        assert ticket is not None
        app.positions.finish(ticket)
    assert app.lag == 0
    assert committable(consumer) == {A: 7}


async def test_nobody_complains_about_what_lies_behind_an_open_transaction(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[TP] = []
    monkeypatch.setattr(
        driver.AIOKafkaConsumerThread, "verify_event_path", lambda _self, _now, tp: complaints.append(tp)
    )
    monkeypatch.setattr(consumer._thread, "_consumer", Driver(p0=(7, 7), p1=(3, 7)))
    for tp in (A, B):
        consumer._thread.verify_event_path(0.0, tp)
    assert complaints == [B]


async def test_a_partition_without_a_commit_is_read_from_its_beginning_after_a_rebalance(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka leaves it where a fetch, thrown away with its queues, has left it."""
    sought: list[TP] = []

    async def seek_to_committed() -> dict[TP, int | None]:
        return {A: None, B: 7}

    async def seek_to_beginning(*partitions: Any) -> None:
        sought.extend(TP(tp.topic, tp.partition) for tp in partitions)

    monkeypatch.setattr(consumer, "seek_to_committed", seek_to_committed)
    monkeypatch.setattr(consumer._thread, "seek_to_beginning", seek_to_beginning)
    monkeypatch.setattr(consumer, "assignment", lambda: {A, B})
    await consumer.perform_seek()
    assert sought == [A]


@pytest.mark.parametrize(
    ("assigned", "afterwards", "raised"),
    [
        (set(), set(), None),
        ({A}, set(), AssertionError("No partitions are currently assigned")),
        ({A}, {B}, IllegalStateError("not assigned")),
    ],
)
async def test_going_back_is_no_error_for_who_has_no_partitions_or_loses_them_meanwhile(
    consumer: Consumer,
    monkeypatch: pytest.MonkeyPatch,
    assigned: set[TP],
    afterwards: set[TP],
    raised: Exception | None,
) -> None:
    asked = iter([assigned, afterwards])

    async def seek_to_committed() -> None:
        assert raised is not None
        raise raised

    monkeypatch.setattr(consumer, "seek_to_committed", seek_to_committed)
    monkeypatch.setattr(consumer, "assignment", lambda: next(asked))
    await consumer.seek_again()


async def test_what_is_wrong_with_our_own_partitions_is_an_error(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def seek_to_committed() -> None:
        raise IllegalStateError("it is broken")

    monkeypatch.setattr(consumer, "seek_to_committed", seek_to_committed)
    monkeypatch.setattr(consumer, "assignment", lambda: {A})
    with pytest.raises(IllegalStateError):
        await consumer.seek_again()
