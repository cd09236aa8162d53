"""The helpers at both ends of the stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tests.integration.stream_harness import Stream
from workers.cli.app import app
from workers.config import load_stream_settings
from workers.inputs.documents import InputError, NewDocument
from workers.messages.envelope import decode
from workers.messages.headers import find, parse_traceparent
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


def test_what_was_sent_before_a_bad_record_counts_and_a_second_try_tags_nothing_twice(
    stream: Stream, tmp_path: Path
) -> None:
    """The command itself, on a file that is mended between two tries."""
    stream.create_topics()
    stream.start("all").wait_ready()
    before = end_offsets(stream.settings)
    path = tmp_path / "a.jsonl"
    good = [f'{{"text": "Berlin {number}"}}\n' for number in range(25)]
    path.write_text("".join([*good[:20], "rubbish\n", *good[21:]]))
    produce = ["produce", str(path), "--config", str(stream.config)]
    first = CliRunner().invoke(app, produce)
    assert first.exit_code == 1
    assert "20 documents were sent; to go on: --from-line 21" in first.stderr
    assert stream.ends(Topic.DOCUMENTS) == 20
    path.write_text("".join(good))
    second = CliRunner().invoke(app, produce)
    assert (second.exit_code, second.stderr.split(" in ")[0]) == (0, "25 documents sent")
    tailed = list(tail_documents(stream.settings, start=before, count=25, seconds=60))
    # Everything was tagged that was sent so far; what comes now comes after what a repetition would have led to.
    last = CliRunner().invoke(app, [*produce, "--from-line", "25", "--pool", "logs"])
    assert last.exit_code == 0
    tailed = list(tail_documents(stream.settings, start=before, count=26, seconds=60))
    assert sorted(one.value["text"] for one in tailed) == sorted([*(f"Berlin {n}" for n in range(25)), "Berlin 24"])
    assert len({one.value["id"] for one in tailed}) == 26


@pytest.mark.parametrize("stream", [{"kafka": {"max_message_bytes": 20_000}}], indirect=True)
def test_documents_that_are_sent_are_counted_whatever_ends_it(stream: Stream) -> None:
    stream.create_topics()
    confirmed: list[str] = []
    large: list[tuple[str, str]] = []

    def broken(error: BaseException) -> Iterator[NewDocument]:
        yield NewDocument("a", "Berlin")
        yield NewDocument("large", "x" * 30_000)
        yield NewDocument("b", "Paris")
        raise error

    for number, error in enumerate((InputError("no more"), KeyboardInterrupt(), MemoryError()), 1):
        with pytest.raises(type(error)):
            produce_documents(
                stream.settings,
                broken(error),
                delivered=lambda document: confirmed.append(document.id),
                too_large=lambda document, reason: large.append((document.id, reason)),
            )
        assert stream.ends(Topic.DOCUMENTS) == len(confirmed) == 2 * number
    assert set(confirmed) == {"a", "b"}
    assert {name for name, _ in large} == {"large"}
    assert "30,0" in large[0][1]
    assert "kafka.max_message_bytes is 20,000" in large[0][1]
    with pytest.raises(ProduceError, match="'large' cannot be sent"):
        produce_documents(stream.settings, broken(MemoryError()))


def test_without_a_broker_or_a_topic_one_line_says_so(stream: Stream) -> None:
    nowhere = load_stream_settings(environ={}, overrides=NOWHERE)
    with pytest.raises(ProduceError, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        produce_documents(nowhere, [])
    with pytest.raises(TailError, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        end_offsets(nowhere)
    with pytest.raises(TailError, match="does not exist"):
        end_offsets(stream.settings)
