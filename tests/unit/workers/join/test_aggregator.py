"""What the aggregator writes, and what becomes of messages that it cannot read and outcomes that it cannot write."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from tests.support.answers import TIME, journey, random
from workers.config import load_stream_settings
from workers.join.agent import World
from workers.join.aggregator import Aggregator
from workers.join.changelog import Recovered, _take_in, open_record
from workers.join.owned_partition import OwnedPartition, TakenMessage
from workers.join.partition_join import PartitionJoin
from workers.join.rules import Open, ReceivedAnswer
from workers.join.stage_messages import join_rules, read_input
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import OffsetTracker
from workers.messages import json_schemas
from workers.messages.envelope import Origin, Outgoing, Record
from workers.messages.headers import find
from workers.stages.failure_limit import TooManyFailuresError
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry
from workers.telemetry.tracing import NoSpans
from workers.topics import Topic

VERDICTS = Topic.VALIDATION_VERDICTS


def record(topic: Topic, value: bytes | None, *, key: bytes | None = b"d", headers: Any = ()) -> Record:
    return Record(topic, f"p.{topic.value}", 1, 9, 0, key, value, headers)


class Writer:
    """What would be written, a list for each transaction. ``refuses``: says which messages the broker does not take."""

    def __init__(self) -> None:
        self.transactions: list[list[Outgoing]] = []
        self.refuses: Callable[[Outgoing], bool] = lambda _: False

    async def write(self, messages: Sequence[Outgoing], consumed: Any = None) -> None:
        assert consumed is None, "the answers' offsets are committed by the consumer"
        messages = list(messages)
        if any(map(self.refuses, messages)):
            raise RefusedError("a message of 9 bytes is too large for 'p'", code="output-too-large", by_broker=True)
        self.transactions.append(messages)


class Partition:
    """An aggregator that owns one partition, with neither Kafka nor Faust around it. ``folder``: for its notes.
    ``entities``: whether canonical entities are enabled; ``worker``: settings."""

    def __init__(self, folder: Path = Path("/dev/null"), *, entities: bool = False, **worker: Any) -> None:
        sections = {"worker": {"data_dir": str(folder), **worker}, "entities": {"enabled": entities}}
        settings = load_stream_settings(environ={}, overrides=sections)
        self.positions = OffsetTracker(lambda: 0.0)
        self.positions.open(1)
        self.letters: list[str] = []
        app = SimpleNamespace(
            stage="aggregate",
            settings=settings,
            names={topic: topic.value for topic in Topic},
            consumer=SimpleNamespace(paused=frozenset()),
            positions=self.positions,
            agent=lambda *_, **__: lambda function: function,
            raw_topic=lambda *_: None,
            task=lambda function: function,
        )
        telemetry = Telemetry(settings, Metrics(version="1"), NoSpans())
        self.aggregator = Aggregator(app, World(lambda: TIME, lambda: 5_000, random), telemetry)
        recorder: Any = self.aggregator._recorder
        recorder.letter_of = lambda _stage, code: self.letters.append(code)
        self.writer = Writer()
        join: PartitionJoin[TakenMessage] = PartitionJoin(join_rules(settings), remember_ms=1_000, checkpoint_ms=1_000)
        self.owned = OwnedPartition(1, self.writer, join, self.aggregator._outcomes.write_group)
        self._offset = 0

    def handle(self, message: Record) -> None:
        place, self._offset = (message.source, message.partition), self._offset + 1
        self.positions.read(place, self._offset, 1)
        ticket = self.positions.take(place, self._offset, 1)
        assert ticket is not None
        # It is owned while it takes in: its task, which release() would cancel, does not run here.
        self.aggregator._partitions._owned = {message.partition: self.owned}
        self.aggregator._handle(message, ticket)
        self.aggregator._partitions._owned = {}

    async def write(self) -> list[Outgoing]:
        """The messages of the next transaction."""
        await self.aggregator._outcomes.write_group(self.owned)
        return self.writer.transactions[-1]


def topics(messages: Sequence[Outgoing]) -> list[str]:
    return [str(message.topic) for message in messages]


async def test_a_document_its_mentions_and_the_note_about_it_are_one_transaction() -> None:
    partition = Partition()
    partition.handle(journey()["validate"])
    assert partition.positions.in_flight == 1
    messages = await partition.write()
    assert topics(messages) == ["entity-mentions", "tagged-documents", "el4ner-aggregate-joins-changelog"]
    assert [message.partition for message in messages] == [None, 1, 1]
    json_schemas.validate("joins", orjson.loads(messages[-1].value or b""))
    assert partition.positions.in_flight == 0


async def test_an_unreadable_verdict_is_a_dead_letter_and_leaves_a_partial_document() -> None:
    partition, told = Partition(), journey()
    broken = replace(told["validate"], value=told["validate"].value[:-9] + b"}", headers=())
    partition.handle(told["classify"])
    partition.handle(broken)
    assert partition.positions.in_flight == 2
    messages = await partition.write()
    assert topics(messages)[0] == "dead-letters"
    assert (messages[0].key, messages[0].value) == (broken.key, broken.value)
    assert find(messages[0].headers, "el4ner-stage") == b"aggregate"
    (tagged,) = [message for message in messages if message.topic is Topic.TAGGED_DOCUMENTS]
    body = orjson.loads(tagged.value or b"")
    assert (body["status"], body["error"]["stage"], body["error"]["code"]) == ("partial", "validate", "json")
    assert partition.letters == ["json"]
    assert partition.positions.in_flight == 0


async def test_an_unreadable_verdict_that_comes_while_the_outcome_is_written_is_a_dead_letter() -> None:
    partition, told = Partition(), journey()
    late = [replace(told["validate"], value=told["validate"].value[:-9] + b"}", headers=())]
    partition.handle(told["validate"])
    write = partition.writer.write

    async def meanwhile(messages: Sequence[Outgoing], consumed: Any = None) -> None:
        while late:
            partition.handle(late.pop())
        await write(messages, consumed)

    partition.writer.write = meanwhile  # type: ignore[method-assign]
    await partition.write()
    assert partition.positions.in_flight == 1
    assert topics(await partition.write()) == ["dead-letters"]
    assert partition.positions.in_flight == 0


@pytest.mark.parametrize("fails", [None, "validate"], ids=["complete", "partial"])
async def test_entities_have_their_mentions_ids_if_they_are_enabled_and_nothing_else_differs(fails: str | None) -> None:
    written = []
    for enabled in (True, False):
        partition = Partition(entities=enabled)
        for answer in journey(fails=fails).values():
            partition.handle(answer)
        mention, tagged = [
            message
            for message in await partition.write()
            if message.topic in (Topic.ENTITY_MENTIONS, Topic.TAGGED_DOCUMENTS)
        ]
        json_schemas.validate("tagged-documents", body := orjson.loads(tagged.value or b""))
        (entity,) = body["entities"]
        assert entity.pop("entity_id", None) == (orjson.loads(mention.value or b"")["entity_id"] if enabled else None)
        written.append((body, tagged.headers, mention))
    assert written[0] == written[1]


def emitted(partition: Partition) -> dict[str, Any]:
    """The tagged documents that were written, by their id."""
    written = [message for transaction in partition.writer.transactions for message in transaction]
    bodies = [orjson.loads(one.value or b"") for one in written if one.topic is Topic.TAGGED_DOCUMENTS]
    for body in bodies:
        json_schemas.validate("tagged-documents", body)
    assert len(bodies) == len({body["id"] for body in bodies})
    return {body["id"]: body for body in bodies}


@pytest.mark.parametrize("topic", [Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS])
async def test_an_outcome_that_is_refused_fails_its_document_and_no_other(topic: Topic) -> None:
    partition = Partition()
    verdicts = {name: journey(name)["validate"] for name in ("a", "large", "b")}
    for verdict in verdicts.values():
        partition.handle(verdict)

    def refuses(message: Outgoing) -> bool:
        return message.topic is topic and b'"large"' in (message.value or b"") and b'"entities":[]' not in message.value

    partition.writer.refuses = refuses
    await partition.write()
    tagged = emitted(partition)
    assert {name: body["status"] for name, body in tagged.items()} == {
        "a": "complete",
        "large": "failed",
        "b": "complete",
    }
    assert tagged["large"]["error"] == {
        "stage": "validate",
        "code": "output-too-large",
        "message": "a message of 9 bytes is too large for 'p'",
    }
    assert tagged["large"]["text"] == tagged["a"]["text"]
    (letter,) = [
        message
        for transaction in partition.writer.transactions
        for message in transaction
        if message.topic is Topic.DEAD_LETTERS
    ]
    original = verdicts["large"]
    assert (letter.key, letter.value) == (original.key, original.value)
    assert letter.headers[: len(original.headers)] == original.headers
    assert find(letter.headers, "el4ner-error-code") == b"output-too-large"
    assert partition.letters == ["output-too-large"]
    assert partition.positions.in_flight == 0


async def test_an_outcome_that_was_refused_is_remembered_as_failed_and_opened_by_a_replay() -> None:
    partition = Partition()
    partition.handle(journey("large")["validate"])
    partition.writer.refuses = lambda message: message.topic is Topic.ENTITY_MENTIONS
    await partition.write()
    partition.handle(journey("large")["validate"])
    assert partition.positions.in_flight == 0, "it was told"
    partition.writer.refuses = lambda _: False
    partition.handle(journey("large", origin=Origin(7, replays=1))["validate"])
    (tagged,) = [one for one in await partition.write() if one.topic is Topic.TAGGED_DOCUMENTS]
    assert orjson.loads(tagged.value or b"")["status"] == "complete"
    assert partition.positions.in_flight == 0
    partition.owned.join.tick(now=5_000 + 1_000)
    assert partition.owned.join.remembered_documents == 0


async def test_where_no_outcome_can_be_written_the_worker_ends_before_it_gives_up_on_all() -> None:
    """A topic that was set wrong is not the documents' fault."""
    partition = Partition(max_failure_run=3)
    refused = False
    partition.writer.refuses = lambda message: refused and message.topic is Topic.ENTITY_MENTIONS
    for name in ("a", "b", "c", "d", "e", "f"):
        if name == "c":
            await partition.write()
            refused = True
        partition.handle(journey(name)["validate"])
    with pytest.raises(TooManyFailuresError, match="'output-too-large'"):
        await partition.write()
    assert {name: body["status"] for name, body in emitted(partition).items()} == {
        "a": "complete",
        "b": "complete",
        "c": "failed",
        "d": "failed",
    }
    assert partition.positions.in_flight == 2


async def test_an_outcome_that_is_refused_again_becomes_smaller() -> None:
    partition = Partition()
    partition.handle(journey("large")["validate"])
    partition.writer.refuses = lambda message: (
        message.topic is Topic.TAGGED_DOCUMENTS and len(message.value or b"") > 400
    )
    await partition.write()
    body = emitted(partition)["large"]
    assert (body["status"], body["text"], "metadata" in body) == ("failed", None, False)
    assert len([1 for transaction in partition.writer.transactions]) == 1


async def test_an_open_document_that_cannot_be_written_down_comes_out_with_what_there_is() -> None:
    partition = Partition()
    for name in ("a", "large"):
        partition.handle(journey(name)["classify"])
    partition.owned.join.tick(now=6_000)
    partition.writer.refuses = lambda message: message.key == b"open:large" and message.value is not None
    await partition.write()
    assert emitted(partition) == {}
    assert partition.owned.join.open_documents == 1
    await partition.write()
    large = emitted(partition)["large"]
    assert (large["status"], large["error"]["code"], large["missing"]) == ("partial", "output-too-large", ["validate"])
    assert large["entities"]
    assert partition.positions.in_flight == 0


async def test_what_waited_is_a_dead_letter_too_with_the_place_where_it_lay() -> None:
    partition = Partition()
    told = journey("large", origin=Origin(41))
    partition.handle(told["classify"])
    partition.writer.refuses = lambda message: message.topic is Topic.ENTITY_MENTIONS
    partition.owned.join.tick(now=5_000 + 3_600_000)
    await partition.write()
    (letter,) = [one for one in partition.writer.transactions[-1] if one.topic is Topic.DEAD_LETTERS]
    assert letter.value == told["classify"].value
    assert find(letter.headers, "el4ner-topic") == b"typed-entities"
    assert find(letter.headers, "el4ner-offset") == str(told["classify"].offset).encode()
    # Sent again, it is the same answer to the join.
    again = read_input(replace(told["classify"], headers=letter.headers))
    assert again == replace(read_input(told["classify"]), trace=None)


async def test_a_dead_letter_that_is_refused_ends_the_worker_for_it_must_not_be_lost() -> None:
    partition = Partition()
    partition.handle(record(VERDICTS, b"rubbish", key=None))
    partition.writer.refuses = lambda _: True
    with pytest.raises(RefusedError):
        await partition.write()
    assert partition.positions.in_flight == 1


async def test_an_outcome_that_ends_worker_after_worker_is_given_up(tmp_path: Path) -> None:
    verdicts = [journey(name)["validate"] for name in ("a", "poison", "b")]
    verdicts = [replace(verdict, offset=offset) for offset, verdict in enumerate(verdicts)]
    done: dict[str, Any] = {}

    async def process() -> Partition:
        partition = Partition(tmp_path)
        partition.aggregator._journal.take_over()
        for verdict in verdicts:
            if (verdict.key or b"").decode() not in done:
                partition.handle(verdict)

        def bug(message: Outgoing) -> bool:
            if b'"poison"' in (message.value or b"") and message.topic is Topic.ENTITY_MENTIONS:
                raise ZeroDivisionError("a bug")
            return False

        partition.writer.refuses = bug
        return partition

    for _ in range(3):
        partition = await process()
        with pytest.raises(ZeroDivisionError):
            await partition.write()
        done |= emitted(partition)
        file, partition.aggregator._journal._file = partition.aggregator._journal._file, None
        assert file is not None
        os.close(file)
    # From the second time on each is written alone.
    assert set(done) == {"a"}
    partition = await process()
    await partition.write()
    tagged = emitted(partition)
    assert {name: body["status"] for name, body in tagged.items()} == {"poison": "failed", "b": "complete"}
    assert tagged["poison"]["error"]["code"] == "worker-crash"
    assert partition.letters == ["worker-crash"]
    assert not partition.aggregator._journal.has_suspects
    partition.aggregator._journal.close()


@pytest.mark.parametrize("open_before", [False, True])
async def test_an_open_document_that_ends_worker_after_worker_is_given_up(tmp_path: Path, open_before: bool) -> None:
    """Also one that was written down before, and is read from the changelog by each worker."""
    answer = replace(journey("poison")["classify"], offset=41, timestamp_ms=TIME)
    part = read_input(answer)
    assert isinstance(part, ReceivedAnswer)
    state, _ = join_rules(load_stream_settings(environ={})).apply(None, part, now=0)
    assert isinstance(state, Open)

    def bug(message: Outgoing) -> bool:
        is_mention = message.topic is Topic.ENTITY_MENTIONS and b"poison" in (message.value or b"")
        if is_mention if open_before else (message.key == b"open:poison" and message.value is not None):
            raise ZeroDivisionError("a bug")
        return False

    async def process() -> Partition:
        partition = Partition(tmp_path)
        partition.aggregator._journal.take_over()
        if open_before:
            found = Recovered()
            _take_in(found, *open_record("poison", state, since=TIME), "changelog")
            partition.owned.join.restore_open("poison", replace(found.open["poison"], since=0))
        else:
            partition.handle(answer)
        partition.owned.join.tick(now=3_600_000 if open_before else 6_000)
        partition.writer.refuses = bug
        return partition

    for _ in range(3):
        partition = await process()
        with pytest.raises(ZeroDivisionError):
            await partition.write()
        # What it died of is told though it ends in order.
        await partition.aggregator.release()
        notes = partition.aggregator._journal
        file, notes._file = notes._file, None
        assert file is not None
        os.close(file)
    partition = await process()
    await partition.aggregator._outcomes.write_group(partition.owned)
    if not open_before:
        await partition.aggregator._outcomes.write_group(partition.owned)
    body = emitted(partition)["poison"]
    assert (body["status"], body["error"]["code"]) == ("failed", "worker-crash")
    (letter,) = [one for one in partition.writer.transactions[-1] if one.topic is Topic.DEAD_LETTERS]
    assert (letter.value, find(letter.headers, "el4ner-offset")) == (answer.value, b"41")
    assert partition.positions.in_flight == 0
    partition.aggregator._journal.close()


async def test_an_unreadable_verdict_of_nobody_is_a_dead_letter() -> None:
    partition = Partition()
    partition.handle(record(VERDICTS, b"rubbish", key=None))
    assert partition.positions.in_flight == 1
    assert topics(await partition.write()) == ["dead-letters"]
    assert partition.positions.in_flight == 0


def test_what_the_next_stage_cannot_read_either_is_left_to_it() -> None:
    partition = Partition()
    partition.handle(record(Topic.SPAN_CANDIDATES, b"rubbish"))
    assert not partition.owned.has_work
    assert partition.positions.in_flight == 0
