"""``el4ner worker pipeline`` over real Kafka: all stages in one process, a document's outcome and offset in one
transaction."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from typing_extensions import override

from el4ner.pipeline import Pipeline
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import assert_exact, documents, lag
from tests.integration.test_stream_guarantees import serving, until
from workers.kafka import topic_admin
from workers.kafka.transactions import ConsumedOffset, TransactionalWriter
from workers.kafka.transport import Consumer
from workers.messages import json_schemas
from workers.messages.envelope import Outgoing
from workers.messages.headers import find, parse_traceparent
from workers.run import WorkerCrashedError
from workers.stages.crash_journal import CrashJournal
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

STAGE_TOPICS = (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS)


def behind(stream: Stream) -> int:
    """Messages of ``documents`` that are not committed."""
    committed = stream.committed("extract")
    done = sum(offset for (name, _), offset in committed.items() if name == stream.name(Topic.DOCUMENTS))
    return stream.ends(Topic.DOCUMENTS) - done


def wait_committed(stream: Stream) -> None:
    wait_until(lambda: behind(stream) == 0, timeout=60, what="all committed")


@pytest.mark.parametrize("stream", [{"entities": {"enabled": True}}], indirect=True)
def test_documents_come_out_once_in_one_hop_as_the_stages_apart_would_say_it(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("pipeline").wait_ready()
    sent = documents(600)
    # Known to every memory, and asked about once.
    sent += [{"id": f"again-{number}", "text": "Zoë Schröder flew to Zürich. Schröder is back."} for number in range(8)]
    stream.produce_documents(sent)
    stream.wait_tagged(608)
    wait_committed(stream)
    assert worker.stop() == 0
    records = stream.read(Topic.TAGGED_DOCUMENTS)
    tagged = {record.key.decode(): orjson.loads(record.value) for record in records}
    assert_exact(list(tagged.values()), sent)
    mentions = [orjson.loads(record.value) for record in stream.read(Topic.ENTITY_MENTIONS)]
    assert len(mentions) == sum(len(document["entities"]) for document in tagged.values())
    for topic, messages in ((Topic.TAGGED_DOCUMENTS, tagged.values()), (Topic.ENTITY_MENTIONS, mentions)):
        for message in messages:
            json_schemas.validate(topic.value, message)
    assert [stream.ends(topic) for topic in STAGE_TOPICS] == [0, 0, 0]
    # Each entity has the id that its mention has.
    places = {(each["document_id"], each["start"], each["end"], each["type"]): each["entity_id"] for each in mentions}
    assert places == {
        (name, each["start"], each["end"], each["type"]): each["entity_id"]
        for name, document in tagged.items()
        for each in document["entities"]
    }
    # The same documents in another pipeline's topics, through the stages.
    staged = Stream(stream.bootstrap, stream.redis_url, f"{stream.prefix}staged.", stream.folder, stream.sections)
    staged.create_topics()
    staged.workers = stream.workers
    staged.start("all").wait_ready()
    staged.produce_documents(sent)
    staged.wait_tagged(608)
    for record in staged.read(Topic.TAGGED_DOCUMENTS):
        assert orjson.loads(record.value) == tagged[record.key.decode()]
    ids = {record.key: find(record.headers, "ce_id") for record in records}
    assert ids == {record.key: find(record.headers, "ce_id") for record in staged.read(Topic.TAGGED_DOCUMENTS)}


def test_broken_documents_are_dead_letters_byte_for_byte_once_and_failed_documents(stream: Stream) -> None:
    stream.create_topics()
    broken = {
        b"not-json": (b"this is not JSON", "json"),
        b"no-text": (b'{"title": "nothing to read"}', "schema"),
        b"too-long": (orjson.dumps({"text": "Berlin " * 300_000}), "document-too-long"),
        b"invalid-utf-8": (b'{"text": "Z\xfcrich"}', "encoding"),
        b"unknown-pool": (orjson.dumps({"text": "Berlin", "pool": "nobody-hosts-this"}), "unknown-pool"),
    }
    worker = stream.start("pipeline").wait_ready()
    sent = documents(95)
    stream.produce_documents(sent[:40])
    stream.produce(((key, value) for key, (value, _) in broken.items()), headers=[("own", b"\x00\xff")])
    stream.produce_documents(sent[40:])
    stream.wait_tagged(100)
    wait_committed(stream)
    assert worker.stop() == 0
    tagged = {document["id"]: document for document in stream.tagged()}
    assert_exact([document for document in tagged.values() if document["status"] != "failed"], sent)
    letters = stream.read(Topic.DEAD_LETTERS)
    assert sorted(record.key for record in letters) == sorted(broken)
    for record in letters:
        value, code = broken[record.key]
        assert (record.value, record.headers[0]) == (value, ("own", b"\x00\xff"))
        assert find(record.headers, "el4ner-error-code") == code.encode()
        assert find(record.headers, "el4ner-stage") == b"extract"
        assert find(record.headers, "el4ner-topic") == stream.name(Topic.DOCUMENTS).encode()
        failed = tagged[record.key.decode()]
        assert (failed["status"], failed["entities"], failed["error"]["stage"]) == ("failed", [], "extract")


def change_events() -> dict[str, Any]:
    """Settings that read them from a topic of the test's own."""
    topic = f"shop{uuid.uuid4().hex[:8]}.public.articles"
    paths = {"text_path": "payload.after.body", "revision_path": "payload.ts_ms"}
    return {"kafka": {"documents_topic": topic, **paths}}


@pytest.mark.parametrize(
    ("stream", "topology"),
    [(change_events(), "pipeline"), (change_events(), "all")],
    indirect=["stream"],
    ids=["one hop", "stages"],
)
def test_change_events_of_a_database_are_read_as_they_are(stream: Stream, topology: str) -> None:
    with topic_admin.administering(stream.settings.kafka, client_id="el4ner-tests") as admin:
        admin.create_topics(
            {stream.name(Topic.DOCUMENTS): {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True
        )
    stream.create_topics()
    worker = stream.start(topology).wait_ready()

    def change(row: int, body: str | None, ms: int) -> tuple[bytes, bytes]:
        after = None if body is None else {"id": row, "body": body}
        return orjson.dumps({"id": row}), orjson.dumps(
            {"schema": {"type": "struct"}, "payload": {"op": "c", "before": None, "after": after, "ts_ms": ms}}
        )

    stream.produce([change(1, "Zoe lives in Oslo.", 1_000), change(2, "Angela flew to Berlin.", 1_000)])
    stream.wait_tagged(2)
    broken = (b"own", orjson.dumps({"payload": {"after": {"title": "Oslo"}, "ts_ms": 1_000}}))
    stream.produce([change(1, "Zoe lives in York.", 2_000), change(2, None, 2_000), broken])
    stream.wait_tagged(5)
    if topology == "pipeline":
        wait_committed(stream)
    assert worker.stop() == 0
    outcomes: dict[bytes, list[Any]] = {}
    for record in stream.read(Topic.TAGGED_DOCUMENTS):
        outcomes.setdefault(record.key, []).append(None if record.value is None else orjson.loads(record.value))
    first, second = outcomes[b'{"id":1}']
    assert [(one["text"], one["revision"]) for one in (first, second)] == [
        ("Zoe lives in Oslo.", 1_000),
        ("Zoe lives in York.", 2_000),
    ]
    assert "York" in [entity["text"] for entity in second["entities"]]
    assert [one if one is None else one["text"] for one in outcomes[b'{"id":2}']] == ["Angela flew to Berlin.", None]
    ((failed,), (letter,)) = outcomes[b"own"], stream.read(Topic.DEAD_LETTERS)
    assert (failed["status"], failed["revision"], letter.value) == ("failed", 1_000, broken[1])
    reason = "kafka.text_path is 'payload.after.body': 'payload.after' has no 'body'; it has 'title'"
    assert find(letter.headers, "el4ner-error-message") == reason.encode()


def test_kill_9_in_the_middle_loses_nothing_and_repeats_nothing(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("pipeline").wait_ready()
    sent = documents(1_500)
    for round_ in range(3):
        stream.produce_documents(sent[round_ * 500 : (round_ + 1) * 500])
        stream.wait_tagged(round_ * 500 + 20)
        worker.kill()
        worker = stream.start("pipeline")
    stream.wait_tagged(1_500)
    worker.wait_ready()
    wait_committed(stream)
    assert_exact(stream.tagged(), sent)
    assert worker.stop() == 0


def test_workers_that_join_and_leave_in_the_middle_lose_nothing_and_repeat_nothing(stream: Stream) -> None:
    stream.create_topics()
    first = stream.start("pipeline").wait_ready()
    sent = documents(3_000)
    stream.produce_documents(sent)
    second = stream.start("pipeline").wait_ready()
    assert first.stop() == 0
    third = stream.start("pipeline").wait_ready()
    stream.wait_tagged(3_000)
    wait_committed(stream)
    assert_exact(stream.tagged(), sent)
    assert second.stop() == third.stop() == 0


@pytest.mark.parametrize("stream", [{"kafka": {"partitions": 1}}], indirect=True)
def test_a_process_without_partitions_stands_by_and_takes_over(stream: Stream) -> None:
    stream.create_topics()
    first = stream.start("pipeline").wait_ready()
    sent = documents(400)
    stream.produce_documents(sent[:200])
    second = stream.start("pipeline").wait_ready()
    stream.wait_tagged(200)
    # Whichever of them has the partition now.
    for worker in (first, second):
        worker.kill()
        stream.start("pipeline").wait_ready()
    stream.produce_documents(sent[200:])
    stream.wait_tagged(400)
    wait_committed(stream)
    assert_exact(stream.tagged(), sent)
    assert [worker.stop() for worker in stream.workers[2:]] == [0, 0]


def test_each_topology_goes_on_where_the_other_has_stopped(stream: Stream) -> None:
    stream.create_topics()
    sent = documents(900)
    worker = stream.start("all").wait_ready()
    stream.produce_documents(sent[:300])
    stream.wait_tagged(300)
    wait_until(lambda: lag(stream) == 0, timeout=60, what="all committed")
    assert worker.stop() == 0
    worker = stream.start("pipeline").wait_ready()
    # What was told before, by whichever topology, is known.
    stream.produce_documents(sent[250:600])
    stream.wait_tagged(600)
    wait_committed(stream)
    assert worker.stop() == 0
    worker = stream.start("all").wait_ready()
    stream.produce_documents(sent[550:])
    stream.wait_tagged(900)
    wait_until(lambda: lag(stream) == 0, timeout=60, what="all committed")
    assert_exact(stream.tagged(), sent)
    assert worker.stop() == 0


@pytest.mark.parametrize("stream", [{"worker": {"publish_stages": True}}], indirect=True)
def test_the_stages_messages_are_published_on_request_in_the_documents_trace(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("pipeline").wait_ready()
    sent = documents(50)
    stream.produce_documents(sent)
    stream.produce([(b"broken", b"rubbish"), (b"gone", None)])
    stream.wait_tagged(52)
    wait_committed(stream)
    assert worker.stop() == 0
    last = {record.key: record for record in stream.read(Topic.TAGGED_DOCUMENTS)}
    for topic in STAGE_TOPICS:
        records = {record.key.decode(): record for record in stream.read(topic)}
        expected = {document["id"] for document in sent} | {"gone"}
        assert records.keys() == expected | ({"broken"} if topic is Topic.SPAN_CANDIDATES else set())
        for key, record in records.items():
            assert record.partition == last[record.key].partition
            trace, outcome = parse_traceparent(record.headers), parse_traceparent(last[record.key].headers)
            assert trace is not None
            assert outcome is not None
            assert (trace.trace_id, trace.span_id != outcome.span_id) == (outcome.trace_id, True)
            if key == "gone":
                assert record.value is None
            else:
                json_schemas.validate(topic.value, orjson.loads(record.value))


def test_a_higher_revision_and_a_deletion_replace_and_what_is_known_is_not_told_again(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("pipeline").wait_ready()

    def send(text: str | None, revision: int = 0) -> None:
        value = None if text is None else orjson.dumps({"id": "d", "text": text, "revision": revision})
        stream.produce([(b"d", value)])

    def outcomes() -> list[Any]:
        values = [record.value for record in stream.read(Topic.TAGGED_DOCUMENTS)]
        return [None if value is None else (orjson.loads(value)["revision"]) for value in values]

    send("Berlin", 1)
    stream.wait_tagged(1)
    send("Berlin, again", 1)
    send("Paris", 0)
    wait_committed(stream)
    assert outcomes() == [1]
    send("Rome", 2)
    send(None)
    stream.wait_tagged(3)
    send("Oslo", 0)
    stream.wait_tagged(4)
    wait_committed(stream)
    assert outcomes() == [1, 2, None, 0]
    assert worker.stop() == 0


async def test_an_outcome_and_its_offset_are_one_transaction(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.create_topics()
    held, entered = asyncio.Event(), asyncio.Event()

    class HeldWriter(TransactionalWriter):
        @override
        async def _commit(self, messages: Sequence[Outgoing], consumed: ConsumedOffset | None) -> None:
            commit = self._producer.commit_transaction

            async def commit_later() -> None:
                entered.set()
                await held.wait()
                await commit()

            self._producer.commit_transaction = commit_later
            try:
                await super()._commit(messages, consumed)
            finally:
                self._producer.commit_transaction = commit

    monkeypatch.setattr("workers.kafka.stage_app.TransactionalWriter", HeldWriter)
    stream.produce_documents(documents(20))
    async with serving(stream, "pipeline"):
        await asyncio.wait_for(entered.wait(), 30)
        # More than two of Faust's commit intervals, with everything written and no transaction ended.
        await asyncio.sleep(2.5)
        assert await asyncio.to_thread(stream.committed, "extract") == {}
        assert await asyncio.to_thread(stream.read, Topic.TAGGED_DOCUMENTS) == []
        held.set()
        await until(lambda: behind(stream) == 0, what="all committed")
    assert_exact(stream.tagged(), documents(20))


async def test_nobody_gets_partitions_that_somebody_is_still_taking_over(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who is late fences their owner off, and begins anew what it has begun itself."""
    stream.create_topics()
    taking, revoking, go, done = (asyncio.Event() for _ in range(4))
    take_over, revoke = CrashJournal.take_over, Consumer.on_partitions_revoked

    def later(self: CrashJournal) -> None:
        if not taking.is_set():
            loop.call_soon_threadsafe(taking.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        take_over(self)

    async def told(self: Consumer, revoked: set[Any]) -> None:
        if taking.is_set():
            revoking.set()
        await revoke(self, revoked)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(CrashJournal, "take_over", later)
    monkeypatch.setattr(Consumer, "on_partitions_revoked", told)

    async def work() -> None:
        async with serving(stream, "pipeline"):
            await done.wait()

    working = asyncio.ensure_future(work())
    await asyncio.wait_for(taking.wait(), 60)
    other = stream.start("pipeline")
    await asyncio.wait_for(revoking.wait(), 60)
    await asyncio.sleep(2)
    assert not other.ready()
    go.set()
    await until(other.ready, what="the other one is ready")
    stream.produce_documents(documents(100))
    await until(lambda: behind(stream) == 0, what="all committed")
    done.set()
    await working
    assert other.stop() == 0
    assert_exact(stream.tagged(), documents(100))


async def test_who_was_fenced_ends_and_what_it_had_begun_is_told_once_by_the_next_owner(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.create_topics()
    sent = documents(40)
    stream.produce_documents(sent)
    fenced = asyncio.Event()
    commit = TransactionalWriter._commit

    async def fenced_before_the_commit(self: TransactionalWriter, messages: Any, consumed: Any) -> None:
        if not fenced.is_set():
            fenced.set()
            other = TransactionalWriter(
                stream.settings.kafka,
                self._names,
                int(self.id.rpartition("-")[2]),
                backoff=self._backoff,
                ended=lambda *_: None,
            )
            await other.start()
            await other.stop()
        await commit(self, messages, consumed)

    with monkeypatch.context() as patched:
        patched.setattr(TransactionalWriter, "_commit", fenced_before_the_commit)
        async with serving(stream, "pipeline") as task:
            await asyncio.wait([task], timeout=60)
        with pytest.raises(WorkerCrashedError, match="another process writes for this partition now"):
            task.result()
    async with serving(stream, "pipeline"):
        await until(lambda: behind(stream) == 0, what="all committed")
    assert_exact(stream.tagged(), sent)


async def test_a_document_on_which_validation_fails_comes_out_with_its_types(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from el4ner.errors import EngineError

    stream.create_topics()
    validate, tag = Pipeline.validate, Pipeline.tag

    def poisoned(self: Pipeline, batch: Any) -> Any:
        if any(item.document.id == "d-7" for item in batch):
            raise EngineError("it cannot be done")
        return validate(self, batch)

    def poisoned_together(self: Pipeline, batch: Any) -> Any:
        if any(document.id == "d-7" for document in batch):
            raise EngineError("it cannot be done")
        return tag(self, batch)

    monkeypatch.setattr(Pipeline, "validate", poisoned)
    monkeypatch.setattr(Pipeline, "tag", poisoned_together)
    sent = documents(20)
    stream.produce_documents(sent)
    async with serving(stream, "pipeline"):
        await until(lambda: behind(stream) == 0, what="all committed")
    tagged = {document["id"]: document for document in stream.tagged()}
    partial = tagged.pop("d-7")
    assert_exact(list(tagged.values()), [document for document in sent if document["id"] != "d-7"])
    assert (partial["status"], partial["error"]["stage"], partial["error"]["code"]) == ("partial", "validate", "engine")
    assert partial["entities"]
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert letter.value == orjson.dumps(sent[7])
    assert find(letter.headers, "el4ner-stage") == b"validate"


def log_lines(first: int, last: int) -> list[dict[str, Any]]:
    """Of one template, which is known after some of them."""
    return [
        {"id": f"l-{n}", "text": f"10.0.{n % 200}.7 sshd[{n}]: session opened for root", "pool": "logs"}
        for n in range(first, last)
    ]


@pytest.mark.parametrize(
    "stream", [{"kafka": {"partitions": 1}, "worker": {"remember_seconds": 1}}], indirect=True, ids=["one-partition"]
)
@pytest.mark.parametrize("ends", ["kill", "stop", "goes-on"])
def test_known_lines_do_not_wait_for_a_slow_model_and_come_out_once(stream: Stream, ends: str, tmp_path: Path) -> None:
    stream.create_topics()
    waits, released = tmp_path / "waits", tmp_path / "released"
    environ = {"WAITS": str(waits), "RELEASED": str(released)}
    worker = stream.start("pipeline", environ=environ, module="tests.integration.slow_worker").wait_ready()
    first, known = log_lines(0, 16), log_lines(100, 140)
    stream.produce_documents(first)
    stream.wait_tagged(16)
    slow = {"id": "slow", "text": "crond[1]: it went SLOWLY", "pool": "logs"}
    stream.produce_documents([slow])
    wait_until(waits.exists, what="the model is asked")
    stream.produce_documents(known)
    stream.wait_tagged(16 + 40)
    assert {document["id"] for document in stream.tagged()} == {each["id"] for each in [*first, *known]}
    assert stream.committed("extract")[stream.name(Topic.DOCUMENTS), 0] <= stream.ends(Topic.DOCUMENTS) - 41
    if ends == "kill":
        worker.kill()
    if ends == "stop":
        assert worker.process.poll() is None
        worker.process.send_signal(signal.SIGTERM)
    released.touch()
    if ends == "stop":
        assert worker.stop() == 0
    if ends != "goes-on":
        worker = stream.start("pipeline", environ=environ, module="tests.integration.slow_worker").wait_ready()
    last = log_lines(200, 210)
    stream.produce_documents(last)
    wait_committed(stream)
    assert worker.stop() == 0
    sent = [*first, slow, *known, *last]
    tagged = stream.tagged()
    assert sorted(document["id"] for document in tagged) == sorted(document["id"] for document in sent)
    texts = {document["id"]: document["text"] for document in sent}
    assert all(document["status"] == "complete" for document in tagged)
    assert all(document["text"] == texts[document["id"]] for document in tagged)
