"""The helpers at both ends of the stream."""

from __future__ import annotations

import orjson
import pytest

from tests.integration.stream_harness import Stream
from workers.config import load_stream_settings
from workers.headers import find, parse_traceparent
from workers.inputs import NewDocument
from workers.messages import decode
from workers.produce import ProduceError, produce_documents
from workers.tail import TailError, end_offsets, tail_documents
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(120),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

NOWHERE = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}}


def test_produced_documents_are_confirmed_one_by_one_and_tailed_from_where_the_topic_ended(stream: Stream) -> None:
    stream.create_topics()
    stream.start("all").wait_ready()
    before = end_offsets(stream.settings)
    assert before == {0: 0, 1: 0, 2: 0, 3: 0}
    new = [NewDocument(f"d-{number}", f"Berlin {number}", "logs", 1, {"n": number}) for number in range(30)]
    confirmed: list[NewDocument] = []
    produced = produce_documents(stream.settings, new, delivered=confirmed.append)
    assert produced.documents == 30
    assert confirmed == new
    tailed = list(tail_documents(stream.settings, start=before, count=30, seconds=60))
    assert {one.value["id"] for one in tailed} == {document.id for document in new}
    assert {one.status for one in tailed} == {"complete"}
    for one in tailed:
        assert one.document is not None
        assert one.document.pool == "logs"
        assert one.value["revision"] == 1
    sent = {record.key.decode(): record for record in stream.read(Topic.DOCUMENTS)}
    for one in tailed:
        record = sent[one.value["id"]]
        decode(Topic.DOCUMENTS, record.value)
        trace = parse_traceparent(record.headers)
        assert trace is not None
        assert find(record.headers, "ce_type") == b"el4ner.documents.v1"
        assert orjson.loads(record.value)["metadata"] == one.value["metadata"]
    # One trace from the document that was produced to the one that came out.
    assert {one.trace_id for one in tailed} == {
        trace.trace_id for record in sent.values() if (trace := parse_traceparent(record.headers)) is not None
    }
    assert list(tail_documents(stream.settings, start="latest", seconds=0.5)) == []
    assert len(list(tail_documents(stream.settings, start="earliest", count=7))) == 7


def test_without_a_broker_or_a_topic_one_line_says_so(stream: Stream) -> None:
    nowhere = load_stream_settings(environ={}, overrides=NOWHERE)
    with pytest.raises(ProduceError, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        produce_documents(nowhere, [])
    with pytest.raises(TailError, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        end_offsets(nowhere)
    with pytest.raises(TailError, match="does not exist"):
        end_offsets(stream.settings)
