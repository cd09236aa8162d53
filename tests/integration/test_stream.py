"""The stream over real Kafka and real worker processes: what comes in comes out, once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from tests.integration.stream_harness import STAGES, Stream, wait_until
from workers.messages import json_schemas
from workers.messages.headers import find, parse_traceparent
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


def documents(count: int, run: str = "d") -> list[dict[str, Any]]:
    """Texts with astral characters before the names, so that an offset in bytes or UTF-16 would show."""
    return [
        {
            "id": f"{run}-{number}",
            "text": f"😀 Nr {number}: Zoë Schröder of Acme Corp flew to Zürich. 𝔉red Müller stayed in York {number}.",
            "metadata": {"number": number},
        }
        for number in range(count)
    ]


def assert_exact(tagged: list[dict[str, Any]], sent: list[dict[str, Any]]) -> None:
    """As many as were sent, none twice, each with its text and with offsets that fit."""
    counted = Counter(document["id"] for document in tagged)
    assert {document for document, times in counted.items() if times > 1} == set()
    assert counted.keys() == {document["id"] for document in sent}
    texts = {document["id"]: document["text"] for document in sent}
    entities = 0
    for document in tagged:
        assert document["status"] == "complete"
        assert document["text"] == texts[document["id"]]
        for entity in document["entities"]:
            entities += 1
            assert document["text"][entity["start"] : entity["end"]] == entity["text"]
    assert entities >= len(sent)


def test_hundreds_of_documents_come_out_once_with_exact_offsets(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    sent = documents(600)
    stream.produce_documents(sent)
    stream.wait_tagged(600)
    assert worker.stop() == 0
    records = stream.read(Topic.TAGGED_DOCUMENTS)
    tagged = [orjson.loads(record.value) for record in records]
    assert_exact(tagged, sent)
    assert all(document["metadata"]["number"] == int(document["id"][2:]) for document in tagged)
    mentions = [orjson.loads(record.value) for record in stream.read(Topic.ENTITY_MENTIONS)]
    assert len(mentions) == sum(len(document["entities"]) for document in tagged)
    for topic, messages in ((Topic.TAGGED_DOCUMENTS, tagged), (Topic.ENTITY_MENTIONS, mentions)):
        for message in messages:
            json_schemas.validate(topic.value, message)
    # One trace through all stages, a span of its own for every message.
    stages = {
        topic: {orjson.loads(record.value)["document"]["id"]: record for record in stream.read(topic)}
        for topic in (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS)
    }
    for record in records[:50]:
        document = record.key.decode()
        assert find(record.headers, "ce_subject") == record.key
        candidate = parse_traceparent(stages[Topic.SPAN_CANDIDATES][document].headers)
        typed = parse_traceparent(stages[Topic.TYPED_ENTITIES][document].headers)
        verdicts = parse_traceparent(stages[Topic.VALIDATION_VERDICTS][document].headers)
        assert candidate is not None
        assert typed is not None
        assert verdicts is not None
        assert candidate.trace_id == typed.trace_id == verdicts.trace_id
        assert len({candidate.span_id, typed.span_id, verdicts.span_id}) == 3
    # After a clean stop everything is committed: nothing is done again.
    ends = {topic: stream.ends(topic) for topic in (Topic.SPAN_CANDIDATES, Topic.VALIDATION_VERDICTS)}
    committed = stream.committed("aggregate")
    for topic, end in ends.items():
        assert sum(offset for (name, _), offset in committed.items() if name == stream.name(topic)) == end


def test_kill_9_of_each_worker_in_the_middle_loses_nothing_and_repeats_nothing(stream: Stream) -> None:
    stream.create_topics()
    running = {stage: stream.start(stage) for stage in STAGES}
    for worker in running.values():
        worker.wait_ready()
    # So many that some are under way in every stage when one is killed.
    sent = documents(1_000)
    for round_, stage in enumerate(("aggregate", "extract", "validate", "classify", "aggregate")):
        stream.produce_documents(sent[round_ * 200 : (round_ + 1) * 200])
        stream.wait_tagged(round_ * 200 + 20)
        running[stage].kill()
        running[stage] = stream.start(stage)
    stream.wait_tagged(1_000)
    for worker in running.values():
        worker.wait_ready()
    # What a crash made the stages repeat has run through when nothing is behind any more.
    wait_until(lambda: lag(stream) == 0, timeout=60, what="all committed")
    assert_exact(stream.tagged(), sent)
    assert all(worker.stop() == 0 for worker in running.values())


# Nobody is killed here, so no session has to end: on a machine that stands still for some seconds one could, and what
# its process had begun would be done twice, as promised.
@pytest.mark.parametrize("stream", [{"kafka": {"session_timeout_seconds": 60.0}}], indirect=True)
def test_workers_that_join_and_leave_in_the_middle_lose_nothing_and_repeat_nothing(stream: Stream) -> None:
    stream.create_topics()
    first = stream.start("all").wait_ready()
    sent = documents(2_000)
    stream.produce_documents(sent)
    second = stream.start("all").wait_ready()
    assert first.stop() == 0
    third = stream.start("all").wait_ready()
    stream.wait_tagged(2_000)
    wait_until(lambda: lag(stream) == 0, timeout=60, what="all committed")
    assert_exact(stream.tagged(), sent)
    # A rebalance finishes what was begun before the partitions move, so nothing is even done twice.
    assert stream.ends(Topic.VALIDATION_VERDICTS) == 2_000
    assert second.stop() == third.stop() == 0


def lag(stream: Stream) -> int:
    """Messages that some stage has not committed."""
    behind = 0
    for stage, read in {
        "extract": [Topic.DOCUMENTS],
        "classify": [Topic.SPAN_CANDIDATES],
        "validate": [Topic.TYPED_ENTITIES],
        "aggregate": [Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS],
    }.items():
        committed = stream.committed(stage)
        for topic in read:
            done = sum(offset for (name, _), offset in committed.items() if name == stream.name(topic))
            behind += stream.ends(topic) - done
    return behind
