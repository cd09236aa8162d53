"""The worker of all stages without Kafka and engines: what it writes together, and what becomes of documents that
fail, kill their worker, or cannot be written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from el4ner.assemble import assemble_by
from el4ner.config import MethodSettings
from el4ner.errors import EngineError
from el4ner.serialize import dumps
from el4ner.types import Usage
from tests.support.answers import RESULTS, TIME, manifest, random, raw
from workers.backoff import Backoff
from workers.config import load_stream_settings
from workers.join.agent import World
from workers.join.owned_partition import OwnedPartition, TakenMessage
from workers.join.partition_join import PartitionJoin
from workers.join.stage_messages import join_rules
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.transactions import ConsumedOffset
from workers.messages.envelope import Outgoing, Record
from workers.messages.headers import find
from workers.one_hop.pipeline_worker import PipelineWorker
from workers.stages.failure_limit import TooManyFailuresError
from workers.stages.table import STAGE_TABLE
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry
from workers.telemetry.trace_spans import NoSpans
from workers.topics import Topic

PARTITION = 2
DOCUMENTS = "p.documents"
Fails = Callable[[str, str], Exception | None]
"""``(stage, document)`` → what is raised when the stage is asked about it; None: nothing."""


class Owner:
    """Calls at once."""

    waiting = 0

    def submit_within(self, _seconds: float | None, function: Any, *args: Any) -> Future[Any]:
        pipeline = SimpleNamespace(manifest=lambda stage, _pool: manifest(stage), tagging_usage={"classify": Usage(7)})
        future: Future[Any] = Future()
        future.set_result(function(pipeline, *args))
        return future


class Writer:
    """What would be written: the messages of each transaction, and the offset that is committed in it."""

    def __init__(self) -> None:
        self.transactions: list[tuple[list[Outgoing], int | None]] = []
        self.refuses: Callable[[Outgoing], bool] = lambda _: False

    async def write(self, messages: Sequence[Outgoing], consumed: ConsumedOffset | None = None) -> None:
        if any(map(self.refuses, messages)):
            raise RefusedError("a message of 9 bytes is too large for 'p'", code="output-too-large", by_broker=True)
        if consumed is not None:
            assert (consumed.group, consumed.topic, consumed.partition) == ("el4ner-extract", DOCUMENTS, PARTITION)
        self.transactions.append((list(messages), None if consumed is None else consumed.offset))


class Process:
    """A worker that owns one partition. ``fails``: says what a stage raises."""

    def __init__(self, folder: Path, fails: Fails = lambda _stage, _name: None, **worker: Any) -> None:
        settings = load_stream_settings(environ={}, overrides={"worker": {"data_dir": str(folder), **worker}})
        self.positions = OffsetTracker(lambda: 0.0)
        self.positions.open(1)
        self.calls: list[tuple[str, list[str]]] = []
        app: Any = SimpleNamespace(
            stage="pipeline",
            group="extract",
            settings=settings,
            names={topic: f"p.{topic.value}" for topic in Topic},
            consumer=SimpleNamespace(commits=True),
            positions=self.positions,
            backoff=Backoff(0.0, 0.0),
            refusal=lambda _: None,
            fail=lambda _: None,
            agent=lambda *_, **__: lambda function: function,
            raw_topic=lambda *_: None,
            task=lambda function: function,
        )
        self.metrics = Metrics(version="1")
        telemetry = Telemetry(settings, self.metrics, NoSpans())
        self.worker = PipelineWorker(app, Owner(), World(lambda: TIME, lambda: 5_000, random), telemetry)
        assert not app.consumer.commits
        for calls in self.worker._calls:
            calls.stage = replace(calls.stage, call=self._call(calls.stage.name, fails))
        tagging = self.worker._tagging
        tagging.stage = replace(tagging.stage, call=self._tag(fails))
        for journal in self.worker._journals:
            journal.take_over()
        self.writer = Writer()
        join: PartitionJoin[TakenMessage] = PartitionJoin(join_rules(settings), remember_ms=1_000, checkpoint_ms=1_000)
        consumed = self.worker._partitions._consumed(PARTITION)
        writer: Any = self.writer
        self.owned = OwnedPartition(PARTITION, writer, join, self.worker._outcomes.write_group, consumed)
        self.worker._partitions._owned = {PARTITION: self.owned}

    def _call(self, stage: str, fails: Fails) -> Any:
        def call(_: Any, items: Sequence[Any]) -> list[Any]:
            documents = [item if stage == "extract" else item.document for item in items]
            self.calls.append((stage, [document.id for document in documents]))
            for document in documents:
                if (error := fails(stage, document.id)) is not None:
                    raise error
            return [RESULTS[stage](document) for document in documents]

        return call

    def _tag(self, fails: Fails) -> Any:
        """All stages in one call, as :meth:`el4ner.pipeline.Pipeline.tag`."""

        def call(_: Any, documents: Sequence[Any]) -> list[Any]:
            self.calls.append(("tag", [document.id for document in documents]))
            for stage in RESULTS:
                for document in documents:
                    if (error := fails(stage, document.id)) is not None:
                        raise error
            return [assemble_by(MethodSettings(), RESULTS["validate"](document)) for document in documents]

        return call

    async def take_in(self, *records: Record) -> None:
        taken: list[tuple[Record, Ticket]] = []
        for record in records:
            self.positions.read((record.source, record.partition), record.offset, 1)
            ticket = self.positions.take((record.source, record.partition), record.offset, 1)
            assert ticket is not None
            taken.append((record, ticket))
        await self.worker._work(taken)

    async def write(self) -> None:
        """All that waits."""
        while self.owned.has_work:
            await self.worker._outcomes.write_group(self.owned)

    def die(self) -> None:
        """The system closes its files."""
        for journal in self.worker._journals:
            file, journal._file = journal._file, None
            assert file is not None
            os.close(file)

    @property
    def outcomes(self) -> dict[str, Any]:
        """The tagged documents by their id."""
        tagged = [one for one in self.messages if one.topic is Topic.TAGGED_DOCUMENTS]
        assert len({one.key for one in tagged}) == len(tagged)
        return {(one.key or b"").decode(): None if one.value is None else orjson.loads(one.value) for one in tagged}

    @property
    def messages(self) -> list[Outgoing]:
        return [message for messages, _ in self.writer.transactions for message in messages]

    @property
    def letters(self) -> list[Outgoing]:
        return [message for message in self.messages if message.topic is Topic.DEAD_LETTERS]

    @property
    def offsets(self) -> list[int | None]:
        """Of each transaction."""
        return [offset for _, offset in self.writer.transactions]


def document(name: str, offset: int, **fields: Any) -> Record:
    value = dumps({"id": name, "text": f"{name} flew to Berlin", **fields})
    return raw(value, key=name.encode(), offset=offset)


BATCH = [document("a", 1), document("poison", 2), document("c", 3)]


def on(stage: str, name: str, error: Exception) -> Fails:
    return lambda asked, document: error if (asked, document) == (stage, name) else None


async def test_outcomes_mentions_what_is_remembered_and_the_offset_are_one_transaction(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.take_in(*BATCH)
    assert process.positions.committable() == {}
    await process.write()
    ((messages, offset),) = process.writer.transactions
    assert offset == 4
    topics = [str(message.topic) for message in messages]
    assert topics == ["entity-mentions", "tagged-documents"] * 3 + ["el4ner-aggregate-joins-changelog"]
    assert {name: body["status"] for name, body in process.outcomes.items()} == dict.fromkeys(
        ("a", "poison", "c"), "complete"
    )
    assert process.calls == [("tag", ["a", "poison", "c"])]
    assert process.positions.in_flight == 0
    assert 'el4ner_prompt_tokens_total{stage="classify"} 7.0' in process.metrics.exposition()[0].decode()


async def test_it_is_the_same_whether_the_stages_are_asked_together_or_one_by_one(tmp_path: Path) -> None:
    together, apart = Process(tmp_path / "a"), Process(tmp_path / "b", publish_stages=True)
    for process in (together, apart):
        await process.take_in(*BATCH)
        await process.write()
    assert apart.calls == [(stage, ["a", "poison", "c"]) for stage in RESULTS]
    assert together.outcomes == apart.outcomes
    written = [message for message in apart.messages if message not in together.messages]
    assert {message.topic for message in written} == {stage.output for stage in STAGE_TABLE.values()}


async def test_the_offset_never_passes_a_document_that_is_not_written(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.positions.read((DOCUMENTS, PARTITION), 1, 1)  # it is still with an engine
    for record in BATCH[1:]:
        process.positions.read((DOCUMENTS, PARTITION), record.offset, 1)
    taken = [(one, process.positions.take((DOCUMENTS, PARTITION), one.offset, 1)) for one in BATCH[1:]]
    await process.worker._work(taken)  # type: ignore[arg-type]
    await process.write()
    assert set(process.outcomes) == {"poison", "c"}
    assert process.offsets == [None]
    ticket = process.positions.take((DOCUMENTS, PARTITION), 1, 1)
    assert ticket is not None
    await process.worker._work([(BATCH[0], ticket)])
    await process.write()
    assert process.offsets == [None, 4]


@pytest.mark.parametrize(
    ("stage", "status", "missing"),
    [
        ("extract", "failed", ["extract"]),
        ("classify", "failed", ["classify"]),
        ("validate", "partial", ["validate"]),
    ],
)
async def test_one_poison_document_costs_only_itself_whichever_stage_it_is_poison_for(
    tmp_path: Path, stage: str, status: str, missing: list[str]
) -> None:
    process = Process(tmp_path, on(stage, "poison", EngineError("it cannot be done")))
    await process.take_in(*BATCH)
    await process.write()
    assert {name: body["status"] for name, body in process.outcomes.items()} == {
        "a": "complete",
        "poison": status,
        "c": "complete",
    }
    poison = process.outcomes["poison"]
    assert (poison["error"]["stage"], poison["error"]["code"]) == (stage, "engine")
    assert bool(poison["entities"]) == (status == "partial")
    assert list(poison["manifests"]) == list(RESULTS)[: list(RESULTS).index(stage)]
    (letter,) = process.letters
    assert (letter.value, find(letter.headers, "el4ner-stage")) == (BATCH[1].value, stage.encode())
    # The letter, the outcome and the offset: all or nothing.
    assert process.offsets == [4]
    assert process.worker.failures == 1
    shown = process.metrics.exposition()[0].decode()
    assert f'el4ner_dead_letters_total{{code="engine",stage="{stage}"}} 1.0' in shown
    assert 'el4ner_documents_total{outcome="failed",stage="pipeline"} 1.0' in shown
    assert 'el4ner_documents_total{outcome="ok",stage="pipeline"} 2.0' in shown


@pytest.mark.parametrize(("stage", "status"), [("extract", "failed"), ("classify", "failed"), ("validate", "partial")])
async def test_a_document_that_kills_worker_after_worker_is_given_up_by_the_stage_that_it_kills(
    tmp_path: Path, stage: str, status: str
) -> None:
    # Over the first one all stages were asked together: which it was shows only when they are asked one by one.
    for _ in range(3 if stage == "extract" else 4):
        process = Process(tmp_path, on(stage, "poison", ZeroDivisionError("a bug")), max_crashes=3)
        with pytest.raises(ZeroDivisionError):
            await process.take_in(*BATCH)
        process.die()
    last = Process(tmp_path, on(stage, "poison", ZeroDivisionError("a bug")), max_crashes=3)
    await last.take_in(*BATCH)
    await last.write()
    poison = last.outcomes["poison"]
    assert (poison["status"], poison["error"]["stage"], poison["error"]["code"]) == (status, stage, "worker-crash")
    assert (last.outcomes["a"]["status"], last.outcomes["c"]["status"]) == ("complete", "complete")
    assert [letter.value for letter in last.letters] == [BATCH[1].value]


async def test_an_outcome_that_ends_worker_after_worker_is_given_up(tmp_path: Path) -> None:
    def bug(message: Outgoing) -> bool:
        if message.topic is Topic.ENTITY_MENTIONS and b'"poison"' in (message.value or b""):
            raise ZeroDivisionError("a bug")
        return False

    left = list(BATCH)
    done: dict[str, Any] = {}
    for _ in range(3):
        process = Process(tmp_path, max_crashes=3)
        process.writer.refuses = bug
        await process.take_in(*left)
        with pytest.raises(ZeroDivisionError):
            await process.write()
        done |= process.outcomes
        process.die()
        left = [record for record in left if (record.key or b"").decode() not in done]
    assert set(done) == {"a"}
    last = Process(tmp_path, max_crashes=3)
    last.writer.refuses = bug
    await last.take_in(*left)
    await last.write()
    assert {name: body["status"] for name, body in last.outcomes.items()} == {"poison": "failed", "c": "complete"}
    (letter,) = last.letters
    assert (letter.value, find(letter.headers, "el4ner-stage")) == (BATCH[1].value, b"aggregate")


async def test_an_outcome_that_is_refused_fails_its_document_and_no_other(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.writer.refuses = lambda message: (
        message.topic is Topic.ENTITY_MENTIONS and b'"poison"' in (message.value or b"")
    )
    await process.take_in(*BATCH)
    await process.write()
    assert {name: body["status"] for name, body in process.outcomes.items()} == {
        "a": "complete",
        "poison": "failed",
        "c": "complete",
    }
    (letter,) = process.letters
    assert (letter.value, letter.key) == (BATCH[1].value, b"poison")
    assert find(letter.headers, "el4ner-error-code") == b"output-too-large"
    # One after another, each with its offset.
    assert process.offsets == [2, 3, 4]


async def test_a_stages_message_that_a_broker_refuses_is_left_out_and_costs_no_outcome(tmp_path: Path) -> None:
    process = Process(tmp_path, publish_stages=True)
    process.writer.refuses = lambda message: message.topic is Topic.TYPED_ENTITIES and message.key == b"poison"
    await process.take_in(*BATCH)
    await process.write()
    assert {body["status"] for body in process.outcomes.values()} == {"complete"}
    published = [message.key for message in process.messages if message.topic is Topic.TYPED_ENTITIES]
    assert published == [b"a", b"c"]
    assert process.positions.in_flight == 0


async def test_what_is_known_is_not_told_again_and_its_offset_is_committed_all_the_same(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.take_in(document("a", 1))
    await process.write()
    await process.take_in(document("a", 2))
    assert not process.owned.has_work
    process.owned.look_at_offset()
    await process.write()
    process.owned.look_at_offset()
    assert not process.owned.has_work
    assert process.writer.transactions[-1] == ([], 3)
    assert len(process.writer.transactions) == 2


async def test_a_failure_that_comes_again_is_a_dead_letter_again_and_no_second_outcome(tmp_path: Path) -> None:
    process = Process(tmp_path)
    for offset in (1, 2):
        await process.take_in(raw(b"rubbish", key=b"x", offset=offset))
        await process.write()
    assert len(process.letters) == 2
    assert process.offsets == [2, 3]
    assert len(process.outcomes) == 1


async def test_revisions_and_deletions_follow_the_joins_rules(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.take_in(document("a", 1, revision=2), document("a", 2, revision=1))
    await process.write()
    assert process.outcomes["a"]["revision"] == 2
    await process.take_in(raw(None, key=b"a", offset=3))
    await process.write()
    assert [message.value for message in process.messages if message.topic is Topic.TAGGED_DOCUMENTS][-1] is None
    await process.take_in(document("a", 4))
    await process.write()
    values = [message.value for message in process.messages if message.topic is Topic.TAGGED_DOCUMENTS]
    assert orjson.loads(values[-1] or b"")["revision"] == 0
    assert len(values) == 3


async def test_where_everything_fails_the_worker_stops_before_it_gives_up_on_all(tmp_path: Path) -> None:
    process = Process(tmp_path, max_failure_run=3)
    with pytest.raises(TooManyFailuresError):
        await process.take_in(*(raw(b"rubbish", key=b"x", offset=offset) for offset in range(5)))
    await process.write()
    assert process.messages == []
    assert process.positions.committable() == {}


async def test_what_belongs_to_a_partition_that_was_taken_away_is_left_to_its_next_owner(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.worker._partitions._owned = {}
    await process.take_in(*BATCH)
    assert not process.owned.has_work
    assert process.positions.in_flight == 3


async def test_what_was_asked_before_a_rebalance_is_told_once_where_the_partition_comes_back(tmp_path: Path) -> None:
    process, record = Process(tmp_path), raw(b"rubbish", key=b"x", offset=1)
    place = (record.source, record.partition)
    process.positions.read(place, 1, 1)
    late = process.positions.take(place, 1, 1)
    assert late is not None
    process.positions.open(2)
    await process.worker._work([(record, late)])
    assert not process.owned.has_work
    process.positions.read(place, 1, 2)
    again = process.positions.take(place, 1, 2)
    assert again is not None
    await process.worker._work([(record, again)])
    await process.write()
    assert [letter.value for letter in process.letters] == [b"rubbish"]
    assert process.offsets == [2]


async def test_a_failure_that_comes_while_its_documents_outcome_is_written_is_a_dead_letter_too(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.take_in(document("x", 1))
    write = process.writer.write
    late = [raw(b"rubbish", key=b"x", offset=2), document("x", 3)]

    async def meanwhile(messages: Sequence[Outgoing], consumed: ConsumedOffset | None = None) -> None:
        await process.take_in(*late)
        late.clear()
        await write(messages, consumed)

    process.writer.write = meanwhile  # type: ignore[method-assign]
    await process.write()
    assert [letter.value for letter in process.letters] == [b"rubbish"]
    assert process.offsets == [2, 4]
    assert process.outcomes["x"]["status"] == "complete"
    assert (process.worker.documents, process.worker.failures) == (3, 1)


async def test_draining_writes_what_is_settled_and_commits_how_far_it_came(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.owned.task = asyncio.create_task(process.worker._write(process.owned.writes))
    writer: Any = process.writer
    writer.stop = lambda: asyncio.sleep(0)
    await process.take_in(*BATCH)
    await process.take_in(document("a", 4))
    await process.worker.drain()
    assert set(process.outcomes) == {"a", "poison", "c"}
    assert process.offsets[-1] == 5
    assert process.worker._partitions.all == []
