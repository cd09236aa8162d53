"""A stage's logic, without Kafka: who gets an answer, who a dead letter, and what is carried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given

from el4ner.errors import DocumentError, MessageError
from el4ner.serialize import candidates_to_json, dumps, types_to_json
from el4ner.types import Document, DocumentCandidates, DocumentEntities, DocumentTypes, Manifest, Mode
from tests.support import strategies
from tests.support.answers import TIME, TRACE, deletions, journey, random
from workers.config import KafkaSettings
from workers.messages import json_schemas
from workers.messages.envelope import Origin, Outgoing, Record, decode, document_id, origin_of
from workers.messages.headers import find, parse_traceparent
from workers.stages.isolation import Result
from workers.stages.stage import Deleted, Failure, StageAnswer, Work
from workers.stages.table import CLASSIFY, EXTRACT, STAGE_TABLE, VALIDATE, reading
from workers.topics import Topic

MANIFEST = Manifest(Mode.SCORED, {"a": "1"}, "v1", "news", "f", "r")
NOW = 1_700_000_000_000


def record(
    value: bytes | None, *, key: bytes | None = b"key", topic: Topic = Topic.DOCUMENTS, offset: int = 7
) -> Record:
    return Record(
        topic, f"p.{topic.value}", 2, offset, 123, key, value, (("own", b"1"), ("traceparent", TRACE.encode()))
    )


def read(value: Any, **options: Any) -> Any:
    return EXTRACT.read(record(dumps(value), **options), max_document_chars=100)


def only(messages: Sequence[Outgoing], topic: Topic) -> Outgoing:
    (message,) = [message for message in messages if message.topic is topic]
    return message


def give_up(failure: Any) -> StageAnswer:
    assert isinstance(failure, Failure)
    return EXTRACT.give_up(failure, now_ms=NOW, random=random)


# --- whose document is it ---


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        ({"text": "t", "id": "own"}, b"key", "own"),
        ({"text": "t"}, b"key", "key"),
        ({"text": "t"}, "schlüssel".encode(), "schlüssel"),
        ({"text": "t"}, None, "p.documents-2-7"),
        ({"text": "t"}, b"", "p.documents-2-7"),
        ({"text": "t"}, b"\xff", "p.documents-2-7"),
        ({"text": "t"}, b"k" * 2_000, "p.documents-2-7"),
        ({"id": "own"}, b"key", "own"),
        ({"id": 5}, b"key", "key"),
        ([], b"key", "key"),
        (None, b"key", "key"),
    ],
)
def test_a_document_is_named_by_its_value_else_its_key_else_its_place(
    value: Any, key: bytes | None, expected: str
) -> None:
    assert document_id(record(b"", key=key), value) == expected


# --- reading ---


def test_a_document_becomes_work() -> None:
    work = read({"text": "Zürich", "pool": "logs", "revision": 3, "unknown": [1]})
    assert isinstance(work, Work)
    assert work.item == Document("key", "Zürich", "logs", 3)


def test_metadata_may_be_nested_deep() -> None:
    deep = orjson.loads(b"[" * 199 + b"]" * 199)
    work = read({"text": "t", "metadata": {"a": deep, "b": [[]] * 300}})
    assert isinstance(work, Work)
    assert work.carried["metadata"] == {"a": deep, "b": [[]] * 300}


def test_a_documents_own_fields_mean_nothing() -> None:
    """A later stage passes over answers that say so; a document may have fields of any name."""
    assert isinstance(read({"text": "t", "status": "failed"}), Work)


def test_a_null_value_deletes() -> None:
    for stage in STAGE_TABLE.values():
        null = record(None, topic=stage.input)
        assert stage.read(null, max_document_chars=1) == Deleted(null, "key")


def test_documents_are_found_inside_other_messages() -> None:
    stage = reading(
        EXTRACT, KafkaSettings(text_path="after.body", id_path=("after.id", "before.id"), revision_path="ts_ms")
    )
    assert reading(CLASSIFY, KafkaSettings(text_path="after.body")) == CLASSIFY

    def seen(value: Any, **options: Any) -> Any:
        return stage.read(record(dumps(value), **options), max_document_chars=100)

    work = seen({"after": {"id": 7, "body": "Ada"}, "ts_ms": 3, "pool": "unread"})
    assert (work.document, work.carried) == (Document("7", "Ada", revision=3), {})
    gone = seen({"before": {"id": 8}, "after": None, "ts_ms": 4})
    assert isinstance(gone, Deleted)
    assert gone.document == "8"
    failure = seen({"after": {"id": "x"}, "ts_ms": 5})
    assert (failure.document, failure.revision, failure.error.code) == ("x", 5, "schema")
    letter = only(stage.give_up(failure, now_ms=NOW, random=random).messages, Topic.DEAD_LETTERS)
    assert letter.value == dumps({"after": {"id": "x"}, "ts_ms": 5})
    assert seen(["text"]).error.code == "schema"
    assert stage.read(record(b"\0\0\0\0\1{"), max_document_chars=9).error.code == "json"


def test_what_el4ner_sends_itself_is_no_message_of_somebody_else() -> None:
    stage = reading(EXTRACT, KafkaSettings(text_path="after.body"))
    own = replace(record(dumps({"text": "Ada", "id": "own"})), headers=(("ce_type", b"el4ner.documents.v1"),))
    assert stage.read(own, max_document_chars=9).document == Document("own", "Ada")
    wrong = stage.read(replace(own, value=dumps({"id": "own", "text": 5})), max_document_chars=9)
    assert (wrong.document, wrong.error.code) == ("own", "schema")


@pytest.mark.parametrize(
    ("value", "code", "place"),
    [
        (b"not json", "json", "JSON"),
        (b'{"text": "\xff"}', "encoding", "byte 10"),
        (b"{}", "schema", "text"),
        (b'{"text": 5}', "schema", "/text"),
        (b'{"text": "a", "revision": -1}', "schema", "/revision"),
        (b"[]", "schema", "/"),
        (b"", "json", "JSON"),
        (b'{"text": "a", "metadata": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}", "schema", "/metadata"),
        (b'{"text": "a", "metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}", "schema", "/metadata"),
        (dumps({"text": "a" * 101}), "document-too-long", "101"),
    ],
)
def test_a_broken_document_is_a_dead_letter_byte_for_byte_and_a_failed_answer(
    value: bytes, code: str, place: str
) -> None:
    broken = record(value)
    answer = give_up(EXTRACT.read(broken, max_document_chars=100))
    letter = only(answer.messages, Topic.DEAD_LETTERS)
    assert (letter.key, letter.value) == (broken.key, value)
    assert letter.headers[:2] == broken.headers
    reasons = {name: text.decode() for name, text in letter.headers if name.startswith("el4ner-")}
    json_schemas.validate("dead-letters", reasons)
    assert reasons["el4ner-error-code"] == code
    assert place in reasons["el4ner-error-message"]
    assert (reasons["el4ner-topic"], reasons["el4ner-partition"], reasons["el4ner-offset"]) == ("p.documents", "2", "7")
    assert (reasons["el4ner-timestamp"], reasons["el4ner-attempts"]) == ("123", "1")
    failed = only(answer.messages, Topic.SPAN_CANDIDATES)
    body = decode(failed.topic, failed.value or b"")
    assert body["status"] == "failed"
    assert body["document"]["id"] == "key"
    assert body["error"]["code"] == code
    assert failed.partition == 2


def test_the_reason_in_a_dead_letter_is_bounded() -> None:
    failure = Failure(record(b"x"), "key", 0, None, None, DocumentError("r" * 5_000))
    for message in give_up(failure).messages:
        assert sum(len(value) for _, value in message.headers) < 3_000


def test_an_earlier_failure_is_somebody_elses_answer() -> None:
    failure = give_up(read({}))
    value = only(failure.messages, Topic.SPAN_CANDIDATES).value
    assert CLASSIFY.read(record(value, topic=Topic.SPAN_CANDIDATES), max_document_chars=9) is None


@pytest.mark.parametrize(
    ("value", "key", "whose"),
    [
        (b"rubbish", b"key", "key"),
        (b'{"document": {"id": "own"}}', b"key", "own"),
        (b"rubbish", None, None),
    ],
)
def test_an_unreadable_answer_fails_the_document_if_it_is_known_whose(
    value: bytes, key: bytes | None, whose: str | None
) -> None:
    failure = CLASSIFY.read(record(value, key=key, topic=Topic.SPAN_CANDIDATES), max_document_chars=9)
    assert isinstance(failure, Failure)
    answer = CLASSIFY.give_up(failure, now_ms=NOW, random=random)
    topics = [message.topic for message in answer.messages]
    assert topics == [Topic.DEAD_LETTERS] + ([] if whose is None else [Topic.TYPED_ENTITIES])
    assert answer.document == whose


# --- answering ---


@given(strategies.document_candidates())
def test_what_extraction_says_classification_reads(result: DocumentCandidates) -> None:
    document = result.document
    work = Work(record(b"", offset=1), document, document)
    answer = EXTRACT.answer(work, Result(result), now_ms=NOW, random=random)
    (message,) = answer.messages
    json_schemas.validate("span-candidates", orjson.loads(message.value or b""))
    again = CLASSIFY.read(record(message.value, topic=Topic.SPAN_CANDIDATES), max_document_chars=100)
    assert isinstance(again, Work)
    assert again.item == result


@given(strategies.document_types())
def test_what_classification_says_validation_reads(result: DocumentTypes) -> None:
    work = Work(record(b""), result.document, DocumentCandidates(result.document, MANIFEST, ()))
    (message,) = CLASSIFY.answer(work, Result(result), now_ms=NOW, random=random).messages
    json_schemas.validate("typed-entities", orjson.loads(message.value or b""))
    again = VALIDATE.read(record(message.value, topic=Topic.TYPED_ENTITIES), max_document_chars=100)
    assert isinstance(again, Work)
    assert again.item == result


@given(strategies.document_entities())
def test_what_validation_says_is_valid(result: DocumentEntities) -> None:
    work = Work(record(b""), result.document, DocumentTypes(result.document, MANIFEST, ()))
    (message,) = VALIDATE.answer(work, Result(result), now_ms=NOW, random=random).messages
    json_schemas.validate("validation-verdicts", orjson.loads(message.value or b""))


def test_an_answer_goes_to_its_documents_partition_in_its_trace_with_a_repeatable_id() -> None:
    def message() -> Outgoing:
        work = read({"id": "größe", "text": "t"})
        result = DocumentCandidates(work.document, MANIFEST, ())
        return EXTRACT.answer(work, Result(result), now_ms=NOW, random=random).messages[0]

    first = message()
    assert first.partition == 2
    assert first.key == "größe".encode()
    assert find(first.headers, "ce_id") == find(message().headers, "ce_id")
    assert find(first.headers, "ce_type") == b"el4ner.span-candidates.v1"
    trace = parse_traceparent(first.headers)
    assert trace is not None
    assert trace.trace_id == TRACE.split("-")[1]
    assert trace.span_id != TRACE.split("-")[2]


# --- what is carried from stage to stage ---


def test_every_answer_says_who_produced_the_stages_before_it_and_what_came_with_the_document() -> None:
    before: dict[str, Any] = {}
    for stage, message in journey().items():
        body = decode(message.topic, message.value or b"")
        assert body.get("manifests", {}) == before
        assert body["metadata"] == {"n": 1}
        before[stage] = body["producer"]


def test_a_failure_carries_it_on_too() -> None:
    body = decode(Topic.VALIDATION_VERDICTS, journey(fails="validate")["validate"].value or b"")
    assert body["status"] == "failed"
    assert sorted(body["manifests"]) == ["classify", "extract"]
    assert body["metadata"] == {"n": 1}


def test_a_document_that_is_too_long_keeps_its_metadata_but_not_its_text() -> None:
    answer = give_up(read({"text": "t" * 101, "metadata": {"n": 1}}))
    body = decode(Topic.SPAN_CANDIDATES, only(answer.messages, Topic.SPAN_CANDIDATES).value or b"")
    assert (body["document"]["text"], body["metadata"]) == (None, {"n": 1})


@pytest.mark.parametrize("fails", [None, "extract", "classify", "validate"])
def test_headers_tell_the_join_what_it_needs_without_the_value(fails: str | None) -> None:
    answers = journey("größe", 3, origin=Origin(41), fails=fails)
    for stage, message in answers.items():
        status = b"failed" if stage == fails else b"ok"
        found = {name: find(message.headers, name) for name in ("ce_subject", "el4ner-revision", "el4ner-status")}
        assert found == {"ce_subject": "größe".encode(), "el4ner-revision": b"3", "el4ner-status": status}
        assert origin_of(message) == Origin(41, TIME)
    assert list(answers)[-1] == (fails or "validate")


def test_a_replay_is_known_as_one_in_every_stage() -> None:
    for message in journey(origin=Origin(41, replays=2)).values():
        assert origin_of(message) == Origin(41, TIME, 2)


def test_headers_that_are_no_numbers_say_nothing() -> None:
    for rubbish in (b"", b"-1", b"1e3", b"\xff", b"9" * 40):
        headers = (("el4ner-position", rubbish), ("el4ner-timestamp", rubbish), ("el4ner-replay", rubbish))
        found = Record(Topic.SPAN_CANDIDATES, "p.span-candidates", 0, 5, TIME, b"d", b"{}", headers)
        assert origin_of(found) == Origin()


# --- deletions ---


def test_a_deletion_goes_on_through_every_stage_in_its_partition_and_trace() -> None:
    answers = deletions("größe", position=41)
    assert list(answers) == list(STAGE_TABLE)
    for message in answers.values():
        assert (message.key, message.value, message.partition) == ("größe".encode(), None, 2)
        assert find(message.headers, "ce_subject") == "größe".encode()
        assert origin_of(message) == Origin(41, TIME)
        trace = parse_traceparent(message.headers)
        assert trace is not None
        assert trace.trace_id == TRACE.split("-")[1]


def test_a_deletion_that_is_repeated_has_the_same_id() -> None:
    def event_ids(position: int) -> list[bytes | None]:
        return [find(message.headers, "ce_id") for message in deletions(position=position).values()]

    assert event_ids(41) == event_ids(41)
    assert not set(event_ids(41)) & set(event_ids(42))


def test_errors_name_the_json_path() -> None:
    value = {
        "stage": "extract",
        "status": "ok",
        **candidates_to_json(DocumentCandidates(Document("d", "t"), MANIFEST, ())),
    }
    value["producer"]["members"] = {"a": 5}
    with pytest.raises(MessageError, match="/producer/members/a"):
        decode(Topic.SPAN_CANDIDATES, dumps(value))
    typed = {"stage": "classify", "status": "ok", **types_to_json(DocumentTypes(Document("d", "t"), MANIFEST, ()))}
    del typed["usage"]
    with pytest.raises(MessageError, match="usage"):
        decode(Topic.TYPED_ENTITIES, dumps(typed))
