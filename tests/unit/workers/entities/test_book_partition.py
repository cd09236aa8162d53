"""The owner of the book: what a batch leads to, one transaction each, and going on after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from el4ner.canonical.decisions import EntityDecision
from el4ner.canonical.entity_settings import EntitySettings
from el4ner.canonical.names import entity_id
from workers.entities import book_partition
from workers.entities.book_partition import BookPartition, restored_book
from workers.entities.entity_messages import decision_message
from workers.entities.state_changelog import EntityState, EntityStateError, take_in
from workers.join.agent import World
from workers.join.owned_partition import ConsumedPartition
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.transactions import ConsumedOffset
from workers.messages import json_schemas
from workers.messages.envelope import Outgoing, Record
from workers.messages.headers import Trace
from workers.topics import Topic

NOW = 1_764_277_200_000
DAY = 86_400_000
CHANGELOG = "entities-changelog"
SETTINGS = EntitySettings(trend_seconds=10)
ADA = entity_id("person", "ada lovelace")
TRACE = Trace("1" * 32, "2" * 16)


class Broker:
    """Transactions, and what lies on compacted topics when they are committed."""

    def __init__(self) -> None:
        self.transactions: list[tuple[Sequence[Outgoing], ConsumedOffset | None]] = []
        self.topics: dict[str, dict[bytes, bytes]] = {}
        self.refuses = False
        self.refuses_after: int | None = None

    async def write(self, messages: Sequence[Outgoing], consumed: ConsumedOffset | None = None) -> None:
        if self.refuses or (self.refuses_after is not None and len(self.transactions) >= self.refuses_after):
            raise ConnectionError("the broker is away")
        self.transactions.append((messages, consumed))
        for message in messages:
            topic = self.topics.setdefault(str(message.topic), {})
            assert message.key is not None
            topic.pop(message.key, None)
            if message.value is not None:
                topic[message.key] = message.value

    def values(self, topic: Topic) -> dict[str, Any]:
        values = {key.decode(): orjson.loads(value) for key, value in self.topics.get(topic.value, {}).items()}
        for value in values.values():
            json_schemas.validate(topic.value, value)
        return values


class Owner:
    """A process that owns the book, over a broker that outlives it."""

    def __init__(self, broker: Broker, settings: EntitySettings = SETTINGS) -> None:
        self.monotonic_ms, self.late, self.letters = 0, 0, list[str]()
        self._offsets = {Topic.ENTITY_OCCURRENCES: 0, Topic.ENTITY_DECISIONS: 0}
        state = EntityState()
        for key, value in broker.topics.get(CHANGELOG, {}).items():
            take_in(state, key, value)
        self._positions = OffsetTracker(lambda: 0.0)
        self._positions.open(1)
        self.part = BookPartition(
            restored_book(settings, state),
            settings,
            CHANGELOG,
            broker,  # type: ignore[arg-type]
            {
                topic: ConsumedPartition(self._positions, group="g", topic=topic.value, partition=0)
                for topic in self._offsets
            },
            self._positions,
            World(lambda: NOW, lambda: self.monotonic_ms, lambda size: b"1" * size),
            self._is_late,
            self.letters.append,
        )

    def _is_late(self) -> None:
        self.late += 1

    def take(self, topic: Topic, *values: tuple[bytes, bytes | None]) -> None:
        taken: list[tuple[Record, Ticket]] = []
        for key, value in values:
            offset = self._offsets[topic]
            self._offsets[topic] += 1
            self._positions.read((topic.value, 0), offset, 1)
            ticket = self._positions.take((topic.value, 0), offset, 1)
            assert ticket is not None
            taken.append((Record(topic, topic.value, 0, offset, NOW, key, value), ticket))
        asyncio.run(self.part.work(taken))

    def look(self) -> None:
        asyncio.run(self.part.look())


def occurrence(
    document: str, *names: str, version: int = 0, at: int = NOW, time: int = NOW, kind: str = "person"
) -> tuple[bytes, bytes]:
    counted = [{"type": kind, "name": name, "surfaces": {name.title(): 1}} for name in names]
    value = {"document_id": document, "version": [at, version], "time_ms": time, "names": counted}
    return document.encode(), orjson.dumps(value)


def json_occurrence(document: str, names: dict[str, dict[str, int]]) -> tuple[bytes, bytes]:
    counted = [{"type": "person", "name": name, "surfaces": surfaces} for name, surfaces in names.items()]
    value = {"document_id": document, "version": [NOW, 0], "time_ms": NOW, "names": counted}
    return document.encode(), orjson.dumps(value)


def decision(name: str, into: str | None, number: str = "1") -> tuple[bytes, bytes]:
    made = EntityDecision(number, NOW, "split" if into is None else "merge", "person", name, into, "ada")
    message = decision_message(made, now_ms=NOW, trace=TRACE)
    assert message.key is not None
    assert message.value is not None
    return message.key, message.value


def mentions(broker: Broker) -> dict[str, int]:
    entities = broker.values(Topic.ENTITIES).values()
    return {value["name"]: value["mentions"] for value in entities if value["merged_into"] is None}


def test_a_batch_its_changelog_and_its_offset_are_one_transaction() -> None:
    broker = Broker()
    Owner(broker).take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada lovelace"), occurrence("b", "ada lovelace"))
    ((messages, consumed),) = broker.transactions
    assert {str(message.topic) for message in messages} == {"entities", CHANGELOG}
    assert consumed == ConsumedOffset("g", "entity-occurrences", 0, 2)
    assert mentions(broker) == {"Ada Lovelace": 2}


def test_the_next_owner_goes_on_from_what_was_committed_and_nothing_else() -> None:
    broker = Broker()
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada lovelace"), occurrence("b", "ada king"))
    owner.take(Topic.ENTITY_DECISIONS, decision("ada king", "ada lovelace"))
    broker.refuses = True
    with pytest.raises(ConnectionError):
        owner.take(Topic.ENTITY_OCCURRENCES, occurrence("c", "ada lovelace"))
    broker.refuses = False
    owner = Owner(broker)
    # What was not committed comes again, and a later version takes back what the former owner counted.
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("c", "ada lovelace"), occurrence("a", version=1))
    assert mentions(broker) == {"Ada Lovelace": 2}
    owner.take(Topic.ENTITY_DECISIONS, decision("ada king", None, "2"))
    assert mentions(broker) == {"Ada Lovelace": 1, "Ada King": 1}


def test_the_last_version_to_arrive_counts_though_its_writer_had_a_slow_clock() -> None:
    broker = Broker()
    Owner(broker).take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada lovelace", version=5))
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada king", version=9, at=NOW - 10))
    assert mentions(broker) == {"Ada King": 1}
    # Of a topic that was made anew the offsets begin again.
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", version=0, at=NOW - 20))
    assert mentions(broker) == {}


def test_a_decision_that_comes_twice_changes_nothing() -> None:
    broker = Broker()
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada lovelace", "ada king"))
    owner.take(Topic.ENTITY_DECISIONS, decision("ada king", "ada lovelace"))
    before = dict(broker.topics["entities"])
    owner.take(Topic.ENTITY_DECISIONS, decision("ada king", "ada lovelace"))
    assert broker.topics["entities"] == before
    assert broker.transactions[-1][1] == ConsumedOffset("g", "entity-decisions", 0, 2)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ((b"1", b"no json"), "json"),
        ((b"2", decision("ada king", "ada lovelace")[1]), "key"),
        ((b"1", decision("Ada King", "ada lovelace")[1]), "decision"),
        ((b"1", decision("ada king", "ada lovelace")[1].replace(b'"ada lovelace"', b"null")), "decision"),
    ],
)
def test_what_is_no_decision_is_a_dead_letter(message: tuple[bytes, bytes], code: str) -> None:
    broker = Broker()
    owner = Owner(broker)
    owner.take(Topic.ENTITY_DECISIONS, message)
    assert owner.letters == [code]
    assert broker.topics["dead-letters"] == dict([message])


def test_trends_are_written_when_they_are_due_and_deleted_with_their_window() -> None:
    broker = Broker()
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada lovelace", time=NOW - DAY))
    owner.look()
    (before,) = broker.values(Topic.ENTITY_TRENDS).values()
    assert [(top["id"], top["mentions"], top["before"]) for top in before["top"]] == [(ADA, 1, 0)]
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("b", "ada lovelace"))
    owner.monotonic_ms = 9_999
    owner.look()
    assert len(broker.values(Topic.ENTITY_TRENDS)) == 1
    owner.monotonic_ms = 10_000
    owner.look()
    assert [trend["top"][0]["before"] for trend in broker.values(Topic.ENTITY_TRENDS).values()] == [0, 1]
    # A window that is over goes at once: nobody would know of it after a restart.
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("c", "ada king", time=NOW + 40 * DAY))
    assert broker.values(Topic.ENTITY_TRENDS) == {}
    assert mentions(broker) == {"Ada King": 1}
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("d", "ada king"))
    assert owner.late == 1


def test_trends_of_a_type_that_is_gone_are_deleted_in_the_transaction_that_took_its_last_document_back() -> None:
    broker = Broker()
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", "london", kind="location"), occurrence("b", "ada king"))
    owner.look()
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", version=1))
    # It is killed before its next trends are due; the next owner knows nothing of the type.
    owner = Owner(broker)
    owner.look()
    assert [trend["type"] for trend in broker.values(Topic.ENTITY_TRENDS).values()] == ["person"]


def test_other_settings_hold_for_all_that_was_written_before() -> None:
    broker = Broker()
    owner = Owner(broker)
    both = json_occurrence("both", {"ada lovelace": {"Ada Lovelace": 1, "Lovelace": 2}})
    owner.take(Topic.ENTITY_OCCURRENCES, both, occurrence("short", "lovelace"))
    old, older = (NOW - days * DAY for days in (3, 5))
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("old", "ada king", "ada lovelace", time=old))
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("older", "london", time=older, kind="location"))
    owner.look()
    assert mentions(broker) == {"Ada Lovelace": 5, "Ada King": 1, "London": 1}
    settings = EntitySettings(windows=3, short_forms="document", max_aliases=1)
    Owner(broker, settings).look()
    # As if everything had been counted by these settings alone.
    fresh = Broker()
    owner = Owner(fresh, settings)
    owner.take(Topic.ENTITY_OCCURRENCES, both, occurrence("short", "lovelace"))
    owner.look()
    for topic in (Topic.ENTITIES, Topic.ENTITY_TRENDS):
        assert broker.values(topic) == fresh.values(topic)
    assert [key for key in broker.topics[CHANGELOG] if key.startswith(b"doc:")] == [
        key for key in fresh.topics[CHANGELOG] if key.startswith(b"doc:")
    ]
    # With the same settings again there is nothing to say.
    entities = dict(broker.topics["entities"])
    again = Owner(broker, settings)
    before = len(broker.transactions)
    again.look()
    written = {str(message.topic) for messages, _ in broker.transactions[before:] for message in messages}
    assert Topic.ENTITIES.value not in written
    assert broker.topics["entities"] == entities


def test_many_entities_are_written_in_several_transactions_of_which_the_last_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(book_partition, "_WRITTEN_AT_ONCE", 4)
    names = [f"name {chr(97 + number)}x" for number in range(10)]
    broker = Broker()
    owner = Owner(broker)
    owner.take(Topic.ENTITY_OCCURRENCES, occurrence("a", *names))
    sizes = [sum(message.topic is Topic.ENTITIES for message in messages) for messages, _ in broker.transactions]
    assert sizes == [4, 4, 2]
    assert [consumed is not None for _, consumed in broker.transactions] == [False, False, True]
    assert len(mentions(broker)) == 10
    # A window begins that has none of them. The broker goes away after the first transaction.
    broker.refuses_after = len(broker.transactions) + 1
    with pytest.raises(ConnectionError):
        owner.take(Topic.ENTITY_OCCURRENCES, occurrence("b", "ada king", time=NOW + 40 * DAY))
    assert len(mentions(broker)) == 6
    broker.refuses_after = None
    # Its offset was not committed: the message comes again.
    Owner(broker).take(Topic.ENTITY_OCCURRENCES, occurrence("b", "ada king", time=NOW + 40 * DAY))
    assert mentions(broker) == {"Ada King": 1}


def test_windows_of_another_length_are_not_mixed_with_what_was_counted() -> None:
    broker = Broker()
    Owner(broker).take(Topic.ENTITY_OCCURRENCES, occurrence("a", "ada lovelace"))
    with pytest.raises(EntityStateError, match=r"window_hours is 1, but .* windows of 24: set it back, or delete"):
        Owner(broker, EntitySettings(window_hours=1))
