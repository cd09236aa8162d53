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
from el4ner.front_door import KnownDocument
from el4ner.participation import STAGES
from el4ner.serialize import dumps
from el4ner.types import Usage
from tests.support.answers import RESULTS, TIME, manifest, random, raw
from workers.backoff import Backoff
from workers.config import load_stream_settings
from workers.join import changelog
from workers.join.agent import World
from workers.join.changelog import Recovered
from workers.join.owned_partition import OwnedPartition, TakenMessage
from workers.join.partition_join import PartitionJoin
from workers.join.stage_messages import join_rules
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.transactions import ConsumedOffset
from workers.messages.envelope import Outgoing, Record
from workers.messages.headers import find
from workers.one_hop.pipeline_worker import PipelineWorker
from workers.stages.batch_worker import Received
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
    """Calls at once, or, where it is ``slow``, when told so. ``known``: documents that need no model."""

    waiting = 0

    def __init__(self) -> None:
        self.known: Callable[[str], bool] = lambda _: False
        self.slow = False
        self._calls: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []

    def submit_within(self, _seconds: float | None, function: Any, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.append((future, function, args))
        if not self.slow:
            self.go()
        return future

    @property
    def pipeline(self) -> Any:
        return SimpleNamespace(
            manifest=lambda stage, _pool: manifest(stage), tagging_usage={"classify": Usage(7)}, known=self._known
        )

    def go(self) -> None:
        """Do what waits."""
        calls, self._calls = self._calls, []
        for future, function, args in calls:
            future.set_result(function(self.pipeline, *args))

    def _known(self, documents: Sequence[Any]) -> list[KnownDocument | None]:
        manifests = {stage: manifest(stage) for stage in STAGES}
        return [
            KnownDocument(assemble_by(MethodSettings(), RESULTS["validate"](document)), manifests)
            if self.known(document.id)
            else None
            for document in documents
        ]


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
            ticket=lambda record, generation: self.positions.take(
                (record.source, record.partition), record.offset, generation
            ),
            backoff=Backoff(0.0, 0.0),
            refusal=lambda _: None,
            fail=lambda _: None,
            agent=lambda *_, **__: lambda function: function,
            raw_topic=lambda *_: None,
            task=lambda function: function,
        )
        self.metrics = Metrics(version="1")
        telemetry = Telemetry(settings, self.metrics, NoSpans())
        self.owner = Owner()
        self.worker = PipelineWorker(app, self.owner, World(lambda: TIME, lambda: 5_000, random), telemetry)
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

    async def take_in(self, *records: Record, generation: int = 1) -> None:
        """As they come of a fetch; what is not known goes into one batch."""
        await self.worker._work(self.receive(*records, generation=generation))

    def receive(self, *records: Record, generation: int = 1) -> list[tuple[Received, Ticket]]:
        """What is left for the engine of a fetch."""
        for record in records:
            self.positions.read((record.source, record.partition), record.offset, generation)
        taken = []
        for received in self.worker._let_pass(records, generation):
            ticket = self.worker.app.ticket(received.record, generation)
            assert ticket is not None
            taken.append((received, ticket))
        return taken

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
    first, *others = process.receive(*BATCH)
    await process.worker._work(others)
    await process.write()
    assert set(process.outcomes) == {"poison", "c"}
    assert process.offsets == [None]
    await process.worker._work([first])
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
    late = process.receive(record)
    process.positions.open(2)
    await process.worker._work(late)
    assert not process.owned.has_work
    await process.take_in(record, generation=2)
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


# --- known lines that overtake what waits for a model ---


async def waiting_for_a_model(process: Process, *records: Record) -> asyncio.Task[None]:
    """A batch with a slow engine; from now on every document is known whose id begins with k."""
    await process.take_in(document("first", 0))  # the engine has been asked before, so something may be known
    await process.write()
    process.writer.transactions.clear()
    process.owner.slow = True
    process.owner.known = lambda name: name.startswith("k")
    work = asyncio.create_task(process.worker._work(process.receive(*records)))
    await asyncio.sleep(0)
    return work


async def finished(process: Process, *works: asyncio.Task[None]) -> None:
    await asyncio.sleep(0)
    process.owner.go()
    await asyncio.gather(*works)
    await process.write()


async def test_known_lines_come_out_before_those_that_a_model_has_to_answer(tmp_path: Path) -> None:
    process = Process(tmp_path)
    asked = await waiting_for_a_model(process, document("a", 1))
    assert process.receive(document("k1", 2), document("k2", 3)) == []
    await process.write()
    assert list(process.outcomes) == ["k1", "k2"]
    assert process.offsets == [None], "the one that waits would be lost with the process"
    await finished(process, asked)
    assert list(process.outcomes) == ["k1", "k2", "a"]
    assert process.offsets == [None, 4]
    assert {body["status"] for body in process.outcomes.values()} == {"complete"}


async def test_known_lines_say_the_same_whether_they_pass_or_not(tmp_path: Path) -> None:
    outcomes = []
    for lines_ahead in (10, 0):
        process = Process(tmp_path / str(lines_ahead), lines_ahead=lines_ahead)
        asked = await waiting_for_a_model(process, document("a", 1))
        left = process.receive(document("k", 2))
        assert len(left) == (lines_ahead == 0)
        await finished(process, asked, *([asyncio.create_task(process.worker._work(left))] if left else []))
        outcomes.append(process.outcomes)
        process.die()
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("later", [{"revision": 5}, {}], ids=["revision", "repeat"])
async def test_a_line_never_overtakes_its_own_document(tmp_path: Path, later: dict[str, Any]) -> None:
    process = Process(tmp_path)
    process.owner.known = lambda name: False
    asked = await waiting_for_a_model(process, document("x", 1), document("a", 2))
    process.owner.known = lambda _: True
    second, other = document("x", 3, **later), document("k", 4)
    (left,) = process.receive(second, other)
    assert left[0].record is second
    # And one behind that one neither, in the same fetch or later.
    (third,) = process.receive(document("x", 5, **later))
    await process.write()
    assert list(process.outcomes) == ["k"]
    await finished(process, asked, asyncio.create_task(process.worker._work([left, third])))
    revisions = [
        orjson.loads(message.value or b"")["revision"]
        for message in process.messages
        if message.topic is Topic.TAGGED_DOCUMENTS and message.key == b"x"
    ]
    assert revisions == ([0, 5] if later else [0])
    # What waited has been told: now it may pass.
    assert process.receive(document("x", 6, revision=9)) == []
    await process.write()
    assert process.positions.in_flight == 0


async def test_a_deletion_overtakes_no_document_and_no_document_overtakes_a_deletion(tmp_path: Path) -> None:
    process = Process(tmp_path)
    asked = await waiting_for_a_model(process, document("a", 1), document("x", 2))
    left = process.receive(raw(None, key=b"x", offset=3), document("k", 4))
    process.owner.known = lambda _: True
    left += process.receive(document("x", 5))
    assert [received.record.offset for received, _ in left] == [3, 5]
    deletion = asyncio.create_task(process.worker._work(left[:1]))
    await asyncio.sleep(0)
    await process.write()
    assert list(process.outcomes) == ["k"]
    process.owner.go()
    await asyncio.gather(asked, deletion)
    await finished(process, asyncio.create_task(process.worker._work(left[1:])))
    of_x = [one.value is None for one in process.messages if (one.topic, one.key) == (Topic.TAGGED_DOCUMENTS, b"x")]
    assert of_x == [False, True, False]
    assert process.offsets[-1] == 6


async def test_only_so_many_lines_are_ahead_of_one_that_waits(tmp_path: Path) -> None:
    process = Process(tmp_path, lines_ahead=3)
    asked = await waiting_for_a_model(process, document("a", 1))
    left = process.receive(*(document(f"k{offset}", offset) for offset in range(2, 8)))
    assert [received.record.offset for received, _ in left] == [5, 6, 7]
    await finished(process, asked, asyncio.create_task(process.worker._work(left)))
    assert len(process.outcomes) == 7
    assert process.receive(document("k8", 8)) == []


async def test_what_a_crash_brings_again_of_lines_that_were_ahead_is_known(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await waiting_for_a_model(process, document("a", 1))
    assert process.receive(document("k1", 2), document("k2", 3)) == []
    await process.write()
    process.die()
    successor = Process(tmp_path / "b")
    recovered = Recovered()
    for one in process.messages:
        if one.topic == "el4ner-aggregate-joins-changelog":
            changelog._take_in(recovered, one.key, one.value, "the changelog")
    for number, remembered in recovered.done.items():
        # The process was away for longer than anything is remembered.
        successor.owned.join.restore_closed(number, 0, remembered.documents)
    successor.owned.join.tick(now=5_000, committed=-1)
    await successor.take_in(document("a", 1), document("k1", 2), document("k2", 3))
    await successor.write()
    assert list(successor.outcomes) == ["a"]
    assert successor.offsets == [4]
    # Nothing of them can come again now.
    assert successor.owned.join.remembered_documents == 3
    successor.owned.join.tick(now=5_000, committed=4)
    assert successor.owned.join.remembered_documents == 1


async def test_known_lines_that_killed_a_worker_are_asked_about_alone(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.take_in(document("first", 0))
    process.owner.known = lambda name: 1 // (name != "k2") > 0
    with pytest.raises(ZeroDivisionError):
        process.receive(document("k1", 1), document("k2", 2))
    process.die()
    successor = Process(tmp_path)
    await successor.take_in(document("first", 0))
    successor.owner.known = lambda _: True
    successor.calls.clear()
    await successor.take_in(document("k1", 1), document("k2", 2), document("k3", 3))
    await successor.write()
    assert set(successor.outcomes) == {"first", "k1", "k2", "k3"}
    assert [(stage, names) for stage, names in successor.calls if stage == "extract"] == [
        ("extract", ["k1"]),
        ("extract", ["k2"]),
    ]


async def test_known_lines_that_come_while_partitions_go_are_left_to_the_next_owner(tmp_path: Path) -> None:
    process = Process(tmp_path)
    asked = await waiting_for_a_model(process, document("a", 1))
    process.positions.pause()
    assert process.receive(document("k1", 2)) == []
    assert not process.owned.has_work
    process.positions.open(2)
    process.worker._overtaking.clear()
    process.owner.go()
    await asked
    assert not process.owned.has_work
    # All of it comes again, and passes in the new order.
    process.owner.slow = False
    await process.take_in(document("a", 1), document("k1", 2), generation=2)
    await process.write()
    assert list(process.outcomes) == ["k1", "a"]
    assert process.offsets == [3]


async def test_an_asked_document_that_fails_is_a_dead_letter_and_the_lines_before_it_are_out(tmp_path: Path) -> None:
    process = Process(tmp_path, on("classify", "poison", EngineError("it cannot be done")))
    asked = await waiting_for_a_model(process, document("poison", 1))
    assert process.receive(document("k", 2)) == []
    await process.write()
    await finished(process, asked)
    assert {name: body["status"] for name, body in process.outcomes.items()} == {"k": "complete", "poison": "failed"}
    assert [letter.key for letter in process.letters] == [b"poison"]
    assert process.offsets == [None, 3]


async def test_who_reads_the_stages_messages_gets_all_of_them(tmp_path: Path) -> None:
    process = Process(tmp_path, publish_stages=True)
    asked = await waiting_for_a_model(process, document("a", 1))
    assert len(process.receive(document("k", 2))) == 1
    await finished(process, asked)


async def test_known_lines_do_not_hide_that_everything_else_fails(tmp_path: Path) -> None:
    process = Process(tmp_path, lambda _stage, _name: EngineError("it is ill"), max_failure_run=5)
    process.owner.known = lambda name: name.startswith("k")
    process.worker._known_lines = process.owner.pipeline
    for turn in range(4):
        await process.take_in(document(f"a{turn}", 2 * turn), document(f"k{turn}", 2 * turn + 1))
    with pytest.raises(TooManyFailuresError):
        await process.take_in(document("a4", 8), document("k4", 9))
