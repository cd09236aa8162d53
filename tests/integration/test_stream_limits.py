"""Answers that are larger than their topics allow, and what a broker refuses: each is its own document's failure."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from kafka.admin import ConfigResource, KafkaAdminClient

from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import assert_exact, documents, lag
from workers.messages.headers import find
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

RAISED = {"method": {"max_document_chars": 2_000_000, "max_spans": 300_000, "max_sentences": 100_000}}


@pytest.mark.parametrize("stream", [RAISED], indirect=True)
def test_a_document_whose_answer_is_too_large_for_its_topic_is_a_dead_letter_that_names_the_limit(
    stream: Stream,
) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    # Documents at these limits would not fit, and that is said at once.
    (warning,) = [line["event"] for line in worker.lines() if "method.max_spans = 300000" in str(line.get("event"))]
    for word in ("16,711,680", "method.max_document_chars = 2000000", "output-too-large"):
        assert word in warning
    sent = documents(20)
    stream.produce_documents(sent[:10])
    stream.produce_documents([{"id": "huge", "text": "Ola Renn, " * 92_000}])
    stream.produce_documents(sent[10:])
    stream.wait_tagged(21, timeout=180)
    wait_until(lambda: lag(stream) == 0, what="all committed")
    # Nobody died of it.
    assert worker.stop() == 0
    tagged = {document["id"]: document for document in stream.tagged()}
    huge = tagged.pop("huge")
    assert_exact(list(tagged.values()), sent)
    assert huge["status"] in {"partial", "failed"}
    assert huge["error"]["code"] == "output-too-large"
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert find(letter.headers, "el4ner-error-code") == b"output-too-large"
    said = (find(letter.headers, "el4ner-error-message") or b"").decode()
    for word in ("max.message.bytes is", "16,777,216", "16,711,680", "kafka.max_message_bytes", "method.max_spans"):
        assert word in said
    # What the stage could not answer, byte for byte: too large for many a tool, but not for its topic.
    assert find(letter.headers, "el4ner-topic") == stream.name(Topic.SPAN_CANDIDATES).encode()
    (read,) = [record for record in stream.read(Topic.SPAN_CANDIDATES) if record.key == b"huge"]
    assert len(letter.value) > 5_000_000
    assert (letter.key, letter.value, letter.headers[: len(read.headers)]) == (read.key, read.value, read.headers)


def allow(stream: Stream, topic: Topic, size: int) -> None:
    """Change what the topic takes, while workers run."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=stream.bootstrap)) as admin:
        admin.alter_configs([ConfigResource("topic", stream.name(topic), {"max.message.bytes": str(size)})])


@pytest.mark.parametrize("topic", [Topic.TYPED_ENTITIES, Topic.TAGGED_DOCUMENTS])
def test_what_a_broker_refuses_is_its_documents_failure_and_the_worker_goes_on(stream: Stream, topic: Topic) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    sent = documents(40)
    stream.produce_documents(sent[:10])
    stream.wait_tagged(10)
    # As somebody does it by hand; what the worker read at its start is not true any more.
    allow(stream, topic, 4_000)
    large = {"id": "large", "text": "Zoë Schröder of Acme Corp flew to Zürich. " * 200}
    stream.produce_documents([*sent[10:20], large, *sent[20:30]])
    stream.wait_tagged(31)
    allow(stream, topic, 16_000_000)
    stream.produce_documents(sent[30:])
    stream.wait_tagged(41)
    wait_until(lambda: lag(stream) == 0, what="all committed")
    assert worker.stop() == 0
    tagged = {document["id"]: document for document in stream.tagged()}
    assert tagged.pop("large")["error"]["code"] == "output-too-large"
    assert_exact(list(tagged.values()), sent)
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert find(letter.headers, "el4ner-document-id") == b"large"
    said = (find(letter.headers, "el4ner-error-message") or b"").decode()
    assert stream.name(topic) in said
    assert "max.message.bytes" in said
    assert orjson.loads(letter.value)["document"]["id"] == "large"
