"""What the aggregator reads from a message, and what it emits about a document: the parts without Kafka."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.serialize import dumps, entities_to_json, tagged_to_json
from el4ner.types import DocumentEntities, TaggedDocument
from tests.unit import strategies
from workers import schemas
from workers.aggregate import _Due, join_of, read_part
from workers.config import load_stream_settings
from workers.headers import find
from workers.join import AnswerPart, Deletion, DocumentPart, State
from workers.messages import Record
from workers.outputs import mentions, normalise, tagged_document
from workers.topics import Topic

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def record(topic: Topic, value: bytes | None, key: bytes | None = b"d") -> Record:
    return Record(topic, topic.value, 1, 9, 0, key, value)


def part(topic: Topic, value: bytes | None, **options: Any) -> Any:
    return read_part(record(topic, value, **options), max_document_chars=50)


def random(count: int) -> bytes:
    return b"\x01" * count


def test_documents() -> None:
    assert part(Topic.DOCUMENTS, b'{"text": "t", "pool": "p", "revision": 2, "metadata": {}}') == DocumentPart(
        "d", 2, "t", "p", {}
    )
    assert part(Topic.DOCUMENTS, None) == Deletion("d")
    assert part(Topic.DOCUMENTS, None, key=None) == Deletion("documents-1-9")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"rubbish", DocumentPart("d", 0, None)),
        (b'{"id": "own", "revision": 4}', DocumentPart("own", 4, None)),
        (dumps({"text": "t" * 51}), DocumentPart("d", 0, None)),
    ],
)
def test_a_document_that_extraction_refuses_is_seen_without_its_text(value: bytes, expected: DocumentPart) -> None:
    assert part(Topic.DOCUMENTS, value) == expected


@given(strategies.document_entities())
def test_answers(result: DocumentEntities) -> None:
    value = {"stage": "validate", "status": "ok", **entities_to_json(result)}
    found = part(Topic.VALIDATION_VERDICTS, dumps(value))
    assert isinstance(found, AnswerPart)
    assert (found.id, found.revision, found.stage) == (result.document.id, result.document.revision, "validate")


def test_an_answer_that_cannot_be_read_is_left_to_others() -> None:
    assert part(Topic.TYPED_ENTITIES, b"rubbish") is None
    assert part(Topic.TYPED_ENTITIES, None) is None


@given(strategies.document_entities(), st.booleans())
def test_the_join_of_real_values_is_a_valid_message(result: DocumentEntities, by_deadline: bool) -> None:
    join = join_of(load_stream_settings(environ={}))
    document = result.document
    answer = AnswerPart(
        document.id,
        document.revision,
        "validate",
        orjson.loads(dumps({"stage": "validate", "status": "ok", **entities_to_json(result)})),
    )
    state: State | None = join.apply(None, answer, partition=0, now=0)
    assert state is not None
    if by_deadline:
        state = join.expire(document.id, state, now=10**9)
    else:
        state = join.apply(
            state, DocumentPart(document.id, document.revision, document.text, document.pool), partition=0, now=0
        )
        for stage in ("extract", "classify"):
            body = {**answer.body, "sentences": [], "stage": stage}
            state = join.apply(state, AnswerPart(document.id, document.revision, stage, body), partition=0, now=0)
    assert state is not None
    schemas.validate("joins", orjson.loads(dumps(state)))
    tagged = state["tagged"]
    assert tagged["status"] == ("partial" if by_deadline else "complete")
    schemas.validate("tagged-documents", orjson.loads(dumps(tagged)))
    for entity in tagged["entities"]:
        assert tagged["text"][entity["start"] : entity["end"]] == entity["text"]


@given(strategies.tagged_documents())
def test_every_mention_is_valid_and_named_by_what_it_is(tagged: TaggedDocument) -> None:
    value = {
        **tagged_to_json(tagged),
        "revision": 1,
        "status": "complete",
        "manifests": {},
        "missing": [],
        "error": None,
    }
    messages = mentions(value, trace=TRACE, now_ms=0, random=random)
    assert len(messages) == len(tagged.entities)
    for message, entity in zip(messages, tagged.entities, strict=True):
        mention = orjson.loads(message.value or b"")
        schemas.validate("entity-mentions", mention)
        assert message.key == f"{entity.type}:{normalise(entity.text)}".encode()
        assert message.partition is None
    again = mentions(value, trace=None, now_ms=5, random=random)
    assert [find(message.headers, "ce_id") for message in messages] == [
        find(message.headers, "ce_id") for message in again
    ]
    whole = tagged_document(value, partition=3, trace=TRACE, now_ms=0, random=random)
    schemas.validate("tagged-documents", orjson.loads(whole.value or b""))
    assert (whole.key, whole.partition) == (tagged.id.encode(), 3)
    assert TRACE.split("-")[1].encode() in (find(whole.headers, "traceparent") or b"")


def test_surfaces_are_normalised_for_comparison() -> None:
    assert normalise("  Ｂerlin\n STRASSE ") == normalise("berlin straße") == "berlin strasse"


def test_what_is_due_is_looked_at_once_and_in_its_partition_only() -> None:
    due = _Due()
    due.add(0, 10, "a")
    due.add(0, 5, "a")
    due.add(0, 20, "b")
    due.add(1, 5, "c")
    assert due.partitions(4) == []
    assert due.partitions(10) == [0, 1]
    assert due.pop(0, 10) == ["a"]
    assert due.pop(0, 10) == []
    assert due.pop(2, 10) == []
    assert due.pop(0, 20) == ["b"]
    due.clear()
    assert due.partitions(100) == []
