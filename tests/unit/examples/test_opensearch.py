"""What can be known of ``examples/opensearch`` without Kafka and OpenSearch. The rest is in ``tests/integration``."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import GroupAuthorizationFailedError
from opensearchpy import ConnectionError as NoConnection
from opensearchpy import JSONSerializer, RequestError

from el4ner.errors import MessageError
from examples.opensearch.documents_sink import DocumentsSink, SinkError, client_of
from examples.opensearch.indexed_documents import (
    IndexedState,
    TaggedMessage,
    index_id,
    operation,
    read_message,
    settled,
)
from examples.opensearch.processes import OPENSEARCH
from examples.opensearch.run import shown
from tests.support.paths import ROOT
from tests.support.tagged_topic import tagged

FOLDER = ROOT / "examples" / "opensearch"


def message(offset: int, revision: int | None, *, partition: int = 0, timestamp_ms: int | None = None) -> TaggedMessage:
    """``revision``: None deletes."""
    return TaggedMessage(
        document_id="a",
        value=None if revision is None else tagged("a", "Ada", ("Ada", "person"), revision=revision),
        partition=partition,
        offset=offset,
        timestamp_ms=offset if timestamp_ms is None else timestamp_ms,
    )


def indexed(outcome: TaggedMessage | IndexedState | None) -> IndexedState | None:
    """The state of the index once the outcome is written."""
    if outcome is None or isinstance(outcome, IndexedState):
        return outcome
    assert outcome.value is not None
    return IndexedState(
        revision=outcome.value["revision"],
        partition=outcome.partition,
        offset=outcome.offset,
        timestamp_ms=outcome.timestamp_ms,
        seq_no=0,
        primary_term=1,
    )


@given(
    st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=4),
)
def test_batches_and_repeats_change_nothing(revisions: list[int | None], read: list[tuple[int, int]]) -> None:
    """``read``: where a batch ends, and from where on messages come again after it."""
    topic = [message(offset, revision) for offset, revision in enumerate(revisions)]
    state, position = None, 0
    for end, again in [*read, (len(topic), 0)]:
        state = indexed(settled(topic[position:end], state))
        position = min(max(position, end), again)
    assert state == indexed(settled(topic, None))


def test_the_highest_revision_stays_and_a_deletion_ends_it() -> None:
    assert indexed(settled([message(1, 3), message(2, 4), message(3, 3)], None)) == indexed(message(2, 4))
    assert settled([message(1, 7), message(2, None)], None) is None
    assert indexed(settled([message(1, 7), message(2, None), message(3, 0)], None)) == indexed(message(3, 0))


def test_what_is_there_already_is_not_written_again() -> None:
    state = indexed(message(5, 1))
    assert settled([message(5, 1)], state) is state
    assert settled([message(4, None), message(5, 1)], state) is state


def test_a_topic_that_was_made_anew_or_has_more_partitions_is_not_taken_for_an_old_one() -> None:
    state = indexed(message(500, 1))
    anew = message(3, 1, timestamp_ms=900)
    moved = message(3, 1, partition=7, timestamp_ms=900)
    assert settled([anew], state) is anew
    assert settled([moved], state) is moved
    # Whoever reads everything again may meet a document's newer partition first.
    assert settled([message(500, 1), message(501, None)], indexed(moved)) == indexed(moved)


def test_an_operation_names_the_state_that_it_was_decided_for() -> None:
    state = indexed(message(5, 1))
    assert operation(message(6, 1), None, "a")["_op_type"] == "create"
    assert operation(message(6, 1), state, "a") | {"_op_type": "index", "if_seq_no": 0} == operation(
        message(6, 1), state, "a"
    )
    assert operation(None, state, "a") == {"_op_type": "delete", "_id": "a", "if_seq_no": 0, "if_primary_term": 1}


def test_every_field_of_a_document_is_in_the_index_that_takes_no_others() -> None:
    mapping = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))["mappings"]
    assert mapping["dynamic"] == "strict"
    example = json.loads((ROOT / "schemas" / "examples" / "tagged-documents.v1.complete.json").read_text())
    example["entities"][0]["entity_id"] = "0" * 32
    source = operation(TaggedMessage(document_id="a", value=example, partition=0, offset=0, timestamp_ms=0), None, "a")[
        "_source"
    ]
    assert source.keys() == mapping["properties"].keys()
    assert source["entities"][0].keys() == mapping["properties"]["entities"]["properties"].keys()


def test_a_long_id_is_a_short_one_in_the_index() -> None:
    assert index_id("a" * 512) == "a" * 512
    assert index_id("é" * 512) != index_id("é" * 511)
    assert len(index_id("é" * 512)) < 100


def test_what_is_no_tagged_document_is_said_so() -> None:
    record = SimpleNamespace(key=b"a", value=b"\x00\x00\x00\x00\x01{}", partition=0, offset=3, timestamp=0)
    with pytest.raises(MessageError):
        read_message(record)
    sink = DocumentsSink(None, Away(), "documents")
    with pytest.raises(SinkError, match=r"(?s)offset 3 of partition 0 is no tagged document.*--skip 0:3"):
        sink._read([record])


@pytest.mark.parametrize(("key", "reason"), [(None, "no key"), (b"", "no key"), (b"\xff", "not UTF-8")])
def test_a_message_that_names_no_document_is_said_so(key: bytes | None, reason: str) -> None:
    record = SimpleNamespace(key=key, value=None, partition=1, offset=3, timestamp=0)
    with pytest.raises(SinkError, match=rf"(?s)offset 3 of partition 1 .*{reason}.*--skip 1:3"):
        DocumentsSink(None, Away(), "documents")._read([record])  # type: ignore[arg-type]


def test_kafka_s_errors_are_said_so() -> None:
    class Refusing:
        def poll(self, **_: Any) -> Any:
            raise GroupAuthorizationFailedError("el4ner-opensearch")

    with pytest.raises(SinkError, match=r"Kafka cannot be read: .*el4ner-opensearch"):
        DocumentsSink(Refusing(), Away(), "documents").run(threading.Event())  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["https://search:port", "https://", "https://[::1"])
def test_an_address_that_is_none_is_said_so(url: str) -> None:
    with pytest.raises(SinkError, match="OPENSEARCH_URL is no address"):
        client_of({"OPENSEARCH_URL": url})


def test_a_file_of_authorities_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("absent.pem", "empty.pem"):
        with pytest.raises(SinkError, match=f"OPENSEARCH_CA_FILE=.*{name} cannot be used"):
            client_of({"OPENSEARCH_URL": "https://search:9200", "OPENSEARCH_CA_FILE": str(tmp_path / name)})


class Answering:
    """An OpenSearch without documents, which answers each operation of a bulk request with ``status``."""

    transport = SimpleNamespace(serializer=JSONSerializer())

    def __init__(self, status: int) -> None:
        self.status = status

    def mget(self, *, body: Any, **_: Any) -> Any:
        return {"docs": [{"_id": name, "found": False} for name in body["ids"]]}

    def bulk(self, *, body: str, **_: Any) -> Any:
        error = {"type": "some_exception", "reason": "of its own"}
        actions = [next(iter(line.items())) for line in map(json.loads, body.splitlines()) if len(line) == 1]
        return {"items": [{name: {**action, "status": self.status, "error": error}} for name, action in actions]}


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_document_that_is_not_taken_is_never_passed_over(status: int) -> None:
    sink = DocumentsSink(None, Answering(status), "documents")  # type: ignore[arg-type]
    with pytest.raises(SinkError, match=r"offset 7 of partition 0, document 'a': some_exception: of its own"):
        sink.write([message(7, 0)], threading.Event())


@pytest.mark.parametrize("status", [409, 429, 503])
def test_why_a_document_is_not_taken_is_told_in_the_end(status: int) -> None:
    sink = DocumentsSink(None, Answering(status), "documents", patience_seconds=0.0)  # type: ignore[arg-type]
    with pytest.raises(SinkError, match="has not taken a batch for 0 s: some_exception: of its own"):
        sink.write([message(7, 0)], threading.Event())


class Away:
    """An OpenSearch of which every request fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or NoConnection("N/A", "refused", OSError("refused"))
        self.asked = 0

    def mget(self, **_: Any) -> Any:
        self.asked += 1
        raise self.error


def test_an_opensearch_that_is_away_is_asked_again_and_then_told_of() -> None:
    away = Away()
    sink = DocumentsSink(None, away, "documents", patience_seconds=0.05)  # type: ignore[arg-type]
    with pytest.raises(SinkError, match=r"has not taken a batch for 0\.05 s: .*refused"):
        sink.write([message(0, 0)], threading.Event())
    assert away.asked > 1


def test_a_request_that_is_refused_is_not_asked_again() -> None:
    away = Away(RequestError(400, "illegal_argument_exception", {}))
    with pytest.raises(SinkError, match="refuses a request"):
        DocumentsSink(None, away, "documents").write([message(0, 0)], threading.Event())  # type: ignore[arg-type]
    assert away.asked == 1


def test_the_end_does_not_wait_for_an_opensearch_that_is_away() -> None:
    stop = threading.Event()
    stop.set()
    DocumentsSink(None, Away(), "documents").write([message(0, 0)], stop)  # type: ignore[arg-type]


def test_no_password_is_shown() -> None:
    assert shown("https://el4ner:sec@ret@search:9200") == "https://search:9200"
    assert shown("http://localhost:9200") == "http://localhost:9200"


def test_the_docs_name_the_version_that_the_tests_run() -> None:
    assert f"tested with {OPENSEARCH.version}" in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


def test_the_readme_names_every_file() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        if not path.name.startswith(("_", "README")):
            assert f"`{Path(path).name}" in readme, path.name
