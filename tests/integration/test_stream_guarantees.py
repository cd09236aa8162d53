"""What the stream does when something is wrong: broken documents, crashes, deadlines, wrong topics, Redis away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from el4ner.errors import EngineError
from el4ner.pipeline import Pipeline
from el4ner.serialize import dumps
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import assert_exact, documents, lag
from workers import run
from workers.join.aggregator import Aggregator
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Outgoing
from workers.messages.headers import find
from workers.roles import STAGED_ROLES
from workers.run import WorkerCrashedError, serve_workers
from workers.telemetry.web import HealthServer
from workers.topics import Topic, app_id, changelog_name, transactional_id

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


@contextlib.asynccontextmanager
async def serving(stream: Stream, *stages: str) -> AsyncIterator[asyncio.Task[None]]:
    """Workers in this process, ready, stopped in the end."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve_workers(stream.settings, stages, stop=stop, ready=ready.set))
    started = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([task, started], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        assert ready.is_set()
        yield task
    finally:
        started.cancel()
        stop.set()
        await asyncio.wait([task], timeout=60)
    if not task.cancelled():
        task.exception()


async def until(condition: Callable[[], Any], **options: Any) -> Any:
    """As :func:`wait_until`, beside workers on the same loop."""
    return await asyncio.to_thread(wait_until, condition, **options)


def test_broken_documents_are_dead_letters_byte_for_byte_and_failed_documents(stream: Stream) -> None:
    stream.create_topics()
    broken: dict[bytes, tuple[bytes, str]] = {
        b"not-json": (b"this is not JSON", "json"),
        b"no-text": (b'{"title": "nothing to read"}', "schema"),
        b"wrong-type": (b'{"text": ["a", "list"]}', "schema"),
        b"two-megabytes": (dumps({"text": "Berlin " * 300_000}), "document-too-long"),
        b"invalid-utf-8": (b'{"text": "Z\xfcrich"}', "encoding"),
    }
    stream.start("all").wait_ready()
    sent = documents(95)
    stream.produce_documents(sent[:40])
    stream.produce((key, value) for key, (value, _) in broken.items())
    stream.produce([(None, b"no key, and not JSON")], partition=1)
    stream.produce_documents(sent[40:])
    stream.wait_tagged(101)
    tagged = {document["id"]: document for document in stream.tagged()}
    assert len(tagged) == 101
    assert_exact([document for document in tagged.values() if document["status"] != "failed"], sent)
    letters = {record.key: record for record in stream.read(Topic.DEAD_LETTERS)}
    assert set(letters) == {*broken, None}
    for key, (value, code) in broken.items():
        assert letters[key].value == value
        assert find(letters[key].headers, "el4ner-error-code") == code.encode()
        failed = tagged[key.decode()]
        assert (failed["status"], failed["entities"], failed["missing"]) == ("failed", [], [])
        assert (failed["error"]["stage"], failed["error"]["code"]) == ("extract", code)
    (nameless,) = [
        document for document in tagged.values() if document["id"].startswith(f"{stream.prefix}documents-1-")
    ]
    assert nameless["status"] == "failed"
    assert letters[None].value == b"no key, and not JSON"


async def test_nothing_is_committed_before_what_it_leads_to_is_delivered(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.create_topics()
    stream.produce_documents(documents(50))
    gate, entered = asyncio.Event(), asyncio.Event()
    send = StageApp.send

    async def held(app: StageApp, messages: Sequence[Outgoing]) -> None:
        await send(app, messages)
        entered.set()
        await gate.wait()

    monkeypatch.setattr(StageApp, "send", held)
    async with serving(stream, "extract"):
        await asyncio.wait_for(entered.wait(), 30)
        # More than two commit intervals, with every batch worked on and sent, but no delivery known.
        await asyncio.sleep(2.5)
        assert await asyncio.to_thread(stream.committed, "extract") == {}
        gate.set()
        await until(lambda: sum(stream.committed("extract").values()) == 50, what="all committed")
    assert stream.ends(Topic.SPAN_CANDIDATES) == 50


async def test_a_delivery_that_fails_ends_the_worker_and_commits_nothing_of_it(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.create_topics()
    send = StageApp.send

    async def failing(app: StageApp, messages: Sequence[Outgoing]) -> None:
        if any(message.key == b"d-7" for message in messages):
            raise ConnectionError("the broker is gone")
        await send(app, messages)

    stream.produce_documents(documents(20))
    with monkeypatch.context() as patched:
        patched.setattr(StageApp, "send", failing)
        async with serving(stream, "extract") as task:
            await asyncio.wait([task], timeout=30)
        with pytest.raises(WorkerCrashedError, match="the broker is gone"):
            task.result()
    assert sum(stream.committed("extract").values()) < 20
    async with serving(stream, "extract"):
        await until(lambda: sum(stream.committed("extract").values()) == 20, what="all committed")
    seen = {orjson.loads(record.value)["document"]["id"] for record in stream.read(Topic.SPAN_CANDIDATES)}
    assert seen == {f"d-{number}" for number in range(20)}


async def test_an_engine_that_fails_on_one_document_and_a_bug(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.create_topics()
    classify = Pipeline.classify

    def poisoned(self: Pipeline, batch: Any) -> Any:
        if any(item.document.id == "d-5" for item in batch):
            raise EngineError("boom")
        if any(item.document.id == "bug" for item in batch):
            raise KeyError("a bug")
        return classify(self, batch)

    monkeypatch.setattr(Pipeline, "classify", poisoned)
    sent = documents(10)
    stream.produce_documents(sent)
    async with serving(stream, *STAGED_ROLES) as task:
        await asyncio.to_thread(stream.wait_tagged, 10)
        await asyncio.to_thread(stream.produce_documents, [{"id": "bug", "text": "Berlin"}])
        await asyncio.wait([task], timeout=30)
    with pytest.raises(WorkerCrashedError, match="a bug"):
        task.result()
    tagged = {document["id"]: document for document in stream.tagged()}
    poisoned_one = tagged.pop("d-5")
    assert (poisoned_one["status"], poisoned_one["error"]["code"]) == ("failed", "engine")
    assert_exact(list(tagged.values()), [document for document in sent if document["id"] != "d-5"])
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert orjson.loads(letter.value)["document"]["id"] == "d-5"
    # The batch was halved until the document was alone.
    assert int(find(letter.headers, "el4ner-attempts") or 0) >= 1
    # The bug was not acknowledged: without it, the document comes out.
    monkeypatch.setattr(Pipeline, "classify", classify)
    async with serving(stream, *STAGED_ROLES):
        await asyncio.to_thread(stream.wait_tagged, 11)
    assert {document["id"] for document in stream.tagged()} == {"bug", *(document["id"] for document in sent)}


def begin_transaction(stream: Stream, partition: int, messages: Iterable[tuple[bytes, bytes]]) -> None:
    """As a process that takes the partition over, writes, and dies before it commits."""
    name = stream.name(Topic.TAGGED_DOCUMENTS)
    with contextlib.closing(
        KafkaProducer(
            bootstrap_servers=stream.bootstrap,
            transactional_id=transactional_id(stream.settings.kafka, partition),
        )
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        for key, value in messages:
            producer.send(name, key=key, value=value, partition=partition).get(timeout=30)


def test_what_was_written_and_not_committed_when_a_worker_died_never_comes_out(stream: Stream) -> None:
    stream.create_topics()
    for partition in range(4):
        begin_transaction(stream, partition, [(b"never", dumps({"id": "never", "partition": partition}))])
    assert stream.ends(Topic.TAGGED_DOCUMENTS) == 0, "an open transaction is held back from its readers"
    sent = documents(100)
    stream.start("all").wait_ready()
    stream.produce_documents(sent)
    stream.wait_tagged(100)
    assert_exact(stream.tagged(), sent)


def test_an_aggregator_that_was_fenced_off_ends_and_its_successor_loses_and_repeats_nothing(stream: Stream) -> None:
    stream.create_topics()
    stages = stream.start("extract", "classify", "validate").wait_ready()
    aggregator = stream.start("aggregate").wait_ready()
    sent = documents(600)
    stream.produce_documents(sent[:300])
    stream.wait_tagged(300)
    for partition in range(4):
        begin_transaction(stream, partition, [(b"never", dumps({"id": "never"}))])
    stream.produce_documents(sent[300:])
    assert aggregator.process.wait(timeout=90) == 1
    assert "another process writes for this partition now" in aggregator.log.read_text()
    assert len(stream.tagged()) < 600
    again = stream.start("aggregate").wait_ready()
    stream.wait_tagged(600)
    wait_until(lambda: lag(stream) == 0, timeout=90, what="all committed")
    assert_exact(stream.tagged(), sent)
    assert again.stop() == stages.stop() == 0


@pytest.mark.parametrize("stream", [{"worker": {"deadline_seconds": 3.0, "remember_seconds": 20.0}}], indirect=True)
def test_a_stage_that_does_not_answer_leaves_a_partial_document_at_the_deadline(stream: Stream) -> None:
    stream.create_topics()
    stream.start("extract", "classify", "aggregate").wait_ready()
    stream.produce_documents(documents(20))
    stream.wait_tagged(20)
    tagged = stream.tagged()
    assert {document["status"] for document in tagged} == {"partial"}
    assert {tuple(document["missing"]) for document in tagged} == {("validate",)}
    assert {document["error"]["code"] for document in tagged} == {"deadline"}
    assert any(document["entities"] for document in tagged)
    # Late answers change nothing; and finished documents are forgotten, so the changelog can be compacted.
    validate = stream.start("validate").wait_ready()
    wait_until(lambda: stream.ends(Topic.VALIDATION_VERDICTS) == 20, what="late answers")
    wait_until(lambda: lag(stream) == 0, timeout=90, what="all committed")
    wait_until(lambda: changelog(stream) == set(), timeout=120, every=1.0, what="forgotten")
    assert len(stream.tagged()) == 20
    assert validate.stop() == 0


def changelog(stream: Stream) -> set[tuple[int, bytes]]:
    """What is left of the join's changelog when it is compacted: partition and key."""
    left: dict[tuple[int, bytes], bytes] = {}
    for record in stream.read(changelog_name(stream.settings.kafka)):
        place = (record.partition, record.key)
        left.pop(place, None)
        if record.value is not None:
            left[place] = record.value
    return set(left)


def of(stream: Stream, document: str) -> list[dict[str, Any] | None]:
    """What came out under an id; None: it was deleted."""
    return [
        None if record.value is None else orjson.loads(record.value)
        for record in stream.read(Topic.TAGGED_DOCUMENTS)
        if record.key == document.encode()
    ]


def test_a_deletion_comes_out_once_and_the_id_can_be_used_again(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    stream.produce_documents([*documents(30), {"id": "gone", "text": "Angela flew to Berlin.", "revision": 4}])
    stream.wait_tagged(31)
    stream.produce([(b"gone", None)])
    stream.wait_tagged(32)
    first, deleted = of(stream, "gone")
    assert first is not None
    assert (first["status"], first["revision"]) == ("complete", 4)
    assert deleted is None
    # Each stage's answer about the deleted document once more, and its deletion.
    for topic in (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS):
        for record in [one for one in stream.read(topic) if one.key == b"gone"]:
            stream.produce(
                [(record.key, record.value)], topic=topic, headers=record.headers, partition=record.partition
            )
    wait_until(lambda: lag(stream) == 0, timeout=90, what="all committed")
    assert len(of(stream, "gone")) == 2
    stream.produce_documents([{"id": "gone", "text": "Zoe lives in Oslo."}])
    stream.wait_tagged(33)
    *before, back = of(stream, "gone")
    assert before == [first, None]
    assert back is not None
    assert (back["status"], back["revision"], back["text"]) == ("complete", 0, "Zoe lives in Oslo.")
    assert worker.stop() == 0


def test_a_revision_supersedes_the_one_before_and_a_lower_one_comes_too_late(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()

    def revision(number: int) -> dict[str, Any]:
        return {"id": "r", "text": f"Angela flew to Berlin {number}.", "revision": number}

    stream.produce_documents([revision(1)])
    stream.wait_tagged(1)
    stream.produce_documents([revision(3), revision(2), revision(3), revision(1)])
    stream.wait_tagged(2)
    wait_until(lambda: lag(stream) == 0, timeout=90, what="all committed")
    tagged = [(one["revision"], one["text"]) for one in stream.tagged()]
    assert tagged == [(number, f"Angela flew to Berlin {number}.") for number in (1, 3)]
    assert worker.stop() == 0


# Ten seconds: on a busy machine an engine that answers at once may take three.
@pytest.mark.parametrize("stream", [{"worker": {"batch_deadline_seconds": 10.0, "max_crashes": 2}}], indirect=True)
def test_a_document_over_which_engines_hang_is_given_up_alone(stream: Stream) -> None:
    stream.create_topics()
    sent = documents(20)
    stream.produce_documents([*sent, {"id": "poison", "text": "Angela says HANG in Berlin."}])
    for _ in range(2):
        worker = stream.start("all", module="tests.integration.hanging_worker")
        assert worker.process.wait(timeout=120) == 1
        assert "an engine has not answered" in worker.log.read_text()
    last = stream.start("all", module="tests.integration.hanging_worker").wait_ready()
    stream.wait_tagged(21)
    tagged = {document["id"]: document for document in stream.tagged()}
    poison = tagged.pop("poison")
    assert (poison["status"], poison["error"]["stage"], poison["error"]["code"]) == (
        "failed",
        "classify",
        "worker-crash",
    )
    assert_exact(list(tagged.values()), sent)
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert letter.key == b"poison"
    assert find(letter.headers, "el4ner-error-code") == b"worker-crash"
    assert find(letter.headers, "el4ner-attempts") == b"2"
    assert last.stop() == 0


@pytest.mark.parametrize("stream", [{"worker": {"max_failure_run": 10, "batch_documents": 4}}], indirect=True)
async def test_too_many_failures_stop_the_worker_before_it_gives_up_on_everything(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.create_topics()

    def broken(_: Pipeline, __: Any) -> Any:
        raise EngineError("the weights are damaged")

    sent = documents(40)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "classify", broken)
        async with serving(stream, *STAGED_ROLES) as task:
            await asyncio.to_thread(stream.produce_documents, sent)
            await asyncio.wait([task], timeout=90)
        with pytest.raises(WorkerCrashedError, match=r"10 documents in a row failed.*'engine'"):
            task.result()
    given_up = {record.key.decode() for record in stream.read(Topic.DEAD_LETTERS)}
    assert len(given_up) < 10
    # The others are still there for a worker that can do it.
    async with serving(stream, *STAGED_ROLES):
        await asyncio.to_thread(stream.wait_tagged, 40)
    tagged = stream.tagged()
    # The stage stopped before it had acknowledged them, and is asked about them again: what the join has first counts.
    failed = {document["id"] for document in tagged if document["status"] == "failed"}
    assert failed <= given_up
    assert sorted(document["id"] for document in tagged) == sorted(document["id"] for document in sent)
    assert_exact(
        [document for document in tagged if document["id"] not in failed],
        [document for document in sent if document["id"] not in failed],
    )


@pytest.mark.parametrize("how", ["crash", "stop"])
@pytest.mark.parametrize(
    # Nobody's session is over in this test: who has no members any more was left.
    "stream",
    [{"kafka": {"session_timeout_seconds": 45.0}, "worker": {"shutdown_seconds": 1.0}}],
    indirect=True,
)
async def test_who_has_given_up_keeps_no_partition_though_its_end_hangs(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    stream.create_topics()
    group = app_id(stream.settings.kafka, "aggregate")
    aggregators: list[Aggregator] = []
    build, release, end = run._build, Aggregator.release, asyncio.Event()

    def noted(*args: Any, **options: Any) -> Any:
        worker = build(*args, **options)
        assert isinstance(worker, Aggregator)
        aggregators.append(worker)
        return worker

    async def hangs(self: Aggregator) -> None:
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()
        await release(self)

    def members() -> int:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=stream.bootstrap)) as admin:
            return len(admin.describe_groups([group])[group]["members"])

    monkeypatch.setattr(run, "_build", noted)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve_workers(stream.settings, ["aggregate"], stop=stop, ready=ready.set))
    await until(lambda: task.done() or ready.is_set(), what="ready, or over")
    assert not task.done(), task.exception()
    assert await asyncio.to_thread(members) == 1
    if how == "crash":
        # Nothing after it comes to an end.
        monkeypatch.setattr(Aggregator, "release", hangs)
        aggregators[0].app.fail(RuntimeError("a bug"))
    else:
        # What can be cancelled is, when its time is over.
        monkeypatch.setattr(StageApp, "stop", lambda _: asyncio.Event().wait())
        stop.set()
    await until(lambda: members() == 0, timeout=20, what="the group was left")
    assert task.done() == (how == "stop")
    monkeypatch.undo()
    end.set()
    await asyncio.wait([task], timeout=60)
    assert isinstance(task.exception(), WorkerCrashedError) == (how == "crash")
    # Its own end is over, but for what this test has held up.
    await asyncio.wait_for(aggregators[0].app.stop(), 30)


@pytest.mark.parametrize("stream", [{"worker": {"max_open_documents": 50}}], indirect=True)
async def test_no_more_documents_are_opened_than_may_be_open(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.create_topics()
    made: list[Aggregator] = []
    init = Aggregator.__init__

    def noted(self: Aggregator, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        # In production a fetch brings 500 messages: as many documents would take this test a minute.
        self.app.conf.broker_max_poll_records = 50
        made.append(self)

    monkeypatch.setattr(Aggregator, "__init__", noted)
    sent = documents(800)
    await asyncio.to_thread(stream.produce_documents, sent)
    stages = stream.start("extract", "classify")
    await until(lambda: stream.ends(Topic.TYPED_ENTITIES) == 800, timeout=120, what="all classified")
    async with serving(stream, "aggregate"):
        await until(lambda: made[0].is_holding_back, what="held back")
        # Some fetches of at most 50 messages were under way.
        assert 50 <= made[0]._partitions.open_documents <= 200
        validate = stream.start("validate")
        await asyncio.to_thread(stream.wait_tagged, 800)
        await until(lambda: made[0]._partitions.open_documents == 0, what="none is open")
        assert not made[0].is_holding_back
    assert_exact(stream.tagged(), sent)
    assert validate.stop() == stages.stop() == 0


def test_topics_that_do_not_fit_together_are_refused_with_names_and_counts(stream: Stream) -> None:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=stream.bootstrap)) as admin:
        admin.create_topics({stream.name(Topic.TYPED_ENTITIES): {"num_partitions": 3, "replication_factor": 1}})
    worker = stream.start("aggregate")
    assert worker.process.wait(timeout=30) == 2
    assert "el4ner topics create" in worker.log.read_text()
    stream.create_topics()
    worker = stream.start("aggregate")
    assert worker.process.wait(timeout=30) == 2
    said = worker.log.read_text()
    for words in (stream.name(Topic.DOCUMENTS), "has 4", stream.name(Topic.TYPED_ENTITIES), "has 3"):
        assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("stream", [{"kafka": {"bootstrap_servers": "127.0.0.1:1"}}], indirect=True)
def test_without_a_broker_the_worker_says_so(stream: Stream) -> None:
    worker = stream.start("aggregate")
    assert worker.process.wait(timeout=60) == 2
    said, remedy = worker.log.read_text().splitlines()[-2:]
    assert said == "no Kafka broker answers at 127.0.0.1:1: that is kafka.bootstrap_servers, from the configuration"
    assert "el4ner local up" in remedy


async def test_health_is_progress(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.create_topics()
    settings = stream.settings.model_copy(
        update={"worker": stream.settings.worker.model_copy(update={"web_port": 0, "stall_seconds": 0.3})}
    )
    monkeypatch.setattr(stream, "settings", settings)
    ports: list[int] = []
    started = HealthServer.start

    async def noted(server: HealthServer) -> None:
        await started(server)
        ports.append(server.port)

    monkeypatch.setattr(HealthServer, "start", noted)
    gate = asyncio.Event()
    deliver = StageApp.deliver

    async def held(app: StageApp, messages: Any, **options: Any) -> Any:
        await gate.wait()
        return await deliver(app, messages, **options)

    monkeypatch.setattr(StageApp, "deliver", held)

    async def health(path: str = "/healthz") -> tuple[int, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, body = (await reader.read()).split(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), orjson.loads(body)

    async with serving(stream, "extract"):
        assert (await health())[0] == 200
        assert (await health("/other"))[0] == 404
        await asyncio.to_thread(stream.produce_documents, documents(5))
        status, details = 200, {}
        for _ in range(100):
            status, details = await health()
            if status == 503:
                break
            await asyncio.sleep(0.1)
        assert status == 503
        assert details["stages"]["extract"]["stalled"]
        gate.set()
        for _ in range(100):
            status, details = await health()
            if status == 200 and details["stages"]["extract"]["documents"] == 5:
                break
            await asyncio.sleep(0.1)
        assert (status, details["stages"]["extract"]["documents"]) == (200, 5)
