"""Documents that a producer writes in transactions, and readers whose topics end with marks or with an open one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer

from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import lag
from workers.dead_letters.listing import read_letters
from workers.join.changelog import Remembered, closed_record, read_changelog
from workers.join.rules import Closed
from workers.tail import end_offsets, tagged_until_now, tail_documents
from workers.topics import Topic, changelog_name

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


@contextlib.contextmanager
def transactional(stream: Stream, name: str) -> Iterator[Any]:
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=stream.bootstrap, transactional_id=f"{stream.prefix}{name}")
    ) as producer:
        producer.init_transactions()
        yield producer


def write(producer: Any, topic: str, ids: Sequence[str], *, partition: int = 0) -> None:
    """Begin a transaction and write; it stays open."""
    producer.begin_transaction()
    for name in ids:
        value = orjson.dumps({"id": name, "text": f"Ada Lovelace of {name} went to York."})
        producer.send(topic, key=name.encode(), value=value, partition=partition).get(timeout=30)


def tagged(stream: Stream) -> list[str]:
    return sorted(document["id"] for document in stream.tagged())


def test_documents_of_a_transaction_are_tagged_when_it_is_committed_and_never_when_it_is_aborted(
    stream: Stream,
) -> None:
    stream.create_topics()
    documents = stream.name(Topic.DOCUMENTS)
    worker = stream.start("all").wait_ready()
    with transactional(stream, "first") as producer, transactional(stream, "second") as second:
        write(producer, documents, ["committed-1", "committed-2", "committed-3"])
        producer.commit_transaction()
        write(producer, documents, ["aborted-1", "aborted-2"])
        producer.abort_transaction()
        write(second, documents, ["open"])
        # Kafka keeps the order of a partition: what lies behind an open transaction waits for it.
        stream.produce([(b"behind", b'{"text": "Ada Lovelace went to York."}')], partition=0)
        # Whatever a partition ends with, all that can be read is committed: three documents and their mark, two that
        # were taken back and theirs.
        wait_until(lambda: stream.committed("extract").get((documents, 0)) == 7, what="committed to the stable end")
        stream.wait_tagged(3)
        wait_until(lambda: lag(stream) == 0, what="nothing behind")
        assert tagged(stream) == ["committed-1", "committed-2", "committed-3"]
        assert [one.value["id"] for one in tagged_until_now(stream.settings)] == [
            "committed-1",
            "committed-2",
            "committed-3",
        ]
        second.commit_transaction()
        stream.wait_tagged(5)
        write(second, documents, ["aborted-3"])
        second.abort_transaction()
    # A partition that ends with what was taken back is not behind, and nobody waits for it.
    wait_until(lambda: lag(stream) == 0, what="nothing behind")
    assert worker.stop() == 0
    assert tagged(stream) == ["behind", "committed-1", "committed-2", "committed-3", "open"]
    assert stream.read(Topic.DEAD_LETTERS) == []


def test_readers_end_at_the_last_stable_offset_with_an_open_transaction_behind_it(stream: Stream) -> None:
    stream.create_topics()
    letters, outcomes = stream.name(Topic.DEAD_LETTERS), stream.name(Topic.TAGGED_DOCUMENTS)
    changelog = changelog_name(stream.settings.kafka)
    key, value = closed_record(Remembered(3, 10**15, (("known", Closed(0, 0, 0, "complete")),)))
    stream.produce([(b"a-letter", b"kept")], topic=Topic.DEAD_LETTERS, partition=0)
    with transactional(stream, "writer") as writer:
        writer.begin_transaction()
        writer.send(changelog, key=key, value=value, partition=0).get(timeout=30)
        writer.commit_transaction()
        for topic in (letters, outcomes, changelog):
            write(writer, topic, ["aborted"])
            writer.abort_transaction()
        writer.begin_transaction()
        for topic in (letters, outcomes, changelog):
            writer.send(topic, key=b"open", value=b"{}", partition=0).get(timeout=30)
        # Each of these waited for what cannot be read yet if it went to the end of the log.
        assert [letter.value for letter in read_letters(stream.settings)] == [b"kept"]
        assert list(tagged_until_now(stream.settings)) == []
        assert end_offsets(stream.settings)[0] == 2, "a message that was taken back, and the mark that says so"
        assert list(tail_documents(stream.settings, start="earliest", seconds=0.5)) == []
        recovered = asyncio.run(read_changelog(stream.settings.kafka, changelog, 0))
        assert set(recovered.done) == {3}
        writer.abort_transaction()
